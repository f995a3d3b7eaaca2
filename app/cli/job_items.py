"""`tranche jobs items`."""

from __future__ import annotations

import csv
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final
from urllib.parse import quote

import msgspec
import rich_click as click

from app.cli.client.clock import Patience, SystemClock
from app.cli.client.connection import (
    REQUEST_PATIENCE,
    connection_options,
    lines_option,
    open_api,
    run_command,
    take_some,
    warn,
)
from app.cli.client.errors import UsageError
from app.cli.client.http import Api
from app.cli.client.jobs import fetch_pages
from app.cli.client.progress import clean
from app.cli.client.wire import Item, RawPage, read
from app.domain.files.formulas import neutralize
from app.domain.outcomes import EffectState, ItemStatus

_LOST: Final = (EffectState.FAILED, EffectState.DEAD)


@click.command("items")
@click.argument("job")
@connection_options
@click.option("--status", help="ok, failed or retry.")
@click.option("--destination", help="Only what this destination has to do with.")
@click.option("--error-code", help="Only items with this code.")
@click.option(
    "--failed",
    is_flag=True,
    help="Only what was not well, here or at a destination, when this job sent it; see `jobs show` for since.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Most items to show.  [default: all]")
@lines_option
@click.option(
    "--csv",
    "as_csv",
    is_flag=True,
    help="Print CSV; with --failed the rows as they were pushed, with the reasons, to be fixed and pushed again.",
)
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
        if failed and as_csv and limit is not None:
            raise UsageError("--limit does not go with --failed --csv, which gives a whole file")
        clock = SystemClock()
        patience = Patience(clock, REQUEST_PATIENCE)
        params = {name: value for name, value in filters.items() if value is not None}
        async with open_api(url, key, clock, patience) as api:
            if failed and as_csv:
                await _save_failed(api, job, params)
                return 0
            write = _choose_writer(as_json, as_csv)
            chosen = _walk_items(api, job, params, patience, only_lost=failed)
            async for raw in take_some(chosen, limit):
                write(raw)
        return 0

    context.exit(run_command("jobs items", work, as_json=as_json))


async def _save_failed(api: Api, job: str, params: Mapping[str, str]) -> None:
    """The service's file of failed rows to standard output, byte for byte."""

    def look(fields: Mapping[str, str]) -> None:
        if "Retry-After" in fields:
            warn(f"job {job} is not finished: these are the rows that failed so far")

    path = f"/v1/jobs/{quote(job, safe='')}/items"
    async for piece in api.download(path, params=params, headers={"Accept": "text/csv"}, began=look):
        sys.stdout.buffer.write(piece)
    sys.stdout.flush()


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
