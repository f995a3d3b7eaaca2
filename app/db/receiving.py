"""The queries of bodies that arrive piece by piece, typed."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import msgspec

from app.db.columns import texts
from app.db.pool import Connection
from app.db.sql import QUERIES
from app.domain.outcomes import FINISHED_JOB_STATES, JobState

INTERRUPTED: Final = "UPLOAD_INTERRUPTED"
"""Why a job whose body did not arrive whole was canceled."""
_SILENT: Final = "the process that received the body stopped before the body was complete; send it again"
_STROKE: Final = 5
"""Jobs given up in one transaction."""


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """A body that begins to arrive."""

    tenant_id: int
    job_id: uuid.UUID
    request_id: str
    key_id: str
    options: str
    route: str
    key: str
    lease: float
    """Seconds without a word after which it is given up."""
    retention: float


class Spooling(msgspec.Struct, frozen=True):
    """What a tenant has sent that is not processed yet."""

    jobs: int
    bytes: int


async def read_spooling(connection: Connection, tenant_id: int) -> Spooling:
    row = await connection.fetchrow(QUERIES["read_spooling"], tenant_id)
    assert row is not None
    return Spooling(row["jobs"], row["bytes"])


async def begin(connection: Connection, arrival: Arrival) -> None:
    """
    Raises:
        asyncpg.UniqueViolationError: somebody else put something under this key meanwhile.
    """
    a = arrival
    await connection.execute(
        QUERIES["begin_receiving"],
        a.tenant_id,
        a.job_id,
        a.request_id,
        a.key_id,
        a.options,
        timedelta(seconds=a.lease),
        a.route,
        a.key,
        timedelta(seconds=a.retention),
    )


async def renew(connection: Connection, arrival: Arrival, size: int) -> bool:
    """Say that the body is still arriving, `size` bytes so far; false: its job is no longer being received."""
    row = await connection.fetchrow(
        QUERIES["renew_receiving"],
        arrival.tenant_id,
        arrival.job_id,
        size,
        timedelta(seconds=arrival.lease),
        arrival.route,
        arrival.key,
    )
    return row is not None


async def store(
    connection: Connection, arrival: Arrival, first_index: int, ids: Sequence[str | None], rows: bytes
) -> None:
    """Spool a chunk; `ids` has one entry an item, `rows` are the items packed (app.domain.files.spooled)."""
    joined = texts([ids])
    await connection.execute(
        QUERIES["spool_chunk"],
        arrival.tenant_id,
        arrival.job_id,
        first_index,
        len(ids),
        joined.columns[0],
        joined.separator,
        joined.null,
        rows,
    )


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
) -> bool:
    """The body is whole; false: its job is no longer being received, or not all of its chunks are there."""
    row = await connection.fetchrow(
        QUERIES["finish_receiving"],
        arrival.tenant_id,
        arrival.job_id,
        step,
        items,
        size,
        form,
        arrival.route,
        arrival.key,
        fingerprint,
        answer,
        timedelta(seconds=arrival.retention),
    )
    return row is not None


async def read_state(
    connection: Connection, tenant_id: int, job_id: uuid.UUID
) -> tuple[str, str | None] | None:
    """State and error code of a job."""
    row = await connection.fetchrow(QUERIES["read_receiving"], tenant_id, job_id)
    return None if row is None else (row["state"], row["code"])


async def give_up(connection: Connection, arrival: Arrival, state: JobState, error: str) -> None:
    """End the job, unless somebody else did; the key is free again, and the spool is for `canceling.remove_spool`.

    Does nothing to a body that was taken as a whole.
    """
    await connection.execute(
        QUERIES["end_receiving"], arrival.tenant_id, arrival.job_id, state.value, error, False
    )
    await _free(connection, arrival.tenant_id, arrival.job_id, arrival.route, arrival.key)


async def abandon(connection: Connection, tenant_id: int, job_id: uuid.UUID, route: str, key: str) -> bool:
    """Give up a body of which nobody has heard for too long, so that its key is free; false: it still arrives."""
    await _end_silent(connection, tenant_id, job_id)
    return await _free(connection, tenant_id, job_id, route, key)


async def abandon_stale(connection: Connection, tenant_id: int) -> list[uuid.UUID]:
    """Give up bodies of which nobody has heard for too long, a few a call; their spools are for
    `canceling.remove_spool`. Must run in a transaction."""
    stale = [row["job_id"] for row in await connection.fetch(QUERIES["stale_receiving"], tenant_id, _STROKE)]
    for job_id in stale:
        await _end_silent(connection, tenant_id, job_id)
    return stale


async def _end_silent(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> None:
    error = msgspec.json.encode({"code": INTERRUPTED, "detail": _SILENT}).decode()
    await connection.execute(
        QUERIES["end_receiving"], tenant_id, job_id, JobState.CANCELED.value, error, True
    )


async def _free(connection: Connection, tenant_id: int, job_id: uuid.UUID, route: str, key: str) -> bool:
    """The key of a job that ended while it was received; false: it did not end."""
    found = await read_state(connection, tenant_id, job_id)
    if found is not None and found[0] not in FINISHED_JOB_STATES:
        return False
    await connection.execute(QUERIES["free_key"], tenant_id, route, key, job_id)
    return True
