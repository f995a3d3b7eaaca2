"""Restores the state of records before some items of a job, a range at a time, within the caller's transaction.

The result is recorded like a chunk of an import: outcomes, counts, and deliveries to every destination, which
get the records in their version at that time. Every exit of an item:

- restored   the version is still the item's own, or is so again because what came after was undone → the one before
             becomes a new version, or the record a tombstone
- unchanged  an earlier undo has taken the item back already
- conflict   somebody changed the record since: it is left as it is, the item says by whom, and a dead letter waits
             for an operator (`app.undo.conflicts`)

A replay of such dead letters restores records from the version that the dead letter names, too.
"""

import uuid
from collections.abc import Sequence
from typing import Any, Final

import asyncpg
import msgspec

from app.destinations.kinds import reach_of
from app.history.versions import NewVersion, Place, StoredVersion
from app.imports import processing_queries
from app.imports.outbox import book
from app.kit.postgres.database import Connection
from app.resources import documents, field_states
from app.resources.declaration import Resource
from app.undo import conflict_queries, conflicts, queries
from app.undo.conflict_queries import NewConflict
from app.undo.conflicts import Conflict
from app.undo.queries import Change, CurrentVersion, Maker
from app.vocabulary import outcomes_wire
from app.vocabulary.outcomes_wire import FieldError, ItemOutcome
from app.vocabulary.states import ErrorCode, ItemStatus, JobKind, Result

WORKFLOW: Final = "undo"
"""The saga that undoes a job."""
RANGE: Final = 1_000
"""Most items of one transaction."""


class Restoration(msgspec.Struct, frozen=True, kw_only=True):
    """The job that takes something back, and the one whose items it takes back."""

    tenant_id: int
    resource: Resource
    job_id: uuid.UUID
    request_id: str
    of: uuid.UUID
    chunk_size: int


class Restored(msgspec.Struct, frozen=True):
    """What became of a range; records by outcome."""

    restored: list[str]
    unchanged: list[str]
    conflicts: list[str]
    to_notify: list[int]
    """Destinations that were given deliveries."""


class _Earlier(msgspec.Struct, frozen=True):
    """The state before a change (`None`: there was no record, or a tombstone), and who had made it."""

    stored: StoredVersion | None
    made_by: Place | None


async def restore(
    connection: Connection,
    job: Restoration,
    changes: Sequence[Change],
    *,
    first_index: int,
    accepted: Sequence[Conflict] | None = None,
) -> Restored:
    """Take these changes back; they become the items of `job` from `first_index` on.

    `accepted`: of a replay, what the dead letter of each change says; the caller holds and resolves these. A record is
    also restored from the version that its dead letter names.

    Raises:
        SerializationError: one of the records was erased since its change was read.
    """
    type_id = job.resource.type_id
    record_ids = [c.record_id for c in changes]
    waiting = await conflict_queries.lock_conflicts(connection, job.tenant_id, type_id, record_ids, job.of)
    locked = await queries.lock_records(connection, job.tenant_id, type_id, record_ids)
    if any(c.record_id not in locked for c in changes):
        raise asyncpg.SerializationError("a record was erased meanwhile, with its changes: look at them anew")
    current = [locked[c.record_id] for c in changes]
    own, makers = await _find_own(connection, job, changes, current)
    if accepted is not None:
        own |= {place for place, one in enumerate(accepted) if one.changed_by.is_still(current[place])}
    earlier = await _read_earlier(connection, job, changes, accepted)
    made = await queries.restore(
        connection,
        job.tenant_id,
        type_id,
        job.job_id,
        [_restore(first_index + place, changes[place], current[place], earlier[place].stored) for place in sorted(own)],
    )
    outcomes = [
        ItemOutcome(first_index + place, change.record_id, ItemStatus.OK, Result.UPDATED, current[place].version + 1)
        if place in own
        else _leave(job, first_index + place, change, current[place], makers[current[place].job_id])
        for place, change in enumerate(changes)
    ]
    to_notify = await _book(connection, job, changes, outcomes, earlier, made, first_index)
    chains = {(one.record_id, one.item_index): one.chain_id for one in waiting}
    left = [
        NewConflict(
            record_id=change.record_id,
            version=change.version,
            item_index=first_index + place,
            detail=_detail(outcomes[place]),
            chain_id=chains.get((change.record_id, change.item_index)),
            conflict=conflicts.describe(
                job.of,
                change,
                current[place],
                makers[current[place].job_id],
                earlier[place].stored,
                earlier[place].made_by,
            ),
        )
        for place, change in enumerate(changes)
        if outcomes[place].status is not ItemStatus.OK
    ]
    await conflict_queries.insert(
        connection, job.tenant_id, type_id, job.resource.name, job.job_id, job.request_id, left
    )
    if accepted is None and waiting:
        decided = {(change.record_id, change.item_index) for change in changes}
        again = [one.dead_letter_id for one in waiting if (one.record_id, one.item_index) in decided]
        note = f"job {job.job_id} has come to this item again"
        await conflict_queries.supersede(connection, job.tenant_id, again, note=note)
    return Restored(
        restored=[outcome.id or "" for outcome in outcomes if outcome.result is Result.UPDATED],
        unchanged=[outcome.id or "" for outcome in outcomes if outcome.result is Result.UNCHANGED],
        conflicts=[one.record_id for one in left],
        to_notify=to_notify,
    )


