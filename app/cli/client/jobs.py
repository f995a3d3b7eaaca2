"""Jobs over HTTP: ask for one, wait for it, walk through its items."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Final
from urllib.parse import quote

from app.cli.client.clock import Clock, Patience
from app.cli.client.errors import PatienceError
from app.cli.client.http import Answer, Api
from app.cli.client.progress import clean
from app.cli.client.wire import Item, Job, Page, read
from app.domain.outcomes import FINISHED_JOB_STATES, JobState

MAX_PREFER: Final = 10
"""Seconds a poll may be held by the server; short enough that progress is seen."""
_PAUSE: Final = 1.0
_DECIDED: Final = FINISHED_JOB_STATES | {JobState.SYNCING}


def is_finished(job: Job) -> bool:
    return job.state in FINISHED_JOB_STATES


def is_decided(job: Job) -> bool:
    """Whether it is known what became of every item here; destinations may still be open."""
    return job.state in _DECIDED


def describe_open(job: Job) -> str:
    """What an unfinished job is at, and why it does not go on where that is known."""
    why = f": {clean(job.waiting.detail)}" if job.waiting else ""
    return f"job {clean(job.job_id)} is still {clean(job.state)}{why}"


class JobWatch:
    """One job, polled. An unchanged answer costs no body (ETag)."""

    def __init__(self, api: Api, job_id: str) -> None:
        self.job_id = job_id
        self._api = api
        self._path = f"/v1/jobs/{quote(job_id, safe='')}"
        self._tag = ""
        self._seen: Job | None = None
        self.body = b""
        """The last answer as it came, for `--json`."""
        self.pause = _PAUSE
        """Seconds the server asks to wait before the next poll."""

    async def poll(self, hold: float = 0.0) -> Job:
        """The job now, or as soon as it changes within `hold` seconds, where the server can wait.

        The first poll of all is answered at once.
        """
        headers = {}
        if self._tag:
            headers["If-None-Match"] = self._tag
        # Without a tag the server would hold the answer until the job is finished.
        if hold >= 1.0 and self._tag:
            headers["Prefer"] = f"wait={int(min(hold, MAX_PREFER))}"
        answer = await self._api.get(self._path, headers=headers)
        self.pause = answer.retry_after if answer.retry_after is not None else _PAUSE
        if answer.status != 304 or self._seen is None:
            self._seen = read(answer.body, Job, self._api.url)
            self._tag = answer.headers.get("ETag", "")
            self.body = answer.body
        return self._seen


async def wait_until_decided(api: Api, job_id: str, clock: Clock, patience: Patience) -> Job:
    """The job once every item's local outcome is known.

    Raises:
        PatienceError: it was not in time.
    """
    watch = JobWatch(api, job_id)
    while True:
        job = await watch.poll(patience.left())
        if is_decided(job):
            return job
        if watch.pause > patience.left():
            raise PatienceError(describe_open(job))
        await clock.sleep(watch.pause)


async def fetch_pages(
    api: Api, job_id: str, filters: Mapping[str, str]
) -> AsyncIterator[tuple[Answer, Page]]:
    """Every page of a job's items, one after the other."""
    params = dict(filters)
    while True:
        answer = await api.get(f"/v1/jobs/{quote(job_id, safe='')}/items", params=params)
        page = read(answer.body, Page, api.url)
        yield answer, page
        if not page.next_cursor:
            return
        params["cursor"] = page.next_cursor


async def fetch_items(api: Api, job_id: str, filters: Mapping[str, str] | None = None) -> AsyncIterator[Item]:
    """Every item of a job that the filters let through."""
    async for _, page in fetch_pages(api, job_id, filters or {}):
        for item in page.items:
            yield item
