"""`tranche jobs retry`, and how all attempts at a job are described."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

import msgspec
import rich_click as click

from app.cli.api_command import api_command, wait_option
from app.cli.client.api_client import ApiClient
from app.cli.client.clock import Deadline, SystemClock
from app.cli.client.connection import json_option
from app.cli.client.errors import RefusedError
from app.cli.client.jobs import JobWatch, is_finished, watch_until
from app.cli.client.progress import clean, counted
from app.cli.client.wire import Job, read
from app.vocabulary.states import JobState


class Skipped(msgspec.Struct, frozen=True):
    """Dead letters that were left alone."""

    destination: str
    reason: str
    count: int


class Resend(msgspec.Struct, frozen=True):
    """The answer to a retry or a replay; without `job_id` nothing was there to be sent."""

    job_id: str | None = None
    state: str = ""
    taken: int = 0
    items: int = 0
    due: int = 0
    remaining: int = 0
    skipped: list[Skipped] = []
    jobs: list[str] = []
    detail: str = ""


_NOTHING: Final = "NOTHING_TO_RETRY"


timeout_option = click.option(
    "--timeout",
    "--patience",
    "seconds",
    type=click.FloatRange(min=0),
    default=300,
    show_default=True,
    metavar="SECONDS",
    help="Timeout.",
)


@api_command("jobs retry")
@click.argument("job")
@click.option("--destination", "destinations", multiple=True, help="Only there; repeat it for more.")
@wait_option
@timeout_option
@json_option
async def retry_command(
    api: ApiClient, job: str, destinations: tuple[str, ...], wait: bool, seconds: float, as_json: bool
) -> int:
    """Send again only the failed items of a job. A repeated request does it once.

    Exit code with --wait: 0 completed, 1 with failures, 3 still running.
    """
    body = {"destinations": destinations} if destinations else None
    try:
        answer = await api.ask("POST", f"/v1/jobs/{quote(job, safe='')}/retry", body)
    except RefusedError as error:
        if _NOTHING not in error.detail:
            raise
        # A repeated request is no mistake.
        answer = msgspec.json.encode({"job_id": None, "taken": 0, "detail": error.detail})
    return await follow_resend(api, answer, wait=wait, seconds=seconds, as_json=as_json, again="retry")


async def follow_resend(
    api: ApiClient, answer: bytes, *, wait: bool, seconds: float, as_json: bool, again: str
) -> int:
    """Print the answer to a retry or a replay and, if wanted, wait for its job; returns the exit code."""
    made = read(answer, Resend, api.url)
    if as_json and not (wait and made.job_id):
        print(answer.decode())
    if not as_json:
        print("\n".join(_describe_resend(made, again)))
    if not wait or made.job_id is None:
        return 0
    clock = SystemClock()
    watch = JobWatch(api, made.job_id)
    found = await watch_until(watch, is_finished, clock=clock, deadline=Deadline(clock, seconds))
    if as_json:
        print(watch.body.decode())
    else:
        print(f"job {clean(made.job_id)} is {clean(found.state)}")
        for line in describe_merged(found):
            print(line)
    if not is_finished(found):
        return 3
    return 0 if found.state == JobState.COMPLETED and not made.remaining else 1


def _describe_resend(made: Resend, again: str) -> Iterator[str]:
    if made.job_id is None:
        yield made.detail or "nothing to send again" + (
            f"; taken before by {', '.join(clean(job) for job in made.jobs)}" if made.jobs else ""
        )
    elif made.taken:
        items, taken = counted(made.items, "item"), counted(made.taken, "dead letter")
        yield f"job {clean(made.job_id)}: {items} sent again for {taken}"
    else:
        yield f"job {clean(made.job_id)} is under way"
    if made.due:
        yield f"{counted(made.due, 'waiting item')} due now"
    if made.remaining:
        yield f"{counted(made.remaining, 'dead letter')} left for the next {again}: ask again"
    yield from describe_skipped(made.skipped)


def describe_skipped(skipped: list[Skipped]) -> Iterator[str]:
    for left in skipped:
        yield f"{clean(left.destination)}: {left.count:,} left alone ({clean(left.reason).replace('_', ' ')})"


def describe_merged(job: Job) -> list[str]:
    """What a job's items have come to over all attempts, a line for each destination."""
    lines = []
    for name, merged in job.merged.items():
        count = max(sum(name in attempt.destinations for attempt in job.attempts), 1)
        line = f"{clean(name)}: {merged.ok:,} of {merged.total:,} after {counted(count, 'attempt')}"
        for word in ("open", "failed", "dropped", "skipped"):
            if number := getattr(merged, word):
                line += f", {number:,} {word}"
        lines.append(line)
    return lines
