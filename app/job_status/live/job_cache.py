"""Jobs as any number of pollers see them, read once for all of them.

A thousand clients that follow one import ask for the same few bytes. Every poll looks at the job's revision, but all
that ask at about the same time do so with one query, and the body is read again only when the revision is another.
"""

import asyncio
import math
import uuid
import zlib
from contextvars import Context
from typing import Any, Final

import msgspec
from cachetools import LRUCache
from msgspec import UNSET

from app.errors import NotFound
from app.http.headers import JSON
from app.http.operation import Answer, Reply
from app.http.singleflight import SingleFlight
from app.job_status import queries, service
from app.job_status.live.poll_load import PollLoads
from app.job_status.queries import Revision
from app.kit.postgres.database import Database
from app.kit.worker_registry import WorkerWatch
from app.vocabulary.outcomes_wire import JobError
from app.vocabulary.states import JobState

CACHE: Final = "private, no-cache"
MOST: Final = 1_000
"""Jobs whose bodies are kept."""
PATIENT: Final = 1.0
"""Seconds for which many who ask are shown a view while a newer one is being read; one who asks alone waits for it."""
YOUNG: Final = 0.2
"""Seconds for which the view of a job that goes on may be shown though there is a newer one…"""
SHARE: Final = 10.0
"""…or this many times as long as it took to read: reading never takes more than a tenth of the time."""
STALE: Final = 0.5
"""Seconds for which a view may be shown whose job includes other jobs' work, which its revision does not count."""
DEAR: Final = 0.1
"""Seconds of reading from which a finished job that changes with others' work is read as seldom as an open one."""
_REPRESENTATION: Final = 5
"""Counted up when the shape of a job changes, so that an old ETag does not confirm a new body."""

_encode: Final = msgspec.json.Encoder().encode

_Job = tuple[int, uuid.UUID]


class View(msgspec.Struct):
    """A job's body at one revision."""

    revision: int
    body: bytes
    state: JobState
    next_in: float | None
    """Seconds until asking again is worth while; `None` once the job is finished."""
    read_at: float
    looked_at: float
    """When `next_in` was found."""
    cost: float
    """Seconds that reading it took."""
    mark: str = ""
    """Digest of the body, if the revision alone does not identify it (`Job.merged`, `Job.left_alone`)."""
    read: service.JobView | None = None
    """What the body was made of, while workers may be missing."""
    lack: JobError | None = None
    """Why no worker can go on with it, as far as the body says so."""
    retold: "View | None" = None
    """The same with the lack that was found last, for all who ask."""

    @property
    def finished(self) -> bool:
        return self.next_in is None

    @property
    def etag(self) -> str:
        """Weak while items are processed: rate and expected end are those of the moment of reading."""
        return f'W/"{self.tag}"' if self.state is JobState.RUNNING else f'"{self.tag}"'

    @property
    def tag(self) -> str:
        lack = f"w{zlib.crc32(self.lack.detail.encode()):08x}" if self.lack else ""
        return "-".join(filter(None, (f"{_REPRESENTATION}-{self.revision}", self.mark, lack)))

    def headers(self, again_in: float | None) -> dict[str, str]:
        """Of its representation; `again_in`: seconds until polling again is worth while, None once it is finished."""
        fields = {"ETag": self.etag}
        if again_in is not None:
            fields["Retry-After"] = str(max(1, math.ceil(again_in)))
        return fields

    @property
    def pause(self) -> float:
        """Seconds before it is worth its price to read the job again."""
        return max(YOUNG, SHARE * self.cost)


def job_answer(description: str, status: int = 200, *, headers: tuple[str, ...]) -> Answer:
    """The declaration of an answer that `JobViews.reply` gives."""
    content = {JSON: {"$ref": "#/components/schemas/Job"}}
    return Answer(description, status, headers=("ETag", *headers), cache=CACHE, content=content)


def read_etags(field: str) -> set[int | str]:
    """The tags and revisions that a client already has, by its `If-None-Match`; `*` means any."""
    found: set[int | str] = set()
    for part in field.split(","):
        tag = part.strip().removeprefix("W/").strip('"')
        if tag == "*":
            found.add("*")
        representation, _, rest = tag.partition("-")
        revision = rest.partition("-")[0]
        if representation == str(_REPRESENTATION) and revision.isascii() and revision.isdecimal():
            found |= {tag, int(revision[:19])}
    return found


def _reply_202(job_id: uuid.UUID, view: View) -> Reply[Any]:
    return Reply(view.body, 202, view.headers(view.next_in or 0.0) | {"Location": f"/v1/jobs/{job_id}"})


