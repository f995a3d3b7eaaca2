"""The queries of the read model, typed."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from app.db.imports import lock_number
from app.db.query import Json, Query

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
    """Other jobs name this one as their root; only in the document of a single job."""
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
    samples: Json[list[int]]


class DestinationClusterRow(msgspec.Struct, frozen=True):
    name: str
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


read_job = Query[[int, uuid.UUID], JobRow | None]("read_job")
_read_jobs = Query[[int, uuid.UUID | None, int], list[JobRow]]("read_jobs")
_read_jobs_of_key = Query[[int, uuid.UUID | None, int, str], list[JobRow]]("read_jobs_of_key")


async def read_jobs(
    connection: Connection, tenant_id: int, *, of_key: str | None, before: uuid.UUID | None, limit: int
) -> list[JobRow]:
    """Newest first; those that one API key asked for, or all."""
    if of_key is None:
        return await _read_jobs(connection, tenant_id, before, limit)
    return await _read_jobs_of_key(connection, tenant_id, before, limit, of_key)


_read_effects = Query[[int, Sequence[uuid.UUID]], list[EffectRow]]("read_effects")


async def read_effects(
    connection: Connection, tenant_id: int, job_ids: Sequence[uuid.UUID]
) -> dict[uuid.UUID, list[EffectRow]]:
    effects: dict[uuid.UUID, list[EffectRow]] = {}
    for row in await _read_effects(connection, tenant_id, job_ids):
        effects.setdefault(row.job_id, []).append(row)
    return effects


read_local_failures = Query[[int, uuid.UUID], list[ClusterRow]]("read_local_failures")
"""By error code, once for each run of items that the job holds."""
read_destination_failures = Query[[int, uuid.UUID], list[DestinationClusterRow]]("read_destination_failures")
"""By destination and error code."""
_read_not_restored = Query[[int, uuid.UUID], list[tuple[str, int]]]("read_not_restored")


async def read_not_restored(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> dict[str, int]:
    """By destination, items of an undo of which something was left as it is there."""
    return dict(await _read_not_restored(connection, tenant_id, job_id))


read_next_attempt = Query[[int, uuid.UUID], float | None]("read_next_attempt")
"""Seconds until something more happens to this job by itself."""
_read_revisions = Query[[list[int], list[uuid.UUID]], list[Revision]]("read_revisions")


async def read_revisions(connection: Connection, jobs: Sequence[tuple[int, uuid.UUID]]) -> list[Revision]:
    """Of the jobs (tenant, job) that exist."""
    return await _read_revisions(connection, [tenant for tenant, _ in jobs], [job for _, job in jobs])


read_key = Query[[int, str, str], KeyRow | None]("read_key")
"""(tenant_id, route, key)"""
_lock_is_held = Query[[int], bool]("key_is_running")


async def key_is_running(connection: Connection, tenant_id: int, route: str, key: str) -> bool:
    """Whether a request with this key is inside its transaction now."""
    return await _lock_is_held(connection, lock_number(tenant_id, route, key))


read_contact = Query[[int, str], ContactRow | None]("read_contact")
"""(tenant_id, contact_id)"""
read_contact_syncs = Query[[int, str], list[SyncRow]]("read_contact_syncs")
"""(tenant_id, contact_id)"""
read_health = Query[[int | None], list[HealthRow]]("read_health")
"""Every destination of one tenant, or of all of them."""
read_schema_version = Query[[], str | None]("read_schema_version")
