"""The queries that every import ends with, typed."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import msgspec

from app.kit.postgres.column_codec import numbers, texts
from app.kit.postgres.database import Connection
from app.kit.postgres.query import query


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """A run of decided items and their deliveries."""

    tenant_id: int
    job_id: uuid.UUID
    request_id: str
    first_index: int
    item_count: int
    """Places of the run; `outcomes` may lack some that wait for others."""
    failures: str
    outcomes: bytes
    sources: bytes | None
    """Of the items that are not `ok`."""
    destination_ids: Sequence[int]
    contact_ids: Sequence[str]
    """Of the items to be delivered, in item order; `versions` and `indexes` likewise."""
    versions: Sequence[int]
    indexes: Sequence[int]
    chunk_size: int


@query("record_chunk")
async def _record_chunk(
    connection: Connection,
    chunk: Chunk,
    outbox_ids: str | None,
    outbox_versions: str | None,
    outbox_indexes: str | None,
    firsts: list[int],
    lasts: list[int],
    separator: str,
    null: str,
) -> None: ...


async def record_chunk(connection: Connection, chunk: Chunk) -> None:
    count = len(chunk.contact_ids)
    firsts = range(1, count + 1, chunk.chunk_size)
    outbox = texts([chunk.contact_ids])
    await _record_chunk(
        connection,
        chunk,
        outbox.columns[0],
        numbers(chunk.versions),
        numbers(chunk.indexes),
        list(firsts),
        [min(first + chunk.chunk_size - 1, count) for first in firsts],
        outbox.separator,
        outbox.null,
    )
