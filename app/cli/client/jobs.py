"""Jobs over HTTP: ask for one, wait for it, and say why something waits."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final
from urllib.parse import quote

from app.cli.client.api_client import ApiClient
from app.cli.client.clock import Deadline
from app.cli.client.errors import RefusedError
from app.cli.client.progress import clean
from app.cli.client.wire import Destination, Job, read
from app.vocabulary.states import FINISHED_JOB_STATES, OPEN_STATES, JobState

MAX_PREFER: Final = 10
"""Seconds a poll may be held by the server; short enough that progress is seen."""
_PAUSE: Final = 1.0
_DECIDED: Final = FINISHED_JOB_STATES | {JobState.SYNCING}


def job_path(job_id: str, rest: str = "") -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}{rest}"


def is_finished(job: Job) -> bool:
    return job.state in FINISHED_JOB_STATES


def is_decided(job: Job) -> bool:
    """Whether it is known what became of every item here; destinations may still be open."""
    return job.state in _DECIDED


def exit_code(job: Job) -> int:
    """Of a command that waited for it: 0 completed, 1 with failures or not at all, 3 still running."""
    if not is_finished(job):
        return 3
    return 0 if job.state == JobState.COMPLETED else 1


def describe_open(job: Job) -> str:
    """What an unfinished job is at, and why it does not go on where that is known."""
    why = f": {clean(job.waiting.detail)}" if job.waiting else ""
    return f"job {clean(job.job_id)} is still {clean(job.state)}{why}"


class JobWatch:
    """One job, polled. An unchanged answer costs no body (ETag)."""

    def __init__(self, api: ApiClient, job_id: str) -> None:
        self.job_id = job_id
        self._api = api
        self._tag = ""
        self._job: Job | None = None
        self.body = b""
        """The last answer as it came, for `--json`."""
        self.pause = _PAUSE
        """Seconds the server asks to wait before the next poll."""

    @property
    def job(self) -> Job:
        """As it was last seen."""
        assert self._job is not None, "not polled yet"
        return self._job

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
        answer = await self._api.call("GET", job_path(self.job_id), headers=headers)
        self.pause = answer.retry_after if answer.retry_after is not None else _PAUSE
        if answer.status != 304 or self._job is None:
            self._job = read(answer.body, Job, self._api.url)
            self._tag = answer.headers.get("ETag", "")
            self.body = answer.body
        return self._job


async def watch_until(
    watch: JobWatch, done: Callable[[Job], bool], deadline: Deadline, seen: Callable[[Job], None] = lambda job: None
) -> Job:
    """The job once it is `done`, or as it was at the deadline; `seen` gets every state on the way.

    Raises:
        TimedOutError: there was no answer in time.
    """
    while True:
        job = await watch.poll(deadline.left())
        seen(job)
        if done(job) or watch.pause > deadline.left():
            return job
        await deadline.clock.sleep(watch.pause)


async def find_waits(api: ApiClient, effects: Mapping[str, Mapping[str, int]], said: Iterable[str] = ()) -> list[str]:
    """A line for each destination where something is open and a reason is known.

    To a key that may not read destinations, `said`: what the jobs themselves say.
    """
    pending = {name for name, counts in effects.items() if any(counts.get(state) for state in OPEN_STATES)}
    if not pending:
        return []
    try:
        listed = [read(raw, Destination, api.url) async for raw in api.list("/v1/destinations", "destinations")]
    except RefusedError:
        return [clean(why) for why in said]
    return [line for found in listed if found.name in pending and (line := _describe(found))]


def _describe(destination: Destination) -> str:
    name, why = clean(destination.name), clean(destination.detail or "")
    if destination.state == "paused":
        return f"{name} is paused: `tranche destinations resume {name}`"
    if destination.error_code:
        return f"{name} waits {destination.retry_after_seconds:,} s: {clean(destination.error_code)}: {why}"
    return f"{name} waits: {why}" if why else ""
