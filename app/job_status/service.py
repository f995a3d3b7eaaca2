"""The read model of jobs, as HTTP and the command line show them.

Every function takes a connection and answers in the shapes of this module; nothing here writes.
"""

import math
import uuid
from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from app.errors import NotFound
from app.job_status import queries
from app.job_status.attempts import Merged, read_family
from app.job_status.lineage_queries import Attempt, read_relatives
from app.job_status.queries import DriftCounts, EffectRow, Effects, Failure, JobRow, LeftAlone, SyncAsked, Wanted
from app.kit.postgres.database import Connection
from app.kit.postgres.transactions import one_moment
from app.kit.worker_registry import Workers
from app.vocabulary.freshness import AgeSeconds, Stale
from app.vocabulary.outcomes_wire import JobError, JobOptions, Summary, job_urls
from app.vocabulary.states import JobKind, JobState, Result

LOCAL: Final = "db"
"""What a failure is filed under when it happened here, not at a destination."""
_SOONEST: Final = 1.0
_LATEST: Final = 5.0
"""Seconds between two looks at a job whose items are processed."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """The progress of a job with its items, here; its effects have the outcomes at destinations."""

    items: int | None
    """Of the request; null while its body arrives."""
    processed: int
    not_processed: int | None
    """Those that are left, or were when the job was canceled or failed."""
    bytes_received: int
    """Of the body, inflated."""
    items_per_second: float | None
    """Since the first of them; null before it."""
    expected_seconds: int | None
    """Until all of them are processed; null unless the job is running."""


class JobSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A job as a list shows it."""

    job_id: uuid.UUID
    kind: JobKind
    type: str | None
    """Of its records; null: they have several (a replay of dead letters)."""
    state: JobState
    root_job_id: uuid.UUID
    created_at: datetime
    started_at: datetime | None
    """The first item was processed."""
    applied_at: datetime | None
    """The last one was."""
    finished_at: datetime | None
    options: JobOptions
    progress: Progress
    error: JobError | None
    waiting: JobError | None
    """What keeps an unfinished job, or a part of it, from going on, and who can mend it; null: nothing is known to."""
    summary: Summary
    results: dict[Result, int]
    effects: dict[str, Effects]
    sync: SyncAsked | UnsetType = UNSET
    """Of a job of the kind `sync`."""
    request_id: str
    status_url: str
    items_url: str
    events_url: str
    cancel_url: str


class Job(JobSummary, frozen=True, kw_only=True):
    """A job by itself."""

    failures: list[Failure]
    attempts: list[Attempt] | UnsetType = UNSET
    """The first one, its retries and replays of its dead letters; absent if there was only one."""
    merged: dict[str, Merged] | UnsetType = UNSET
    """By destination, over all attempts; present once some have failed and the job is finished, or was retried, as
    long as its dead letters are kept."""
    undo_of: uuid.UUID | None = None
    """The job whose changes this one takes back."""
    undone_by: uuid.UUID | None = None
    """The job that takes back the changes of this one."""
    not_restored: dict[str, int] | UnsetType = UNSET
    """Of an undo: by destination, items of which something was left there as it is, because nobody knows what was there
    before; each item names the fields."""
    left_alone: LeftAlone | UnsetType = UNSET
    """Of an undo that left records as they are, because somebody changed them since: what has become of them. Each has
    a dead letter of the kind `undo`."""
    drift: DriftCounts | UnsetType = UNSET
    """Of a sync with the mode `verify`: in what the destination differs; `/items?status=drift` names each."""
    compensated_by: uuid.UUID | None = None
    """The job that takes back the items that some destination refused (`consistency=all_destinations`)."""
    stale: Stale = UNSET
    age_seconds: AgeSeconds = UNSET


class Needs(msgspec.Struct, frozen=True):
    """What an unfinished job needs workers for."""

    work: bool
    """Its own items are to be processed."""
    places: dict[str, bytes]
    """Destinations with pending deliveries, by name: the beginning of their credentials."""

    def find_lack(self, workers: Workers | None) -> JobError | None:
        """Why none of `workers` can go on with it, or with a part of it."""
        if workers is None or not (self.work or self.places):
            return None
        if (absent := workers.why_nobody()) is not None:
            return JobError("NO_WORKER", absent)
        strange = {name: why for name, sealed in self.places.items() if (why := workers.why_nobody(sealed))}
        if not strange:
            return None
        name, why = next(iter(strange.items()))
        more = f" ({len(strange) - 1} more destinations likewise)" if len(strange) > 1 else ""
        return JobError("NO_SECRET_KEY", f"destination {name}: {why}{more}")


class JobView(msgspec.Struct, frozen=True):
    """A job and what a poll needs to know about it."""

    job: Job
    needs: Needs
    revision: int
    next_in: float | None
    """Seconds until asking again is worth while; `None` once it is finished."""

    @property
    def finished(self) -> bool:
        return self.next_in is None


