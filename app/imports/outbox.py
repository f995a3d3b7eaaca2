"""What a run of decided items leaves behind beside the records: outcomes, history, counts and deliveries.

An import that is answered at once and a chunk of a file leave the same, by the same statement.
"""

import uuid
from collections.abc import Sequence
from typing import Final

import msgspec

from app.destinations.kinds import KINDS
from app.files.staging_codec import encode_sources
from app.history import versions
from app.history.versions import NewVersion
from app.imports import queries
from app.imports.batch import items
from app.kit.compression import pack
from app.kit.postgres.column_codec import numbers, texts
from app.kit.postgres.database import Connection
from app.resources.decoding import Piece
from app.vocabulary import outcomes_wire
from app.vocabulary.outcomes_wire import ItemOutcome, Summary

_SIZES: Final = {name: kind.import_size for name, kind in KINDS.items() if kind.import_size}


class Booked(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of the recorded items, and whether deliveries were written."""

    summary: Summary
    results: dict[str, int]
    counts: dict[tuple[str, str], int]
    """By status and error code."""
    encoded: bytes
    """The outcomes as JSON."""
    has_deliveries: bool


async def book(
    connection: Connection,
    tenant_id: int,
    type_id: int,
    job_id: uuid.UUID,
    request_id: str,
    outcomes: list[ItemOutcome],
    pieces: Sequence[Piece],
    made: Sequence[NewVersion],
    *,
    first_index: int = 0,
    item_count: int | None = None,
    destination_ids: Sequence[int],
    chunk_size: int,
    dry_run: bool,
) -> Booked:
    """Write what was decided of a chunk's items and the versions that they made, within the caller's transaction.

    `item_count`: places of the chunk, where some of its items are not decided yet.
    """
    summary = outcomes_wire.summarize(outcomes)
    sources = items.sources(outcomes, pieces) if summary.succeeded < summary.total else {}
    changed: Sequence[ItemOutcome] = [] if dry_run else items.changed(outcomes)
    encoded = outcomes_wire.encode_items(outcomes)
    ids = texts([[o.id or "" for o in changed]])
    await queries.record_chunk(
        connection,
        queries.Chunk(
            tenant_id=tenant_id,
            type_id=type_id,
            job_id=job_id,
            request_id=request_id,
            first_index=first_index,
            item_count=len(outcomes) if item_count is None else item_count,
            failures=outcomes_wire.as_json(outcomes_wire.cluster(outcomes)),
            outcomes=pack(encoded),
            sources=pack(encode_sources(sources)) if sources else None,
            destination_ids=list(destination_ids),
            outbox_ids=ids.columns[0],
            outbox_versions=numbers(int(o.version or 0) for o in changed),
            outbox_indexes=numbers(o.index for o in changed),
            separator=ids.separator,
            null=ids.null,
            chunk_size=chunk_size,
            kinds=list(_SIZES),
            sizes=list(_SIZES.values()),
        ),
        versions.columns(made),
    )
    return Booked(
        summary=summary,
        results=outcomes_wire.count_results(outcomes),
        counts=outcomes_wire.count_codes(outcomes, summary),
        encoded=encoded,
        has_deliveries=bool(changed and destination_ids),
    )
