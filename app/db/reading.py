"""The queries of the read model, typed."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from app.db.imports import lock_number
from app.db.sql import QUERIES

if TYPE_CHECKING:
    from app.db.pool import Connection


class JobRow(msgspec.Struct, frozen=True):
    job_id: uuid.UUID
    kind: str
    state: str
    root_job_id: uuid.UUID
    request_id: str
    options: str
    total: int
    succeeded: int
    failed: int
    retry: int
    results: str
    revision: int
    created_at: datetime
    finished_at: datetime | None
    items: int | None
    bytes: int
    started_at: datetime | None
    applied_at: datetime | None
    error: str | None
    worked: float | None
    """Seconds since the first item was processed, until the last one was."""
    retried: bool
    """Other jobs name this one as their root; told of a job by itself only."""
    waiting: str | None


class EffectRow(msgspec.Struct, frozen=True):
    """Counts of a job's items by state at one destination."""

    job_id: uuid.UUID
    name: str
    pending: int
    ok: int
    retry: int
    failed: int
    unknown: int
    dead: int
    skipped: int
    paused: bool
    blocked_code: str | None
    blocked_for: float | None
    sealed: bytes | None
    """The beginning of its credentials, which names their key; `None`: nothing goes there now."""


class ClusterRow(msgspec.Struct, frozen=True):
    code: str
    count: int
    samples: list[int]


class Revision(msgspec.Struct, frozen=True):
    tenant_id: int
    job_id: uuid.UUID
    revision: int
    finished: bool


class KeyRow(msgspec.Struct, frozen=True):
    status: int | None
    """None while the body arrives."""
    job_id: uuid.UUID
    created_at: datetime
    expires_at: datetime
    expired: bool
    answering: bool


class ContactRow(msgspec.Struct, frozen=True):
    contact_id: str
    version: int
    source_version: int | None
    email: str
    first_name: str | None
    last_name: str | None
    phone: str | None
    company: str | None
    attributes: str
    job_id: uuid.UUID
    created_at: datetime
    updated_at: datetime
    cleared: str | None


class SyncRow(msgspec.Struct, frozen=True):
    """A destination and what it holds of one contact; `state` is `None` while nothing was tried."""

    name: str
    paused: bool
    created_at: datetime
    blocked_code: str | None
    blocked_detail: str | None
    blocked_for: float | None
    synced_version: int | None
    synced_at: datetime | None
    remote_id: str | None
    state: str | None
    state_version: int | None
    error_code: str | None
    error_detail: str | None
    created: bool | None
    not_restored: str | None


class HealthRow(msgspec.Struct, frozen=True):
    tenant: str
    name: str
    kind: str
    state: str
    blocked_code: str | None
    blocked_detail: str | None
    blocked_for: float | None
    unknown: int
    """Items whose answer was lost."""
    unknown_for: int
    """Seconds since the first of them became unknown."""


async def read_job(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> JobRow | None:
    row = await connection.fetchrow(QUERIES["read_job"], tenant_id, job_id)
    return None if row is None else JobRow(*row)


async def read_jobs(
    connection: Connection, tenant_id: int, *, of_key: str | None, before: uuid.UUID | None, limit: int
) -> list[JobRow]:
    """Newest first; those that one API key asked for, or all."""
    if of_key is None:
        rows = await connection.fetch(QUERIES["read_jobs"], tenant_id, before, limit)
    else:
        rows = await connection.fetch(QUERIES["read_jobs_of_key"], tenant_id, before, limit, of_key)
    return [JobRow(*row) for row in rows]


async def read_effects(
    connection: Connection, tenant_id: int, job_ids: Sequence[uuid.UUID]
) -> dict[uuid.UUID, list[EffectRow]]:
    effects: dict[uuid.UUID, list[EffectRow]] = {}
    for row in await connection.fetch(QUERIES["read_effects"], tenant_id, job_ids):
        effects.setdefault(row["job_id"], []).append(EffectRow(*row))
    return effects


async def read_local_failures(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> list[ClusterRow]:
    """By error code, once for each run of items that the job holds."""
    rows = await connection.fetch(QUERIES["read_local_failures"], tenant_id, job_id)
    return [ClusterRow(code, count, msgspec.json.decode(samples)) for code, count, samples in rows]


async def read_destination_failures(
    connection: Connection, tenant_id: int, job_id: uuid.UUID
) -> list[tuple[str, ClusterRow]]:
    """By destination and error code."""
    rows = await connection.fetch(QUERIES["read_destination_failures"], tenant_id, job_id)
    return [(name, ClusterRow(code, count, samples)) for name, code, count, samples in rows]


async def read_not_restored(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> dict[str, int]:
    """By destination, items of an undo of which something was left as it is there."""
    rows = await connection.fetch(QUERIES["read_not_restored"], tenant_id, job_id)
    return {row["name"]: row["count"] for row in rows}


async def read_next_attempt(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> float | None:
    """Seconds until something more happens to this job by itself."""
    value: float | None = await connection.fetchval(QUERIES["read_next_attempt"], tenant_id, job_id)
    return value


async def read_revisions(connection: Connection, jobs: Sequence[tuple[int, uuid.UUID]]) -> list[Revision]:
    """Of the jobs (tenant, job) that exist."""
    rows = await connection.fetch(
        QUERIES["read_revisions"], [tenant for tenant, _ in jobs], [job for _, job in jobs]
    )
    return [Revision(*row) for row in rows]


async def read_key(connection: Connection, tenant_id: int, route: str, key: str) -> KeyRow | None:
    row = await connection.fetchrow(QUERIES["read_key"], tenant_id, route, key)
    return None if row is None else KeyRow(*row)


async def key_is_running(connection: Connection, tenant_id: int, route: str, key: str) -> bool:
    """Whether a request with this key is inside its transaction now."""
    return bool(await connection.fetchval(QUERIES["key_is_running"], lock_number(tenant_id, route, key)))


async def read_contact(connection: Connection, tenant_id: int, contact_id: str) -> ContactRow | None:
    row = await connection.fetchrow(QUERIES["read_contact"], tenant_id, contact_id)
    return None if row is None else ContactRow(*row)


async def read_contact_syncs(connection: Connection, tenant_id: int, contact_id: str) -> list[SyncRow]:
    rows = await connection.fetch(QUERIES["read_contact_syncs"], tenant_id, contact_id)
    return [SyncRow(*row) for row in rows]


async def read_health(connection: Connection, tenant_id: int | None) -> list[HealthRow]:
    """Every destination of one tenant, or of all of them."""
    rows: list[Any] = await connection.fetch(QUERIES["read_health"], tenant_id)
    return [HealthRow(*row) for row in rows]


async def read_schema_version(connection: Connection) -> str | None:
    version: str | None = await connection.fetchval(QUERIES["read_schema_version"])
    return version
