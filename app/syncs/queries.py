"""The queries of syncs, typed."""

import uuid
from collections.abc import Sequence

import msgspec

from app.kit.postgres.database import Connection
from app.kit.postgres.query import Json, Query, query
from app.syncs.rules import Cursor


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """A sync whose next records this worker takes."""

    sync: Json[Cursor]
    request_id: str
    total: int
    """Records that were taken before."""


count_records = Query[[int, list[int], int], int]("count_records")
"""(tenant_id, type_ids, most)"""
find_destination = Query[[int, str], int | None]("find_destination_to_sync")
"""(tenant_id, name) Its id."""
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
    everything: bool,
    results: str,
    cursor: str,
) -> None:
    """`outcomes`: packed. `results`: JSON of what all items did, with these. `cursor`: JSON of where the next records
    are."""
