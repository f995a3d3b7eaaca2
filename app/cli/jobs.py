"""`tranche jobs list | show | wait | cancel | undo`; `items` and `retry` have files of their own."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec
import rich_click as click
from rich.table import Column, Table
from rich.text import Text

from app.cli.api_command import api_command, quiet_option, wait_option
from app.cli.client.api_client import ApiClient
from app.cli.client.clock import Deadline, SystemClock
from app.cli.client.connection import json_option, lines_option, print_rows, print_table
from app.cli.client.jobs import JobWatch, is_finished, watch_until
from app.cli.client.progress import Bars, Display, Lines, Silence, clean, counted
from app.cli.client.waits import find_waits
from app.cli.client.wire import Job, read
from app.cli.job_items import items_command
from app.cli.job_retry import describe_merged, retry_command, timeout_option
from app.vocabulary.states import JobState


@click.group("jobs")
def jobs_group() -> None:
    """Imports: every push makes a job, and one more for each time that rows are sent again."""


jobs_group.add_command(items_command)
jobs_group.add_command(retry_command)


@api_command("jobs list", jobs_group)
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Most jobs to show.")
@lines_option
async def list_jobs(api: ApiClient, limit: int, as_json: bool) -> None:
    """Jobs, newest first."""
    # Half an id is of no use to the other commands, however narrow the window.
    job = Column("job", no_wrap=True, min_width=36)
    table = Table(job, "kind", "state", "items", "ok", "failed", "retry", "created", box=None)
    await print_rows(api.list("/v1/jobs", "jobs"), limit, table, _describe, as_json=as_json)


def _describe(job: dict[str, Any]) -> list[Text]:
    summary = job.get("summary") or {}
    counts = [summary.get(name, "") for name in ("total", "succeeded", "failed", "retry")]
    dry = (job.get("options") or {}).get("dry_run")
    kind = f"{job.get('kind')}, dry run" if dry else job.get("kind")
    cells = [job.get("job_id"), kind, job.get("state"), *counts, job.get("created_at")]
    return [Text(clean("" if cell is None else str(cell))) for cell in cells]


@api_command("jobs show", jobs_group)
@click.argument("job")
@json_option
async def show(api: ApiClient, job: str, as_json: bool) -> None:
    """One job: its state, its items by outcome, and their effects at the destinations."""
    watch = JobWatch(api, job)
    found = await watch.poll()
    _print_job(watch, as_json)
    if not as_json and not is_finished(found):
        for line in await find_waits(api, found.effects):
            print(line)


@api_command("jobs wait", jobs_group)
@click.argument("job")
@timeout_option
@json_option
@quiet_option
async def wait_for(api: ApiClient, job: str, seconds: float, as_json: bool, quiet: bool) -> int:
    """Wait until a job is finished. Exit code: 0 completed, 1 with failures or not at all, 3 still running."""
    watch = JobWatch(api, job)
    found = await _wait(watch, seconds, silent=quiet or as_json)
    _print_job(watch, as_json)
    return _exit_code(found)


async def _wait(watch: JobWatch, seconds: float, *, silent: bool) -> Job:
    clock = SystemClock()
    with _choose_display(clock, silent=silent) as display:
        return await watch_until(
            watch,
            is_finished,
            clock=clock,
            deadline=Deadline(clock, seconds),
            seen=lambda job: display.show_job(job, job.effects),
        )


def _exit_code(job: Job) -> int:
    if not is_finished(job):
        return 3
    return 0 if job.state == JobState.COMPLETED else 1


def _choose_display(clock: SystemClock, *, silent: bool) -> Display:
    if silent:
        return Silence()
    return Bars() if sys.stderr.isatty() else Lines(clock)


@api_command("jobs cancel", jobs_group)
@click.argument("job")
@json_option
async def cancel(api: ApiClient, job: str, as_json: bool) -> None:
    """Stop an import. Applied items remain and are delivered; the rest is not processed."""
    await api.ask("POST", f"/v1/jobs/{quote(job, safe='')}/cancel")
    watch = JobWatch(api, job)
    found = await watch.poll()
    print(watch.body.decode() if as_json else _describe_canceled(found))


def _describe_canceled(job: Job) -> str:
    counts = job.summary
    if not job.processed:
        return f"job {clean(job.job_id)} is {clean(job.state)}: nothing of it was applied"
    return (
        f"job {clean(job.job_id)} is {clean(job.state)}: what was applied stays ({counted(counts.succeeded, 'item')}); "
        f"{counts.failed + counts.retry:,} failed, {job.not_processed:,} not processed"
    )


@api_command("jobs undo", jobs_group)
@click.argument("job")
@wait_option
@timeout_option
@json_option
@quiet_option
async def undo(api: ApiClient, job: str, wait: bool, seconds: float, as_json: bool, quiet: bool) -> int:
    """Undo a job: restore the earlier state of each contact, unless somebody changed it since.

    No history is deleted, and a repeated request undoes once; to redo the changes, undo the undo job.
    Exit code with --wait: 0 all restored, 1 some contacts were left alone or a destination refused, 3 still running.
    """
    body = await api.ask("POST", f"/v1/jobs/{quote(job, safe='')}/undo")
    found = read(body, Job, api.url)
    if wait:
        watch = JobWatch(api, found.job_id)
        found = await _wait(watch, seconds, silent=quiet or as_json)
        body = watch.body
    print(body.decode() if as_json else _describe_undone(job, found))
    return _exit_code(found) if wait else 0


def _describe_undone(job: str, undo: Job) -> str:
    name = clean(undo.job_id)
    if not is_finished(undo):
        return f"job {name} undoes job {clean(job)} and is {clean(undo.state)}; `tranche jobs wait {name}`"
    back = undo.results.get("updated", 0)
    parts = [f"{counted(back, 'contact')} restored"]
    if undo.results.get("unchanged"):
        parts.append(f"{undo.results['unchanged']:,} had been undone before")
    if undo.summary.failed:
        parts.append(
            f"{undo.summary.failed:,} had been changed since and were left as they are "
            f"(`tranche jobs items {name} --status failed` shows by whom)"
        )
    refused = sum(counts.get("failed", 0) + counts.get("dead", 0) for counts in undo.effects.values())
    if refused:
        parts.append(f"{refused:,} could not be restored at a destination (see its dead letters)")
    if undo.not_restored:
        places = ", ".join(f"{clean(name)}: {count:,}" for name, count in undo.not_restored.items())
        parts.append(
            f"of some, fields or the record were left as they are at a destination ({places}), because what was there "
            f"before is not known (`tranche jobs items {name}` names the fields)"
        )
    if undo.error is not None:
        parts.append(clean(undo.error.detail))
    return f"job {clean(job)} is undone by job {name}: " + "; ".join(parts)


def _print_job(watch: JobWatch, as_json: bool) -> None:
    if as_json:
        print(watch.body.decode())
        return
    job: dict[str, Any] = msgspec.json.decode(watch.body)
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, value in job.items():
        if name.endswith("_url") or name == "merged" or value in (None, {}, []):
            continue
        table.add_row(Text(clean(name)), Text(clean(_flatten(value))))
    print_table(table)
    for line in describe_merged(watch.job):
        print(line)


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
