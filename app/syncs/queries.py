"""The queries of syncs, typed."""

import uuid
from collections.abc import Sequence
from typing import Any

import msgspec

from app.deliveries.drift import Listing
from app.kit.postgres.database import Connection
from app.kit.postgres.query import Json, Query, query
from app.syncs.rules import Cursor
from app.vocabulary.outcomes_wire import JobError


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A destination as far as a sync must know it."""

    destination_id: int
    kind: str
    options: Json[dict[str, Any]]


class FoundThere(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that lists what is there, with the keys that nobody here knows."""

    delivery_id: int
    record_ids: list[str]
    listing: Json[Listing]
    done: bool


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """A sync whose next records this worker takes."""

    sync: Json[Cursor]
    request_id: str
    total: int
    """Records that were taken before."""
    kind: str
    """Of the destination."""
    removed: bool
    """It was."""


count_records = Query[[int, list[int], int], int]("count_records")
"""(tenant_id, type_ids, most)"""
types_with_records = Query[[int, list[int]], list[int]]("types_with_records")
"""(tenant_id, type_ids)"""
find_destination = Query[[int, str], Place | None]("find_destination_to_sync")
"""(tenant_id, name)"""
running = Query[[int, int], uuid.UUID | None]("running_sync")
"""(tenant_id, destination_id)"""
working = Query[[], list[tuple[int, uuid.UUID]]]("working_syncs")
lock_effects = Query[[int, uuid.UUID], None]("lock_sync_effects")
"""(tenant_id, job_id) To be called before `claim`."""
claim = Query[[int, uuid.UUID], Claimed | None]("claim_sync")
"""(tenant_id, job_id)"""
open_deliveries = Query[[int, uuid.UUID, int], int]("open_deliveries")
"""(tenant_id, job_id, most)"""
move = Query[[int, uuid.UUID, str | None], None]("move_sync")
"""(tenant_id, job_id, cursor) `None`: every record was taken."""
drop_listing = Query[[int, int], None]("drop_listing")
"""(tenant_id, delivery_id)"""
note_error = Query[[int, uuid.UUID, Json[JobError]], None]("note_sync_error")
"""(tenant_id, job_id, error)"""
note_verification = Query[[int, int], None]("note_verification")
"""(tenant_id, destination_id)"""
due_verifications = Query[[], list[tuple[int, int, str]]]("due_verifications")
"""(tenant_id, destination_id, name)"""


@query("book_listing")
async def book_listing(
    connection: Connection,
    tenant_id: int,
    job_id: uuid.UUID,
    destination_id: int,
    type_id: int,
    *,
    request_id: str,
    first_index: int,
    listing: Json[Listing],
) -> None:
    """`first_index`: that of the first item it may find."""


@query("read_listing")
async def read_listing(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, destination_id: int, first_index: int
) -> FoundThere | None:
    """The one that was booked with this index."""


@query("book_unknown")
async def book_unknown(
    connection: Connection,
    tenant_id: int,
    job_id: uuid.UUID,
    destination_id: int,
    delivery_id: int,
    *,
    first_index: int,
    count: int,
    outcomes: bytes,
    results: str,
) -> None:
    """For `outcomes` and `results` see `book`."""


@query("takes_records")
async def takes_records(
    connection: Connection, tenant_id: int, destination_id: int, *, type: str, named: list[str] | None, kinds: list[str]
) -> bool:
    """For the arguments see `app.destinations.kinds.Reach`."""


@query("insert_sync")
async def insert(
    connection: Connection,
    tenant_id: int,
    job_id: uuid.UUID,
    destination_id: int,
    *,
    type: str | None,
    request_id: str,
    trace_context: str | None,
    key_id: str,
    options: str,
    cursor: str,
) -> None:
    """`options` and `cursor`: JSON."""


@query("records_to_sync")
async def records(
    connection: Connection,
    tenant_id: int,
    destination_id: int,
    type_id: int,
    *,
    after: str,
    everything: bool,
    limit: int,
) -> list[tuple[str, int]]:
    """Ids and versions, by id."""


@query("book_sync")
async def book(
    connection: Connection,
    tenant_id: int,
    job_id: uuid.UUID,
    destination_id: int,
    type_id: int,
    *,
    request_id: str,
    first_index: int,
    record_ids: Sequence[str],
    versions: Sequence[int],
    outcomes: bytes,
    lows: Sequence[int],
    highs: Sequence[int],
    forced: bool,
    verify: bool,
    results: str,
    cursor: str,
) -> None:
    """`outcomes`: packed. `results`: JSON of what all items did, with these. `cursor`: JSON of where the next records
    are."""
