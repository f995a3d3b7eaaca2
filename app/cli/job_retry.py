"""`tranche jobs retry`, and how all attempts at a job are described."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec
import rich_click as click

from app.cli.api_command import api_command, timeout_option, wait_option
from app.cli.client.api_client import ApiClient
from app.cli.client.clock import Deadline, SystemClock
from app.cli.client.errors import RefusedError
from app.cli.client.jobs import JobWatch, exit_code, is_finished, job_path, watch_until
from app.cli.client.progress import choose_display, counted
from app.cli.client.wire import Job, Resend, read
from app.cli.output import show

_NOTHING: Final = "NOTHING_TO_RETRY"


@api_command("jobs retry")
@click.argument("job")
@click.option("--destination", "destinations", multiple=True, help="Only there; repeat it for more.")
@wait_option
@timeout_option()
async def retry_command(
    api: ApiClient, job: str, destinations: tuple[str, ...], wait: bool, seconds: float, as_json: bool
) -> int:
    """Send again only the failed items of a job. A repeated request does it once.

    Exit code with --wait: 0 completed, 1 with failures, 3 still running.
    """
    body = {"destinations": destinations} if destinations else None
    try:
        answer = await api.ask("POST", job_path(job, "/retry"), body)
    except RefusedError as error:
        if _NOTHING not in error.detail:
            raise
        # A repeated request is no mistake.
        answer = msgspec.json.encode({"job_id": None, "taken": 0, "detail": error.detail})
    return await follow_resend(api, answer, wait=wait, seconds=seconds, as_json=as_json, again="retry")


async def follow_resend(api: ApiClient, answer: bytes, *, wait: bool, seconds: float, as_json: bool, again: str) -> int:
    """Print the answer to a retry or a replay and, if wanted, wait for its job; returns the exit code."""
    made = read(answer, Resend, api.url)
    if not (as_json and wait and made.job_id):
        show(answer, _describe_resend(made, again), as_json=as_json)
    if not wait or made.job_id is None:
        return 0
    watch = await wait_for_job(JobWatch(api, made.job_id), seconds, silent=True)
    line = f"job {made.job_id} is {watch.job.state}"
    show(watch.body, [line, *describe_merged(watch.job)], as_json=as_json)
    return exit_code(watch.job) or bool(made.remaining)


async def wait_for_job(watch: JobWatch, seconds: float, *, silent: bool) -> JobWatch:
    """Until it is finished or the time is over."""
    deadline = Deadline(SystemClock(), seconds)
    with choose_display(deadline.clock, silent=silent) as display:
        await watch_until(watch, is_finished, deadline, lambda job: display.show_job(job, job.effects))
    return watch


def _describe_resend(made: Resend, again: str) -> Iterator[str]:
    if made.job_id is None:
        yield made.detail or "nothing to send again" + (
            f"; taken before by {', '.join(made.jobs)}" if made.jobs else ""
        )
    elif made.taken:
        items, taken = counted(made.items, "item"), counted(made.taken, "dead letter")
        yield f"job {made.job_id}: {items} sent again for {taken}"
    else:
        yield f"job {made.job_id} is under way"
    if made.due:
        yield f"{counted(made.due, 'waiting item')} due now"
    if made.remaining:
        yield f"{counted(made.remaining, 'dead letter')} left for the next {again}: ask again"
    yield from describe_skipped(made.skipped)


def describe_skipped(skipped: list[dict[str, Any]]) -> Iterator[str]:
    """Dead letters that were left alone."""
    for left in skipped:
        yield f"{left['destination']}: {left['count']:,} left alone ({left['reason'].replace('_', ' ')})"


def describe_merged(job: Job) -> Iterator[str]:
    """What a job's items have come to over all attempts, a line for each destination."""
    for name, merged in job.merged.items():
        count = max(sum(name in attempt.destinations for attempt in job.attempts), 1)
        line = f"{name}: {merged.ok:,} of {merged.total:,} after {counted(count, 'attempt')}"
        for word in ("open", "failed", "dropped", "skipped"):
            if number := getattr(merged, word):
                line += f", {number:,} {word}"
        yield line
