"""Jobs as a receiving API process and importing workers leave them, written by the test itself."""

from __future__ import annotations

import uuid
from typing import Any, TypeAlias

import asyncpg
import uuid_utils.compat

Db: TypeAlias = "asyncpg.Connection[Any]"


async def make_job(
    db: Db,
    state: str = "running",
    *,
    items: int | None = 10_000,
    processed: int = 2_000,
    since: float | None = 10.0,
    tenant: str = "acme",
    staged: int = 0,
) -> str:
    """A job of an import that has been processed for `since` seconds, with `read_staged` chunks of 1,000 items left."""
    tenant_id = await db.fetchval("SELECT tenant_id FROM tenants WHERE name = $1", tenant)
    job_id: uuid.UUID = uuid_utils.compat.uuid7()
    await db.execute(
        """INSERT INTO jobs (
            tenant_id, job_id, kind, type, state, step, root_job_id, request_id, key_id, total, succeeded, failed,
            retry,
            results, items, bytes, started_at, receiving_until, applied_at, finished_at
        )
        VALUES (
            $1, $2, 'import', 'contacts', $3::text, CASE WHEN $3 IN ('queued', 'running') THEN 'apply' END, $2, 'r',
            'k',
            $4, $4, 0, 0, jsonb_build_object('created', $4::int), $5, 4711, now() - $6 * interval '1 s',
            CASE $3 WHEN 'receiving' THEN now() + interval '20 s' END,
            CASE WHEN $3 IN ('syncing', 'completed') THEN now() END,
            CASE WHEN $3 IN ('completed', 'failed', 'canceled') THEN now() END
        )""",
        tenant_id,
        job_id,
        state,
        processed,
        items,
        since,
    )
    await db.execute(
        """INSERT INTO staged_chunks (tenant_id, job_id, first_index, item_count, step, id_hashes, rows)
        SELECT $1, $2, n * 1000, 1000, 'apply', array_fill(1::bigint, ARRAY[1000]), 'x'::bytea
        FROM generate_series(1, $3) n""",
        tenant_id,
        job_id,
        staged,
    )
    return str(job_id)


async def advance(db: Db, job_id: str, by: int = 1_000) -> int:
    """Another chunk is applied; returns the job's revision."""
    revision: int = await db.fetchval(
        """UPDATE jobs
        SET total = total + $2, succeeded = succeeded + $2, state = 'running', revision = revision + 1,
            results = jsonb_build_object('created', succeeded + $2)
        WHERE job_id = $1 RETURNING revision""",
        job_id,
        by,
    )
    return revision


async def complete(db: Db, job_id: str) -> int:
    """Every item is applied, and there is no destination; returns the job's revision."""
    revision: int = await db.fetchval(
        """UPDATE jobs
        SET state = 'completed', step = NULL, total = items, succeeded = items, applied_at = now(),
            finished_at = now(), revision = revision + 1
        WHERE job_id = $1 RETURNING revision""",
        job_id,
    )
    return revision