async def read_job(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> JobView:
    """One job, all of it as of one moment, so that its revision is a true ETag.
    Raises `NotFound`: the tenant has no such job."""
    async with one_moment(connection):
        row = await queries.read_job(connection, tenant_id, job_id)
        if row is None:
            raise NotFound("There is no such job.")
        effects = (await queries.read_effects(connection, tenant_id, [job_id])).get(job_id, [])
        local = await queries.read_local_failures(connection, tenant_id, job_id)
        remote = await queries.read_destination_failures(connection, tenant_id, job_id)
        syncing = row.state is JobState.SYNCING
        waiting = await queries.read_next_attempt(connection, tenant_id, job_id) if syncing else None
        again = await _read_attempts(connection, tenant_id, row, effects)
        relatives = await read_relatives(connection, tenant_id, job_id)
        is_undo = row.kind == JobKind.UNDO
        left = await queries.read_not_restored(connection, tenant_id, job_id) if is_undo else {}
        alone = await queries.read_left_alone(connection, tenant_id, job_id) if is_undo and row.failed else UNSET
        verifies = row.sync is not None and row.sync.mode == "verify"
        drift = await queries.read_drift(connection, tenant_id, job_id) if verifies else UNSET
    job = Job(
        **_summarize(row, effects),
        failures=_merge_clusters(local) + remote,
        **msgspec.structs.asdict(relatives),
        not_restored=left or UNSET,
        left_alone=alone,
        drift=drift,
        **again,
    )
    return JobView(job, _find_needs(row, effects), row.revision, _next_look(job, waiting))


async def _read_attempts(
    connection: Connection, tenant_id: int, row: JobRow, effects: Iterable[EffectRow]
) -> dict[str, Any]:
    """The results of a job over all attempts, if there may be any: a poll of any other job stays cheap. Without
    its dead letters nobody knows what became of them."""
    is_retry = row.kind == JobKind.RETRY
    lost = row.finished_at is not None and any(effect.failed + effect.dead for effect in effects)
    if row.dead_letters_trimmed or not (is_retry or row.retried or lost):
        return {}
    attempts, merged = await read_family(connection, tenant_id, row.root_job_id if is_retry else row.job_id)
    return {"attempts": attempts if len(attempts) > 1 else UNSET, "merged": merged}


def _next_look(job: Job, waiting: float | None) -> float | None:
    """Seconds until asking again is worth while: a tenth of what is left, while items are processed.

    `waiting`: until something happens at a destination.
    """
    if job.finished_at is not None:
        return None
    if job.state is JobState.RUNNING:
        return min(max((job.progress.expected_seconds or 0) / 10, _SOONEST), _LATEST)
    return waiting or 0.0 if job.state is JobState.SYNCING else _SOONEST


async def read_jobs(
    connection: Connection,
    tenant_id: int,
    wanted: Wanted,
    *,
    of_key: str | None,
    before: uuid.UUID | None,
    limit: int,
    workers: Workers | None,
) -> tuple[list[JobSummary], uuid.UUID | None]:
    """A page, newest first, and what to ask the next one `before`; of one API key, or of all.

    With `workers`, one that none of these can go on with says why.
    """
    rows = await queries.read_jobs(connection, tenant_id, wanted, of_key=of_key, before=before, limit=limit + 1)
    page = rows[:limit]
    effects = await queries.read_effects(connection, tenant_id, [row.job_id for row in page])
    jobs = [JobSummary(**_summarize(row, effects.get(row.job_id, []), workers)) for row in page]
    return jobs, page[-1].job_id if len(rows) > limit else None


async def read_effects(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> dict[str, dict[str, int]]:
    """Counts by state, by destination."""
    found = await queries.read_effects(connection, tenant_id, [job_id])
    by_name = _by_name(found.get(job_id, []))
    return {name: msgspec.structs.asdict(counts) for name, counts in by_name.items()}


def _read_waiting(row: JobRow, effects: Iterable[EffectRow], workers: Workers | None) -> JobError | None:
    if row.finished_at is not None:
        return None
    return row.waiting or _find_needs(row, effects).find_lack(workers)


def _find_needs(row: JobRow, effects: Iterable[EffectRow]) -> Needs:
    if row.finished_at is not None:
        return Needs(False, {})
    pending = {e.name: e.sealed for e in effects if e.sealed is not None and e.pending + e.retry + e.unknown}
    return Needs(row.state in (JobState.QUEUED, JobState.RUNNING), pending)


_STORED: Final = [name for name in JobSummary.__struct_fields__ if name in JobRow.__struct_fields__]


def _summarize(row: JobRow, effects: Collection[EffectRow], workers: Workers | None = None) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _STORED} | {
        "progress": _measure(row),
        "waiting": _read_waiting(row, effects, workers),
        "summary": Summary(row.total, row.succeeded, row.failed, row.retry),
        "effects": _by_name(effects),
        "sync": row.sync or UNSET,
        **job_urls(row.job_id),
    }


def _measure(row: JobRow) -> Progress:
    left = None if row.items is None else row.items - row.total
    rate = row.total / row.worked if row.total and row.worked else None
    running = row.state == JobState.RUNNING
    return Progress(
        items=row.items,
        processed=row.total,
        not_processed=left,
        bytes_received=row.bytes,
        items_per_second=None if rate is None else round(rate, 1),
        expected_seconds=math.ceil(left / rate) if running and rate and left is not None else None,
    )


def _by_name(effects: Iterable[EffectRow]) -> dict[str, Effects]:
    """A destination that was removed and added again has two rows, and one name."""
    found: dict[str, Effects] = {}
    for row in effects:
        known = found.get(row.name, Effects())
        found[row.name] = Effects(*(getattr(known, n) + getattr(row, n) for n in Effects.__struct_fields__))
    return found


def _merge_clusters(rows: Iterable[queries.ClusterRow]) -> list[Failure]:
    merged: dict[str, Failure] = {}
    for row in rows:
        known = merged.get(row.code, Failure(LOCAL, row.code, 0, []))
        samples = (known.samples + row.samples)[:5]
        merged[row.code] = Failure(LOCAL, row.code, known.count + row.count, samples)
    return sorted(merged.values(), key=lambda failure: (-failure.count, failure.code))
