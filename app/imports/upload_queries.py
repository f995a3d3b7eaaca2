"""The queries of bodies that arrive piece by piece, typed."""

import uuid
from typing import Final

import msgspec

from app.kit.postgres.database import Connection
from app.kit.postgres.query import Found, Query, Seconds, query
from app.vocabulary.states import FINISHED_JOB_STATES, JobState

INTERRUPTED: Final = "UPLOAD_INTERRUPTED"
"""Why a job whose body did not arrive whole was canceled."""
_SILENT: Final = "the process that received the body stopped before the body was complete; send it again"
_BATCH: Final = 5
"""Jobs abandoned in one transaction."""


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """A body that begins to arrive."""

    tenant_id: int
    job_id: uuid.UUID
    type: str
    """Of its items."""
    request_id: str
    trace_context: str | None = None
    key_id: str
    options: str
    route: str
    key: str
    lease: Seconds
    """Seconds without a heartbeat after which it is abandoned."""
    retention: Seconds


class PackedChunk(msgspec.Struct, frozen=True):
    """Items as they are staged."""

    first_index: int
    item_count: int
    rows: bytes
    """Packed (`app.files.staging_codec`)."""
    ids: str | None
    """As a column (`app.kit.postgres.column_codec`)."""
    separator: str
    null: str


class StagedTotals(msgspec.Struct, frozen=True):
    """What a tenant has sent that is not processed yet."""

    jobs: int
    bytes: int


read_staging = Query[[int], StagedTotals]("read_staging")
begin = Query[[Arrival], None]("begin_receiving")
"""(arrival) Raises:
    asyncpg.UniqueViolationError: somebody else put something under this key meanwhile.
"""
renew = Query[[Arrival, int], Found]("renew_receiving")
"""(arrival, size)

Say that the body is still arriving, `size` bytes so far; false: its job is no longer being received.
"""


@query("stage_chunk")
async def store(connection: Connection, arrival: Arrival, chunk: PackedChunk) -> None: ...


@query("finish_receiving")
async def finish(
    connection: Connection,
    arrival: Arrival,
    *,
    step: str,
    items: int,
    size: int,
    form: str,
    fingerprint: bytes,
    answer: bytes,
) -> Found:
    """The body is whole; false: its job is no longer being received, or not all of its chunks are there."""


read_state = Query[[int, uuid.UUID], tuple[str, str | None] | None]("read_receiving")
"""State and error code of a job."""


@query("end_receiving")
async def _end(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, state: JobState, error: str, silent: bool
) -> None: ...


_free_key = Query[[int, str, str, uuid.UUID], None]("free_key")


async def give_up(connection: Connection, arrival: Arrival, state: JobState, error: str) -> None:
    """End the job, unless somebody else did; the key is free again, and `remove_staged` of `app.imports.cancel`
    removes its staged chunks.

    Does nothing to a body that was taken as a whole.
    """
    await _end(connection, arrival.tenant_id, arrival.job_id, state, error, False)
    await _free(connection, arrival.tenant_id, arrival.job_id, arrival.route, arrival.key)


async def abandon(connection: Connection, tenant_id: int, job_id: uuid.UUID, route: str, key: str) -> bool:
    """Abandon an upload whose heartbeat is lost, so that its key is free; false: it still arrives."""
    await _end_silent(connection, tenant_id, job_id)
    return await _free(connection, tenant_id, job_id, route, key)


_read_stale = Query[[int, int], list[uuid.UUID]]("stale_receiving")


async def abandon_stale(connection: Connection, tenant_id: int) -> list[uuid.UUID]:
    """Abandon uploads whose heartbeat is lost, a few per call; `remove_staged` of `app.imports.cancel` removes their
    staged chunks. Must run in a transaction."""
    stale = await _read_stale(connection, tenant_id, _BATCH)
    for job_id in stale:
        await _end_silent(connection, tenant_id, job_id)
    return stale


async def _end_silent(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> None:
    error = msgspec.json.encode({"code": INTERRUPTED, "detail": _SILENT}).decode()
    await _end(connection, tenant_id, job_id, JobState.CANCELED, error, True)


async def _free(connection: Connection, tenant_id: int, job_id: uuid.UUID, route: str, key: str) -> bool:
    """The key of a job that ended while it was received; false: it did not end."""
    found = await read_state(connection, tenant_id, job_id)
    if found is not None and found[0] not in FINISHED_JOB_STATES:
        return False
    await _free_key(connection, tenant_id, route, key, job_id)
    return True