class JobViews:
    """The views of one process. What it showed once it never goes back behind."""

    def __init__(self, database: Database, workers: WorkerWatch | None = None) -> None:
        self._database = database
        self._workers = workers
        self._kept: LRUCache[_Job, View] = LRUCache(MOST)
        self._readings: SingleFlight[_Job, View] = SingleFlight()
        self._loads: PollLoads[_Job] = PollLoads()
        self._asked: dict[_Job, list[asyncio.Future[Revision | None]]] = {}
        self._looking: asyncio.Task[None] | None = None

    async def read(self, tenant_id: int, job_id: uuid.UUID, *, at_least: int | None = 0) -> View:
        """The job, not before the revision `at_least`; `None`: the current one, whatever that costs.

        A finished job is read again, unless that is expensive.

        Raises:
            NotFound: the tenant has no such job.
        """
        if self.diverted:
            return await self.explain(await self._read_job((tenant_id, job_id)))
        return await self.explain(await self._find((tenant_id, job_id), at_least))

    @property
    def diverted(self) -> bool:
        """The present task reads from a replica, which may be behind what was shown: nothing of it is kept."""
        return self._database.diverted

    async def reply(self, tenant_id: int, job_id: uuid.UUID, status: int = 200) -> Reply[Any]:
        """The job in its current state; with 202 also where it is, and when to poll it.
        Raises `NotFound`: the tenant has no such job."""
        view = await self.read(tenant_id, job_id, at_least=None)
        if status == 202:
            return _reply_202(job_id, view)
        return Reply(view.body, status, view.headers(view.next_in))

    async def reply_made(self, tenant_id: int, job_id: uuid.UUID) -> Reply[Any]:
        """A job that the present task made, perhaps in a transaction that is still open; nothing is kept of it."""
        return _reply_202(job_id, await self.explain(await self._read_job((tenant_id, job_id))))

    async def explain(self, view: View) -> View:
        """The same view, with what workers lack now to go on with the job."""
        if self._workers is None or view.read is None:
            return view
        lack = view.read.needs.find_lack(await self._workers.glance())
        if lack == view.lack:
            return view
        if view.retold is None or view.retold.lack != lack:
            job = msgspec.structs.replace(view.read.job, waiting=lack)
            view.retold = msgspec.structs.replace(view, body=_encode(job), lack=lack, retold=None)
        view.retold.next_in, view.retold.looked_at = view.next_in, view.looked_at
        return view.retold

    async def _find(self, job: _Job, at_least: int | None) -> View:
        many = self._loads.note(job, asyncio.get_running_loop().time())
        if many and at_least is not None and (shown := self._show_many(job, at_least)) is not None:
            return shown
        seen = await self.look(*job)
        clock = asyncio.get_running_loop().time
        view = self._kept.get(job)
        # While a hundred thousand letters are sent again, the job that they began with changes with each delivery.
        dear = view is not None and bool(view.mark) and view.cost > DEAR
        now = at_least is None or (seen.finished and not dear)
        least = seen.revision if now else min(at_least or 0, seen.revision)
        if view is not None and view.revision < seen.revision and clock() - view.read_at > view.pause:
            least = seen.revision
        while view is None or view.revision < least:
            view = await self._readings.share(job, lambda: self._read(job))
        if view.mark and clock() - view.read_at > max(STALE, SHARE * view.cost):
            view = await self._readings.share(job, lambda: self._read(job))
        if view.state is JobState.SYNCING and clock() - view.looked_at > YOUNG:
            await self._readings.share(job, lambda: self._look_ahead(job, view))
        return view

    def _show_many(self, job: _Job, at_least: int) -> View | None:
        """What was read a moment ago, without a query; it is read anew meanwhile, once for all."""
        view = self._kept.get(job)
        if view is None or view.finished or view.revision < at_least:
            return None
        age = asyncio.get_running_loop().time() - view.read_at
        if age > PATIENT:
            return None
        if age > min(view.pause, PATIENT / 2):
            self._readings.start(job, lambda: self._read(job))
        return view

    def advise(self, tenant_id: int, job_id: uuid.UUID, view: View) -> float | None:
        """Seconds after which asking again is worth while, for as many as ask; `None` once the job is finished."""
        if view.next_in is None:
            return None
        return max(view.next_in, self._loads.advise((tenant_id, job_id)))

    async def look(self, tenant_id: int, job_id: uuid.UUID) -> Revision:
        """The job's current revision. Raises `NotFound`: the tenant has no such job."""
        answer: asyncio.Future[Revision | None] = asyncio.get_running_loop().create_future()
        self._asked.setdefault((tenant_id, job_id), []).append(answer)
        if self._looking is None or self._looking.done():
            # For all who ask: in nobody's name.
            self._looking = asyncio.create_task(self._look_for_all(), context=Context())
        seen = await answer
        if seen is None:
            raise NotFound("There is no such job.")
        return seen

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        await self._readings.close()

    async def _look_for_all(self) -> None:
        """Those who ask while a query is under way share the next one."""
        while self._asked:
            asked, self._asked = self._asked, {}
            waiting = [(job, answer) for job, answers in asked.items() for answer in answers]
            try:
                async with self._database.connection() as connection:
                    rows = await queries.read_revisions(connection, list(asked))
                    found = {(row.tenant_id, row.job_id): row for row in rows}
            except BaseException as error:
                for _, answer in waiting:
                    if isinstance(error, asyncio.CancelledError):
                        answer.cancel()
                    elif not answer.done():
                        answer.set_exception(error)
                if not isinstance(error, Exception):
                    raise
                continue
            for job, answer in waiting:
                if not answer.done():
                    answer.set_result(found.get(job))

    async def _read(self, job: _Job) -> View:
        view = await self._read_job(job)
        before = self._kept.get(job)
        if before is not None and before.revision > view.revision:
            return before
        self._kept[job] = view
        return view

    async def _read_job(self, job: _Job) -> View:
        clock = asyncio.get_running_loop().time
        async with self._database.connection() as connection:
            started = clock()
            read = await service.read_job(connection, *job)
        body = _encode(read.job)
        return View(
            revision=read.revision,
            body=body,
            state=read.job.state,
            next_in=read.next_in,
            read_at=started,
            looked_at=started,
            cost=clock() - started,
            mark="" if read.job.merged is UNSET and read.job.left_alone is UNSET else f"{zlib.crc32(body):08x}",
            read=None if read.finished or read.job.waiting is not None else read,
        )

    async def _look_ahead(self, job: _Job, view: View) -> View:
        """A destination may open, close or be paused while the job stays as it is."""
        async with self._database.connection() as connection:
            view.next_in = await queries.read_next_attempt(connection, *job) or 0.0
        view.looked_at = asyncio.get_running_loop().time()
        return view
