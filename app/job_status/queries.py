"""The queries of the read model, typed."""

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec

from app.kit.postgres.database import Connection
from app.kit.postgres.query import Json, Query, query
from app.vocabulary.outcomes_wire import JobError, JobOptions
from app.vocabulary.states import ErrorCode, JobKind, JobState, Result


class SyncAsked(msgspec.Struct, frozen=True):
    """What a sync is to do."""

    destination: str
    mode: Literal["missing", "all", "verify"]
    repair: bool = False


class JobRow(msgspec.Struct, frozen=True):
    job_id: uuid.UUID
    kind: JobKind
    type: str | None
    state: JobState
    root_job_id: uuid.UUID
    request_id: str
    options: Json[JobOptions]
    total: int
    succeeded: int
    failed: int
    retry: int
    results: Json[dict[Result, int]]
    revision: int
    created_at: datetime
    finished_at: datetime | None
    items: int | None
    bytes: int
    started_at: datetime | None
    applied_at: datetime | None
    error: Json[JobError] | None
    worked: float | None
    """Seconds since the first item was processed, until the last one was."""
    dead_letters_trimmed: bool
    """Settled dead letters of its items are gone."""
    retried: bool
    """Other jobs name this one as their root; only in the document of a single job."""
    waiting: Json[JobError] | None
    sync: Json[SyncAsked] | None


class Effects(msgspec.Struct, frozen=True):
    """How many of a job's items are in which state at one destination."""

    pending: int = 0
    ok: int = 0
    retry: int = 0
    failed: int = 0
    unknown: int = 0
    dead: int = 0
    skipped: int = 0


class EffectRow(Effects, frozen=True, kw_only=True):
    job_id: uuid.UUID
    name: str
    paused: bool
    blocked_code: str | None
    blocked_for: float | None
    sealed: bytes | None
    """The beginning of its credentials, which names their key; `None`: nothing goes there now."""


class DriftCounts(msgspec.Struct, frozen=True):
    """Records in which a destination differs from what is here, repaired or not."""

    missing: int = 0
    """They are here, and not there."""
    different: int = 0
    """Fields of them hold something else there."""
    unknown: int = 0
    """They are there under keys of ours that no record here has, or whose records were removed."""


class ClusterRow(msgspec.Struct, frozen=True):
    code: ErrorCode
    count: int
    samples: Json[list[int]]


class Failure(msgspec.Struct, frozen=True):
    """Items that are not `ok` for one reason; `samples` are the first indexes of them."""

    destination: str
    code: ErrorCode
    count: int
    samples: list[int]


class Revision(msgspec.Struct, frozen=True):
    tenant_id: int
    job_id: uuid.UUID
    revision: int
    finished: bool


read_job = Query[[int, uuid.UUID], JobRow | None]("read_job")


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs; conditions that are left out match all."""

    state: JobState | None = None
    kind: JobKind | None = None
    type: str | None = None


@query("read_jobs")
async def _read_jobs(
    connection: Connection, tenant_id: int, wanted: Wanted, before: uuid.UUID | None, limit: int
) -> list[JobRow]: ...


@query("read_jobs_of_key")
async def _read_jobs_of_key(
    connection: Connection, tenant_id: int, wanted: Wanted, before: uuid.UUID | None, limit: int, of_key: str
) -> list[JobRow]: ...


async def read_jobs(
    connection: Connection, tenant_id: int, wanted: Wanted, *, of_key: str | None, before: uuid.UUID | None, limit: int
) -> list[JobRow]:
    """Newest first; those that one API key asked for, or all."""
    if of_key is None:
        return await _read_jobs(connection, tenant_id, wanted, before, limit)
    return await _read_jobs_of_key(connection, tenant_id, wanted, before, limit, of_key)


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
read_destination_failures = Query[[int, uuid.UUID], list[Failure]]("read_destination_failures")
"""By destination and error code."""
_read_not_restored = Query[[int, uuid.UUID], list[tuple[str, int]]]("read_not_restored")


async def read_not_restored(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> dict[str, int]:
    """By destination, items of an undo of which something was left as it is there."""
    return dict(await _read_not_restored(connection, tenant_id, job_id))


class LeftAlone(msgspec.Struct, frozen=True):
    """Records that an undo left as they are, because somebody changed them since."""

    open: int
    """A dead letter waits for an operator."""
    restored: int
    """A replay of the dead letter has restored it."""
    dropped: int
    """An operator said that it stays as it is."""


read_left_alone = Query[[int, uuid.UUID], LeftAlone]("read_left_alone")
_read_drift = Query[[int, uuid.UUID], list[tuple[str, int]]]("read_drift")


async def read_drift(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> DriftCounts:
    """In what a destination differs, as far as a sync has compared it."""
    return DriftCounts(**dict(await _read_drift(connection, tenant_id, job_id)))


read_next_attempt = Query[[int, uuid.UUID], float | None]("read_next_attempt")
"""Seconds until something more happens to this job by itself."""
_read_revisions = Query[[list[int], list[uuid.UUID]], list[Revision]]("read_revisions")


async def read_revisions(connection: Connection, jobs: Sequence[tuple[int, uuid.UUID]]) -> list[Revision]:
    """Of the jobs (tenant, job) that exist."""
    return await _read_revisions(connection, [tenant for tenant, _ in jobs], [job for _, job in jobs])


_read_keys = Query[[int, uuid.UUID], tuple[str | None, str | None] | None]("read_job_keys")


async def read_job_keys(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> frozenset[str]:
    """The keys that asked for this job or for the one that it began with; none: there is no such job."""
    keys = await _read_keys(connection, tenant_id, job_id)
    return frozenset(key for key in keys or () if key is not None)
