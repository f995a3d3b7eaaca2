"""`tranche jobs list | show | items | wait | retry | cancel | undo`."""

import csv
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec
import rich_click as click

from app.cli.client.api_client import ApiClient, given
from app.cli.client.clock import Clock, Deadline
from app.cli.client.connection import warn
from app.cli.client.errors import RefusedError, UsageError
from app.cli.client.jobs import JobWatch, exit_code, find_waits, is_finished, job_path, watch_until
from app.cli.client.progress import choose_display, clean, counted
from app.cli.client.upload_body import CSV, NDJSON
from app.cli.client.wire import LOST_STATES, Item, Job, Resend, read
from app.cli.command import api_command, limit_option, quiet_option, timeout_option, wait_option
from app.cli.output import show, show_fields, show_rows, take_some, wants_json
from app.files.csv_injection import neutralize
from app.vocabulary.states import ItemStatus

_NOTHING: Final = "NOTHING_TO_RETRY"
_job_argument: Final = click.argument("job")


@click.group("jobs")
def jobs_group() -> None:
    """Imports: every push makes a job, and one more for each time that rows are sent again."""


@api_command(jobs_group, "list", rows=True)
@limit_option(20)
async def list_jobs(api: ApiClient, limit: int) -> None:
    """Jobs, newest first."""
    columns = ("job", "kind", "state", "items", "ok", "failed", "retry", "created")
    await show_rows(api.list("/v1/jobs", "jobs"), limit, columns, _describe, whole="job")


def _describe(job: dict[str, Any]) -> list[object]:
    summary = job.get("summary") or {}
    counts = [summary.get(name) for name in ("total", "succeeded", "failed", "retry")]
    dry = (job.get("options") or {}).get("dry_run")
    kind = f"{job.get('kind')}, dry run" if dry else job.get("kind")
    return [job.get("job_id"), kind, job.get("state"), *counts, job.get("created_at")]


@api_command(jobs_group, "show")
@_job_argument
async def show_job(api: ApiClient, job: str) -> None:
    """One job: its state, its items by outcome, and their effects at the destinations."""
    watch = JobWatch(api, job)
    found = await watch.poll()
    _print_job(watch)
    if not wants_json() and not is_finished(found):
        show(None, await find_waits(api, found.effects))


@api_command(jobs_group, "items", rows=True)
@_job_argument
@click.option("--status", help="ok, failed or retry.")
@click.option("--destination", help="Only what this destination has to do with.")
@click.option("--error-code", help="Only items with this code.")
@click.option(
    "--failed",
    is_flag=True,
    help="Only what was not well, here or at a destination, when this job sent it; see `jobs show` for since.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Most items to show.  [default: all]")
@click.option(
    "--csv",
    "as_csv",
    is_flag=True,
    help="Print CSV; with --failed the rows as they were pushed, with the reasons, to be fixed and pushed again.",
)
@click.option(
    "--ndjson",
    "as_ndjson",
    is_flag=True,
    help="With --failed: print the items as they were pushed, one a line, to be corrected and pushed again.",
)
async def items_command(
    api: ApiClient, job: str, failed: bool, limit: int | None, as_csv: bool, as_ndjson: bool, **filters: str | None
) -> None:
    """The items of a job with their outcomes, page after page."""
    if as_ndjson and not failed:
        raise UsageError("--ndjson goes with --failed; the outcomes of all items are printed with --json")
    media_type = NDJSON if as_ndjson else CSV if failed and as_csv else None
    if media_type and limit is not None:
        raise UsageError("--limit does not go with a file of failed rows, which is always whole")
    path = job_path(job, "/items")
    params = given(filters)
    if media_type:
        await _print_file(api, job, path, params, media_type)
        return
    write = _choose_writer(as_csv)
    items = api.list(path, "items", params)
    async for raw in take_some((raw async for raw in items if not failed or _is_lost(raw)), limit):
        write(raw)


async def _print_file(api: ApiClient, job: str, path: str, params: Mapping[str, str], media_type: str) -> None:
    """The service's file of failed rows, byte for byte."""

    def look(fields: Mapping[str, str]) -> None:
        if "Retry-After" in fields:
            warn(f"job {job} is not finished: these are the rows that failed so far")

    params = {**params, "sent": "true"}
    async for piece in api.download(path, params=params, media_type=media_type, began=look):
        sys.stdout.buffer.write(piece)
    sys.stdout.flush()