async def _read_earlier(
    connection: Connection, job: Restoration, changes: Sequence[Change], accepted: Sequence[Conflict] | None
) -> list[_Earlier]:
    """Of a replay from the dead letters: the versions may be gone since."""
    if accepted is not None:
        return [
            _Earlier(one.restored(change.record_id), one.made_by) for change, one in zip(changes, accepted, strict=True)
        ]
    befores = await queries.read_befores(connection, job.tenant_id, changes)
    return [_Earlier(stored, change.before) for change, stored in zip(changes, befores, strict=True)]


async def _find_own(
    connection: Connection, job: Restoration, changes: Sequence[Change], current: Sequence[CurrentVersion]
) -> tuple[set[int], dict[uuid.UUID, Maker]]:
    """Positions of changes whose version is current, or current again; and who made the other current versions."""
    own = {place for place, c in enumerate(changes) if _is_own(job, c, current[place])}
    others = [place for place in range(len(changes)) if place not in own]
    if not others:
        return own, {}
    makers = await queries.read_makers(connection, job.tenant_id, list({current[place].job_id for place in others}))
    undone = [
        place
        for place in others
        if makers[current[place].job_id].kind == JobKind.UNDO
        and current[place].source_version == changes[place].stored.source_version
    ]
    if undone:
        again = await queries.find_own(
            connection,
            job.tenant_id,
            job.of,
            [changes[place] for place in undone],
            [current[place] for place in undone],
        )
        own |= {undone[number] for number in again}
    return own, makers


def _restore(index: int, change: Change, found: CurrentVersion, before: StoredVersion | None) -> queries.RestoredRecord:
    """The record as it was before the change, and what is known of its fields then."""
    known = field_states.NOTHING
    if before is not None:
        known = field_states.know(documents.read(before.document), field_states.read_cleared(before.cleared))
    names = field_states.take_back(
        found.known,
        known,
        field_states.read_withdrawn(found.withdrawn),
        version=found.version + 1,
        since=change.version,
    )
    return queries.RestoredRecord(index, found, before, *names)


def _is_own(job: Restoration, change: Change, found: CurrentVersion) -> bool:
    """Whether the record is exactly as the item left it. A later item that said the same, under a newer
    source_version, made no version, but it confirmed what would be taken back."""
    made = (found.job_id, found.item_index, found.version)
    return made == (job.of, change.item_index, change.version) and found.source_version == change.stored.source_version


def _leave(job: Restoration, index: int, change: Change, found: CurrentVersion, maker: Maker) -> ItemOutcome:
    taken_back = (found.prev_job_id, found.prev_item_index) == (job.of, change.item_index)
    if taken_back and maker.kind == JobKind.UNDO:
        return ItemOutcome(index, change.record_id, ItemStatus.OK, Result.UNCHANGED, found.version)
    if found.version == change.version:
        since = f"an item of source_version {found.source_version} has confirmed it since"
    else:
        since = (
            f"the record is at version {found.version} now, made by item {found.item_index} of the {maker.kind} "
            f"job {found.job_id} (key {maker.key_id}, request {maker.request_id})"
        )
    detail = f"item {change.item_index} of job {job.of} made version {change.version}; {since}, so it is left as it is"
    return outcomes_wire.failed(index, change.record_id, [FieldError(ErrorCode.VERSION_CONFLICT, "", detail)])


async def _book(
    connection: Connection,
    job: Restoration,
    changes: Sequence[Change],
    outcomes: list[ItemOutcome],
    earlier: Sequence[_Earlier],
    made: Sequence[NewVersion],
    first_index: int,
) -> list[int]:
    destinations = await processing_queries.pending_destinations(connection, job.tenant_id, reach_of(job.resource))
    booked = await book(
        connection,
        job.tenant_id,
        job.resource.type_id,
        job.job_id,
        job.request_id,
        outcomes,
        _write_sources(job, changes, outcomes, earlier),
        made,
        first_index=first_index,
        destination_ids=destinations,
        chunk_size=job.chunk_size,
        dry_run=False,
    )
    counted = await processing_queries.count_items(
        connection, job.tenant_id, job.job_id, booked.summary, outcomes_wire.as_json(booked.results)
    )
    if not counted:
        raise RuntimeError(f"job {job.job_id} takes no more items")
    return destinations if booked.has_deliveries else []


def _write_sources(
    job: Restoration, changes: Sequence[Change], outcomes: Sequence[ItemOutcome], earlier: Sequence[_Earlier]
) -> list[bytes]:
    """What each item that was left alone would have restored, so that its row can be pushed by who still wants it."""
    return [
        b""
        if outcome.status is ItemStatus.OK
        else msgspec.json.encode(as_row(job.resource, change.record_id, before.stored))
        for change, outcome, before in zip(changes, outcomes, earlier, strict=True)
    ]


def as_row(resource: Resource, record_id: str, before: StoredVersion | None) -> dict[str, Any]:
    """A state of a record as an item that can be pushed; `None`: there was no record."""
    found = {"deleted": True} if before is None else documents.as_shown(resource, documents.read(before.document))
    return {"id": record_id, **found}


def _detail(outcome: ItemOutcome) -> str:
    return "; ".join(error.detail for error in outcome.errors or ())
