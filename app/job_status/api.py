"""`/v1/jobs`: the state of imports."""

import uuid
from typing import Annotated, Final

from app.auth.authorization import FOLLOWING, POLLING
from app.http.cursors import Cursor, NextCursor
from app.http.headers import Preferences
from app.http.operation import Answer, Fallback, Header, Reply, operation
from app.http.parameters import JobId, Page, Prefer
from app.http.principal import Principal
from app.http.request_context import Exchange
from app.job_status import service
from app.job_status.live.job_cache import CACHE, JobViews, read_etags
from app.job_status.live.long_poll import LongPoll
from app.job_status.ownership import JobOwners, reads_all
from app.job_status.queries import Wanted
from app.kit.postgres.database import Database
from app.kit.worker_registry import WorkerWatch
from app.vocabulary.freshness import Freshness
from app.vocabulary.states import JobKind, JobState

_CURSOR: Final = Cursor[uuid.UUID]("jobs", uuid.UUID)
_FIELDS: Final = ("ETag", "MaybeRetryAfter", "PreferenceApplied")

KnownTags = Annotated[
    set[int | str],
    Header(
        name="If-None-Match",
        description="ETags that the client has already.",
        read=lambda call: read_etags(call.fields.all("if-none-match")),
    ),
]


class JobsQuery(Page, frozen=True, kw_only=True):
    state: JobState | None = None
    """Only jobs in this state."""
    kind: JobKind | None = None
    """Only jobs of this kind."""
    type: str | None = None
    """Only jobs with records of this type."""


class JobList(Freshness, frozen=True):
    """A page of jobs, newest first; `next_cursor` is null on the last one."""

    jobs: list[service.JobSummary]
    next_cursor: NextCursor


@operation(
    "GET", "/v1/jobs", tag="jobs", access=FOLLOWING, answers=Answer("A page of jobs."), fallback=Fallback(kind="job")
)
async def list_jobs(query: JobsQuery, principal: Principal, database: Database, workers: WorkerWatch) -> JobList:
    """Jobs, newest first."""
    there = await workers.glance()
    async with database.connection() as connection:
        jobs, more = await service.read_jobs(
            connection,
            principal.tenant_id,
            Wanted(state=query.state, kind=query.kind, type=query.type),
            of_key=None if reads_all(principal) else principal.key_id,
            before=_CURSOR.decode(query.cursor),
            limit=query.limit,
            workers=there,
        )
    return JobList(jobs, _CURSOR.encode(more))


@operation(
    "GET",
    "/v1/jobs/{job_id}",
    tag="jobs",
    access=POLLING,
    answers=(
        Answer("The job.", headers=_FIELDS, cache=CACHE),
        Answer("Nothing changed since the ETag in `If-None-Match`.", 304, headers=_FIELDS, cache=CACHE),
    ),
    fallback=Fallback(kind="job"),
)
async def read_job(
    job_id: JobId,
    preferences: Prefer,
    known: KnownTags,
    principal: Principal,
    exchange: Exchange,
    owners: JobOwners,
    views: JobViews,
    long_poll: LongPoll,
) -> Reply[service.Job]:
    """One job.

    `Retry-After` says when to poll again. With `Prefer: wait=N` the answer comes once the job is finished (or, with
    `If-None-Match`, once it changed). A job that was retried, or whose dead letters were replayed, shows all attempts
    in `attempts`, and the results of its items over all attempts in `merged`.
    """
    await owners.check_read(principal, job_id)
    changed = False
    if preferences.wait:
        until = exchange.started + preferences.wait
        changed = await long_poll.wait(principal, job_id, known, until)
    newest = max((revision for revision in known if isinstance(revision, int)), default=0)
    view = await views.read(principal.tenant_id, job_id, at_least=None if changed else newest)
    applied = Preferences(wait=preferences.wait).applied(waited=True)
    headers = view.headers(views.advise(principal.tenant_id, job_id, view)) | applied
    if view.tag in known or "*" in known:
        return Reply(view.body, 304, headers)
    return Reply(view.body, headers=headers)