def _is_lost(raw: msgspec.Raw) -> bool:
    item = msgspec.json.decode(raw, type=Item)
    return item.status != ItemStatus.OK or any(effect.state in LOST_STATES for effect in item.destinations.values())


def _choose_writer(as_csv: bool) -> Callable[[msgspec.Raw], None]:
    if wants_json():
        return lambda raw: print(bytes(raw).decode())
    if as_csv:
        rows = csv.writer(sys.stdout)
        rows.writerow(["index", "id", "status", "result", "error_code", "retry_after_seconds", "detail", "effects"])
        return lambda raw: rows.writerow([neutralize(cell) for cell in _cells(raw)])
    return lambda raw: print("  ".join(clean(cell) for cell in _cells(raw) if cell))


def _cells(raw: msgspec.Raw) -> list[str]:
    item = msgspec.json.decode(raw, type=Item)
    effects = [
        f"{name}: {effect.state}"
        + (f" ({effect.error_code})" if effect.error_code else "")
        + (f" (not restored: {' '.join(effect.not_restored)})" if effect.not_restored else "")
        for name, effect in item.destinations.items()
    ]
    seconds = item.retry_after_seconds
    return [
        str(item.index),
        item.id or "",
        item.status,
        item.result or "",
        item.error_code or "",
        f"{seconds:g}" if seconds else "",
        item.detail,
        ", ".join(effects),
    ]


@api_command(jobs_group, "wait")
@_job_argument
@timeout_option()
@quiet_option
async def wait_for(api: ApiClient, job: str, seconds: float, quiet: bool) -> int:
    """Wait until a job is finished. Exit code: 0 completed, 1 with failures or not at all, 3 still running."""
    watch = await wait_for_job(api, job, seconds, silent=quiet)
    _print_job(watch)
    return exit_code(watch.job)


@api_command(jobs_group, "retry")
@_job_argument
@click.option("--destination", "destinations", multiple=True, help="Only there; repeat it for more.")
@wait_option
@timeout_option()
async def retry_command(api: ApiClient, job: str, destinations: tuple[str, ...], wait: bool, seconds: float) -> int:
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
    return await follow_resend(api, answer, wait=wait, seconds=seconds, again="retry")


async def follow_resend(api: ApiClient, answer: bytes, *, wait: bool, seconds: float, again: str) -> int:
    """Print the answer to a retry or a replay and, if wanted, wait for its job; returns the exit code."""
    made = read(answer, Resend, api.url)
    if not (wants_json() and wait and made.job_id):
        show(answer, _describe_resend(made, again))
    if not wait or made.job_id is None:
        return 0
    watch = await wait_for_job(api, made.job_id, seconds, silent=True)
    line = f"job {made.job_id} is {watch.job.state}"
    show(watch.body, [line, *describe_merged(watch.job)])
    return exit_code(watch.job) or bool(made.remaining)


async def wait_for_job(api: ApiClient, job_id: str, seconds: float, *, silent: bool) -> JobWatch:
    """Until it is finished or the time is over."""
    watch, deadline = JobWatch(api, job_id), Deadline(Clock(), seconds)
    with choose_display(deadline.clock, silent=silent or wants_json()) as display:
        await watch_until(watch, is_finished, deadline, lambda job: display.show_job(job, job.effects))
    return watch


def _describe_resend(made: Resend, again: str) -> Iterator[str]:
    if made.job_id is None:
        yield made.detail or "nothing to send again" + (
            f"; taken before by {', '.join(made.jobs)}" if made.jobs else ""
        )
    elif made.taken:
        items, taken = counted(made.items, "item"), counted(made.taken, "dead letter")
        done = "restored or left again" if made.kind == "undo" else "sent again"
        yield f"job {made.job_id}: {items} {done} for {taken}"
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
        place = left["destination"] or "undo"
        yield f"{place}: {left['count']:,} left alone ({left['reason'].replace('_', ' ')})"


def describe_merged(job: Job) -> Iterator[str]:
    """What a job's items have come to over all attempts, a line for each destination."""
    for name, merged in job.merged.items():
        count = max(sum(name in attempt.destinations for attempt in job.attempts), 1)
        line = f"{name}: {merged.ok:,} of {merged.total:,} after {counted(count, 'attempt')}"
        for word in ("open", "failed", "dropped", "skipped"):
            if number := getattr(merged, word):
                line += f", {number:,} {word}"
        yield line


