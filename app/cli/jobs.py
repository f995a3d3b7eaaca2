"""`tranche jobs list | show | wait | items`."""

from __future__ import annotations

import csv
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

import msgspec
import rich_click as click
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from app.cli.client.clock import Patience, SystemClock
from app.cli.client.connection import connection_options, find_connection, run_command
from app.cli.client.failed_file import neutralize
from app.cli.client.http import Api
from app.cli.client.jobs import JobWatch, fetch_pages, is_finished
from app.cli.client.progress import clean
from app.cli.client.wire import Item, JobPage, RawPage, read
from app.domain.outcomes import EffectState, ItemStatus, JobState

REQUEST_PATIENCE: Final = 30.0
"""Seconds that a single question may take, attempts included."""
_LOST: Final = (EffectState.FAILED, EffectState.DEAD)

json_option = click.option("--json", "as_json", is_flag=True, help="Print the API's answer as it came.")
lines_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")


def _warn(text: str) -> None:
    print(clean(text), file=sys.stderr)


def _open(url: str | None, key: str | None, clock: SystemClock, patience: Patience) -> Api:
    found = find_connection(url, key)
    return Api(found.url, found.key, clock=clock, patience=patience, notify=_warn)


@click.group("jobs")
def jobs_group() -> None:
    """Look at imports: every push makes a job for each batch."""


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
        clock = SystemClock()
        # Half an id is of no use to the other commands, however narrow the window.
        job = Column("job", no_wrap=True, min_width=36)
        table = Table(job, "kind", "state", "items", "ok", "failed", "retry", "created", box=None)
        async with _open(url, key, clock, Patience(clock, REQUEST_PATIENCE)) as api:
            async for raw in _take(_walk_jobs(api), limit):
                if as_json:
                    print(bytes(raw).decode())
                else:
                    table.add_row(*_describe(msgspec.json.decode(raw)))
        if not as_json:
            Console().print(table)
        return 0

    context.exit(run_command("jobs list", work, as_json=as_json))


def _describe(job: dict[str, Any]) -> list[Text]:
    summary = job.get("summary") or {}
    counts = [summary.get(name, "") for name in ("total", "succeeded", "failed", "retry")]
    cells = [job.get("job_id"), job.get("kind"), job.get("state"), *counts, job.get("created_at")]
    return [Text(clean("" if cell is None else str(cell))) for cell in cells]


async def _walk_jobs(api: Api) -> AsyncIterator[msgspec.Raw]:
    params: dict[str, str] = {}
    while True:
        page = read((await api.get("/v1/jobs", params=params)).body, JobPage, api.url)
        for raw in page.jobs:
            yield raw
        if not page.next_cursor:
            return
        params["cursor"] = page.next_cursor


async def _take(items: AsyncIterator[msgspec.Raw], limit: int | None) -> AsyncIterator[msgspec.Raw]:
    count = 0
    async for item in items:
        yield item
        count += 1
        if count == limit:
            return


@jobs_group.command("show")
@click.argument("job")
@connection_options
@json_option
@click.pass_context
def show_command(
    context: click.Context, /, job: str, url: str | None, key: str | None, as_json: bool
) -> None:
    """One job: its state, its items by outcome, and what the destinations made of them."""

    async def work() -> int:
        clock = SystemClock()
        async with _open(url, key, clock, Patience(clock, REQUEST_PATIENCE)) as api:
            watch = JobWatch(api, job)
            await watch.poll()
            _print_job(watch.body, as_json)
        return 0

    context.exit(run_command("jobs show", work, as_json=as_json))


@jobs_group.command("wait")
@click.argument("job")
@connection_options
@click.option("--timeout", type=click.FloatRange(min=0), default=300, show_default=True, metavar="SECONDS")
@json_option
@click.pass_context
def wait_command(
    context: click.Context, /, job: str, url: str | None, key: str | None, timeout: float, as_json: bool
) -> None:
    """Wait until a job is finished. Exit code: 0 completed, 1 with failures or not at all, 3 still running."""

    async def work() -> int:
        clock = SystemClock()
        patience = Patience(clock, timeout)
        patience.start_last_wait()
        async with _open(url, key, clock, patience) as api:
            watch = JobWatch(api, job)
            found = await watch.poll(patience.left())
            while not is_finished(found) and watch.pause <= patience.left():
                await clock.sleep(watch.pause)
                found = await watch.poll(patience.left())
            _print_job(watch.body, as_json)
        if not is_finished(found):
            return 3
        return 0 if found.state == JobState.COMPLETED else 1

    context.exit(run_command("jobs wait", work, as_json=as_json))


def _print_job(body: bytes, as_json: bool) -> None:
    if as_json:
        print(body.decode())
        return
    job: dict[str, Any] = msgspec.json.decode(body)
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, value in job.items():
        if name.endswith("_url") or value in (None, {}, []):
            continue
        table.add_row(Text(clean(name)), Text(clean(_flatten(value))))
    Console().print(table)


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


@jobs_group.command("items")
@click.argument("job")
@connection_options
@click.option("--status", help="ok, failed or retry.")
@click.option("--destination", help="Only what this destination has to do with.")
@click.option("--error-code", help="Only items with this code.")
@click.option("--failed", is_flag=True, help="Only what is not well, here or at a destination.")
@click.option("--limit", type=click.IntRange(min=1), help="Most items to show.  [default: all]")
@lines_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.pass_context
def items_command(
    context: click.Context,
    /,
    job: str,
    url: str | None,
    key: str | None,
    failed: bool,
    limit: int | None,
    as_json: bool,
    as_csv: bool,
    **filters: str | None,
) -> None:
    """The items of a job with their outcomes, page after page."""

    async def work() -> int:
        clock = SystemClock()
        patience = Patience(clock, REQUEST_PATIENCE)
        params = {name: value for name, value in filters.items() if value is not None}
        write = _choose_writer(as_json, as_csv)
        async with _open(url, key, clock, patience) as api:
            chosen = _walk_items(api, job, params, patience, only_lost=failed)
            async for raw in _take(chosen, limit):
                write(raw)
        return 0

    context.exit(run_command("jobs items", work, as_json=as_json))


async def _walk_items(
    api: Api, job: str, params: Mapping[str, str], patience: Patience, *, only_lost: bool
) -> AsyncIterator[msgspec.Raw]:
    async for answer, page in fetch_pages(api, job, params):
        patience.renew()
        raws = read(answer.body, RawPage, api.url).items
        for raw, item in zip(raws, page.items, strict=True):
            if not only_lost or _is_lost(item):
                yield raw


def _is_lost(item: Item) -> bool:
    return item.status != ItemStatus.OK or any(effect.state in _LOST for effect in item.destinations.values())


def _choose_writer(as_json: bool, as_csv: bool) -> Callable[[msgspec.Raw], None]:
    if as_json:
        return lambda raw: print(bytes(raw).decode())
    if as_csv:
        rows = csv.writer(sys.stdout)
        rows.writerow(
            ["index", "id", "status", "result", "error_code", "retry_after_seconds", "detail", "effects"]
        )
        return lambda raw: rows.writerow([neutralize(cell) for cell in _cells(raw)])
    return lambda raw: print("  ".join(clean(cell) for cell in _cells(raw) if cell))


def _cells(raw: msgspec.Raw) -> list[str]:
    item = msgspec.json.decode(raw, type=Item)
    effects = [
        f"{name}: {effect.state}" + (f" ({effect.error_code})" if effect.error_code else "")
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
