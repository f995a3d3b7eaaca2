"""`tranche jobs retry`, and how all attempts at a job are told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Final
from urllib.parse import quote

import msgspec
import rich_click as click

from app.cli.client.api_client import ApiClient
from app.cli.client.clock import Patience, SystemClock
from app.cli.client.connection import (
    REQUEST_PATIENCE,
    connection_options,
    json_option,
    open_api,
    run_command,
)
from app.cli.client.errors import RefusedError
from app.cli.client.jobs import JobWatch, is_finished, watch_until
from app.cli.client.progress import clean, counted
from app.cli.client.wire import read
from app.domain.outcomes import JobState


class Skipped(msgspec.Struct, frozen=True):
    """Letters that were left alone."""

    destination: str
    reason: str
    count: int


class Attempt(msgspec.Struct, frozen=True):
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


class _Merged(msgspec.Struct, frozen=True):
    total: int = 0
    ok: int = 0
    open: int = 0
    failed: int = 0
    dropped: int = 0
    skipped: int = 0


class _Attempt(msgspec.Struct, frozen=True):
    destinations: list[str] = []


class _Whole(msgspec.Struct, frozen=True):
    attempts: list[_Attempt] = []
    merged: dict[str, _Merged] = {}


_NOTHING: Final = "NOTHING_TO_RETRY"

patience_option = click.option(
    "--patience",
    "--timeout",
    type=click.FloatRange(min=0),
    default=300,
    show_default=True,
    metavar="SECONDS",
    help="Timeout.",
)


@click.command("retry")
@click.argument("job")
@connection_options
@click.option("--destination", "destinations", multiple=True, help="Only there; repeat it for more.")
@click.option("--wait", "wait", is_flag=True, help="Wait until it is finished.")
@patience_option
@json_option
@click.pass_context
def retry_command(
    context: click.Context,
    /,
    job: str,
    url: str | None,
    key: str | None,
    destinations: tuple[str, ...],
    wait: bool,
    patience: float,
    as_json: bool,
) -> None:
    """Send again only the failed items of a job. A repeated request does it once.

    Exit code with --wait: 0 completed, 1 with failures, 3 still running.
    """

    async def work() -> int:
        body = {"destinations": destinations} if destinations else None
        path = f"/v1/jobs/{quote(job, safe='')}/retry"

        async def ask(api: ApiClient) -> bytes:
            try:
                return await api.ask("POST", path, body)
            except RefusedError as error:
                if _NOTHING not in error.detail:
                    raise
                # Asked twice, it is done once: that is no fault of who asks.
                return msgspec.json.encode({"job_id": None, "taken": 0, "detail": error.detail})

        return await send_again(url, key, ask, wait=wait, patience=patience, as_json=as_json, again="retry")

    context.exit(run_command("jobs retry", work, as_json=as_json))


async def send_again(
    url: str | None,
    key: str | None,
    ask: Callable[[ApiClient], Awaitable[bytes]],
    *,
    wait: bool,
    patience: float,
    as_json: bool,
    again: str,
) -> int:
    """Ask for a job that sends again, tell of it and, if wanted, wait for it; returns the exit code."""
    clock = SystemClock()
    left = Patience(clock, max(patience, REQUEST_PATIENCE))
    async with open_api(url, key, clock, left) as api:
        body = await ask(api)
        made = read(body, Attempt, api.url)
        if as_json and not (wait and made.job_id):
            print(body.decode())
        if not as_json:
            print("\n".join(_tell_attempt(made, again)))
        if not wait or made.job_id is None:
            return 0
        watch = JobWatch(api, made.job_id)
        found = await watch_until(watch, is_finished, clock=clock, patience=Patience(clock, patience))
        if as_json:
            print(watch.body.decode())
        else:
            print(f"job {clean(made.job_id)} is {clean(found.state)}")
            for line in tell_merged(watch.body):
                print(line)
    if not is_finished(found):
        return 3
    return 0 if found.state == JobState.COMPLETED and not made.remaining else 1


def _tell_attempt(made: Attempt, again: str) -> Iterator[str]:
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
    yield from tell_skipped(made.skipped)


def tell_skipped(skipped: list[Skipped]) -> Iterator[str]:
    for left in skipped:
        yield f"{clean(left.destination)}: {left.count:,} left alone ({clean(left.reason).replace('_', ' ')})"


def tell_merged(body: bytes) -> list[str]:
    """What a job's items have come to over all attempts, a line for each destination."""
    whole = msgspec.json.decode(body, type=_Whole)
    lines = []
    for name, merged in whole.merged.items():
        count = max(sum(name in attempt.destinations for attempt in whole.attempts), 1)
        line = f"{clean(name)}: {merged.ok:,} of {merged.total:,} after {counted(count, 'attempt')}"
        for word in ("open", "failed", "dropped", "skipped"):
            if number := getattr(merged, word):
                line += f", {number:,} {word}"
        lines.append(line)
    return lines