@api_command(jobs_group, "cancel")
@_job_argument
async def cancel(api: ApiClient, job: str) -> None:
    """Stop an import. Applied items remain and are delivered; the rest is not processed."""
    await api.ask("POST", job_path(job, "/cancel"))
    watch = JobWatch(api, job)
    found = await watch.poll()
    show(watch.body, [_describe_canceled(found)])


def _describe_canceled(job: Job) -> str:
    counts = job.summary
    if not job.processed:
        return f"job {job.job_id} is {job.state}: nothing of it was applied"
    return (
        f"job {job.job_id} is {job.state}: what was applied stays ({counted(counts.succeeded, 'item')}); "
        f"{counts.failed + counts.retry:,} failed, {job.not_processed:,} not processed"
    )


@api_command(jobs_group, "undo")
@_job_argument
@wait_option
@timeout_option()
@quiet_option
async def undo(api: ApiClient, job: str, wait: bool, seconds: float, quiet: bool) -> int:
    """Undo a job: restore the earlier state of each record, unless somebody changed it since.

    No history is deleted, and a repeated request undoes once; to redo the changes, undo the undo job.
    Exit code with --wait: 0 all restored, 1 some records were left alone or a destination refused, 3 still running.
    """
    body = await api.ask("POST", job_path(job, "/undo"))
    found = read(body, Job, api.url)
    if wait:
        watch = await wait_for_job(api, found.job_id, seconds, silent=quiet)
        found, body = watch.job, watch.body
    show(body, [_describe_undone(job, found)])
    return exit_code(found) if wait else 0


def _describe_undone(job: str, undo: Job) -> str:
    name = undo.job_id
    if not is_finished(undo):
        return f"job {name} undoes job {job} and is {undo.state}; `tranche jobs wait {name}`"
    back = undo.results.get("updated", 0)
    parts = [f"{counted(back, 'record')} restored"]
    if undo.results.get("unchanged"):
        parts.append(f"{undo.results['unchanged']:,} had been undone before")
    if undo.summary.failed:
        parts.append(
            f"{undo.summary.failed:,} had been changed since and were left as they are "
            f"(`tranche jobs items {name} --status failed` shows by whom; `tranche dead-letters replay --kind undo "
            f"--job {name}` restores them after all)"
        )
    refused = sum(counts.get("failed", 0) + counts.get("dead", 0) for counts in undo.effects.values())
    if refused:
        parts.append(f"{refused:,} could not be restored at a destination (see its dead letters)")
    if undo.not_restored:
        places = ", ".join(f"{at}: {count:,}" for at, count in undo.not_restored.items())
        parts.append(
            f"of some, fields or the record were left as they are at a destination ({places}), because what was there "
            f"before is not known (`tranche jobs items {name}` names the fields)"
        )
    if undo.error is not None:
        parts.append(undo.error.detail)
    return f"job {job} is undone by job {name}: " + "; ".join(parts)


@api_command(jobs_group, "not-reached", rows=True)
@_job_argument
@limit_option(50)
async def not_reached(api: ApiClient, job: str, limit: int) -> None:
    """Records that an undo has not come to: of one that failed, what is not restored."""
    names = ("type", "record_id", "version", "job_id", "item_index")
    found = api.list(job_path(job, "/not-reached"), "records")
    columns = ("type", "record", "version", "job", "item")
    await show_rows(found, limit, columns, lambda row: [*map(row.get, names)], whole="record")


def _print_job(watch: JobWatch) -> None:
    show_fields(watch.body, _fields(msgspec.json.decode(watch.body)))
    if not wants_json():
        show(None, describe_merged(watch.job))


def _fields(job: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in job.items():
        if not (name.endswith("_url") or name == "merged" or value in (None, {}, [])):
            yield name, _flatten(value)


def _flatten(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(
            f"{name}: {{{_flatten(inner)}}}" if isinstance(inner, Mapping) else f"{name} {_flatten(inner)}"
            for name, inner in value.items()
            if inner not in (0, None, {}, [])
        )
    if isinstance(value, list):
        return " | ".join(_flatten(inner) for inner in value)
    return str(value)
