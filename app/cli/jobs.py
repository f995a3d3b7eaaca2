"""`tranche jobs list | show | wait | cancel | undo`; `items` and `retry` stand by themselves."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec
import rich_click as click
from rich.table import Column, Table
from rich.text import Text

from app.cli.client.clock import Patience, SystemClock
from app.cli.client.connection import (
    REQUEST_PATIENCE,
    connection_options,
    json_option,
    lines_option,
    open_api,
    print_rows,
    print_table,
    run_command,
)
from app.cli.client.jobs import JobWatch, is_finished, watch_until
from app.cli.client.progress import Bars, Display, Lines, Silence, clean, counted
from app.cli.client.waits import find_waits
from app.cli.client.wire import Job, read
from app.cli.job_items import items_command
from app.cli.job_retry import retry_command, tell_merged
from app.domain.outcomes import JobState


@click.group("jobs")
def jobs_group() -> None:
    """Imports: every push makes a job, and one more for each time that rows are sent again."""


jobs_group.add_command(items_command)
jobs_group.add_command(retry_command)


@jobs_group.command("list")
@connection_options
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Most jobs to show.")
@lines_option
@click.pass_context
def list_command(
    context: click.Context, /, url: str | None, key: str | None, limit: int, as_json: bool
) -> None:
    """Jobs, newest first."""

    async def work() -> int:
        # Half an id is of no use to the other commands, however narrow the window.
        job = Column("job", no_wrap=True, min_width=36)
        table = Table(job, "kind", "state", "items", "ok", "failed", "retry", "created", box=None)
        async with open_api(url, key) as api:
            await print_rows(api.list("/v1/jobs", "jobs"), limit, table, _describe, as_json=as_json)
        return 0

    context.exit(run_command("jobs list", work, as_json=as_json))


def _describe(job: dict[str, Any]) -> list[Text]:
    summary = job.get("summary") or {}
    counts = [summary.get(name, "") for name in ("total", "succeeded", "failed", "retry")]
    dry = (job.get("options") or {}).get("dry_run")
    kind = f"{job.get('kind')}, dry run" if dry else job.get("kind")
    cells = [job.get("job_id"), kind, job.get("state"), *counts, job.get("created_at")]
    return [Text(clean("" if cell is None else str(cell))) for cell in cells]


@jobs_group.command("show")
@click.argument("job")
@connection_options
@json_option
@click.pass_context
def show_command(
    context: click.Context, /, job: str, url: str | None, key: str | None, as_json: bool
) -> None:
    """One job: its state, its items by outcome, and their effects at the destinations."""

    async def work() -> int:
        async with open_api(url, key) as api:
            watch = JobWatch(api, job)
            found = await watch.poll()
            _print_job(watch.body, as_json)
            if not as_json and not is_finished(found):
                for line in await find_waits(api, found.effects):
                    print(line)
        return 0

    context.exit(run_command("jobs show", work, as_json=as_json))


@jobs_group.command("wait")
@click.argument("job")
@connection_options
@click.option(
    "--patience",
    "--timeout",
    type=click.FloatRange(min=0),
    default=300,
    show_default=True,
    metavar="SECONDS",
    help="Timeout.",
)
@json_option
@click.option("--quiet", "-q", is_flag=True, help="Show no progress.")
@click.pass_context
def wait_command(
    context: click.Context,
    /,
    job: str,
    url: str | None,
    key: str | None,
    patience: float,
    as_json: bool,
    quiet: bool,
) -> None:
    """Wait until a job is finished. Exit code: 0 completed, 1 with failures or not at all, 3 still running."""

    async def work() -> int:
        clock = SystemClock()
        left = Patience(clock, patience)
        left.start_last_wait()
        async with open_api(url, key, clock, left) as api:
            watch = JobWatch(api, job)
            with _choose_display(clock, silent=quiet or as_json) as display:
                found = await watch_until(
                    watch,
                    is_finished,
                    clock=clock,
                    patience=left,
                    seen=lambda job: display.show_job(job, job.effects),
                )
            _print_job(watch.body, as_json)
        if not is_finished(found):
            return 3
        return 0 if found.state == JobState.COMPLETED else 1

    context.exit(run_command("jobs wait", work, as_json=as_json))


def _choose_display(clock: SystemClock, *, silent: bool) -> Display:
    if silent:
        return Silence()
    return Bars() if sys.stderr.isatty() else Lines(clock)


@jobs_group.command("cancel")
@click.argument("job")
@connection_options
@json_option
@click.pass_context
def cancel_command(
    context: click.Context, /, job: str, url: str | None, key: str | None, as_json: bool
) -> None:
    """Stop an import. Applied items remain and are delivered; the rest is not processed."""

    async def work() -> int:
        async with open_api(url, key) as api:
            await api.call("POST", f"/v1/jobs/{quote(job, safe='')}/cancel")
            watch = JobWatch(api, job)
            found = await watch.poll()
            if as_json:
                print(watch.body.decode())
            else:
                print(_tell_canceled(found))
        return 0

    context.exit(run_command("jobs cancel", work, as_json=as_json))


def _tell_canceled(job: Job) -> str:
    counts = job.summary
    if not job.processed:
        return f"job {clean(job.job_id)} is {clean(job.state)}: nothing of it was applied"
    return (
        f"job {clean(job.job_id)} is {clean(job.state)}: what was applied stays ({counted(counts.succeeded, 'item')}); "
        f"{counts.failed + counts.retry:,} failed, {job.not_processed:,} not processed"
    )


@jobs_group.command("undo")
@click.argument("job")
@connection_options
@click.option("--wait", is_flag=True, help="Wait until the destinations have it.")
@click.option(
    "--patience",
    type=click.FloatRange(min=0),
    default=300,
    show_default=True,
    metavar="SECONDS",
    help="Timeout.",
)
@json_option
@click.option("--quiet", "-q", is_flag=True, help="Show no progress.")
@click.pass_context
def undo_command(
    context: click.Context,
    /,
    job: str,
    url: str | None,
    key: str | None,
    wait: bool,
    patience: float,
    as_json: bool,
    quiet: bool,
) -> None:
    """Undo a job: restore the earlier state of each contact, unless somebody changed it since.

    No history is deleted, and a repeated request undoes once; to redo the changes, undo the undo job.
    Exit code with --wait: 0 all restored, 1 some contacts were left alone or a destination refused, 3 still running.
    """

    async def work() -> int:
        clock = SystemClock()
        left = Patience(clock, patience if wait else REQUEST_PATIENCE)
        async with open_api(url, key, clock, left) as api:
            answer = await api.call("POST", f"/v1/jobs/{quote(job, safe='')}/undo")
            found = read(answer.body, Job, api.url)
            body = answer.body
            if wait:
                left.start_last_wait()
                watch = JobWatch(api, found.job_id)
                with _choose_display(clock, silent=quiet or as_json) as display:
                    found = await watch_until(
                        watch,
                        is_finished,
                        clock=clock,
                        patience=left,
                        seen=lambda job: display.show_job(job, job.effects),
                    )
                body = watch.body
        print(body.decode() if as_json else _tell_undone(job, found))
        if not wait:
            return 0
        if not is_finished(found):
            return 3
        return 0 if found.state == JobState.COMPLETED else 1

    context.exit(run_command("jobs undo", work, as_json=as_json))


def _tell_undone(job: str, undo: Job) -> str:
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


def _print_job(body: bytes, as_json: bool) -> None:
    if as_json:
        print(body.decode())
        return
    job: dict[str, Any] = msgspec.json.decode(body)
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, value in job.items():
        if name.endswith("_url") or name == "merged" or value in (None, {}, []):
            continue
        table.add_row(Text(clean(name)), Text(clean(_flatten(value))))
    print_table(table)
    for line in tell_merged(body):
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
