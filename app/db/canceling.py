"""The queries of canceling an import, typed."""

from __future__ import annotations

import uuid
from typing import Final

from app.db.pool import Connection
from app.db.sql import QUERIES
from app.db.strokes import in_strokes
from app.domain.outcomes import JobState

_CHUNKS: Final = 100
_REPEATS: Final = 10_000
"""Rows that one statement removes, so that it never takes long."""


async def cancel_job(connection: Connection, tenant_id: int, job_id: uuid.UUID, error: str) -> bool:
    """False: the job has no item left to decide, or does not exist. `error`: JSON, why."""
    return await connection.fetchval(QUERIES["cancel_job"], tenant_id, job_id, error) is not None


async def read_state(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> JobState | None:
    state = await connection.fetchval(QUERIES["read_job_state"], tenant_id, job_id)
    return None if state is None else JobState(state)


async def remove_spool(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> bool:
    """Remove what is spooled of a job that is at its end; each stroke commits by itself.

    False: some is left, because somebody holds it or because it is much; call again later.
    """
    for query, most in ((QUERIES["remove_chunks"], _CHUNKS), (QUERIES["remove_repeats"], _REPEATS)):
        await in_strokes(connection, query, tenant_id, job_id, stroke=most)
    return not await connection.fetchval(QUERIES["is_spooled"], tenant_id, job_id)


async def orphaned_spools(connection: Connection) -> list[tuple[int, uuid.UUID]]:
    """Jobs (tenant, job) with a spool that they need no more, for `remove_spool`."""
    rows = await connection.fetch(QUERIES["orphaned_spools"])
    return [(row["tenant_id"], row["job_id"]) for row in rows]
