"""`tranche jobs items`."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Mapping

import msgspec
import rich_click as click

from app.cli.api_command import api_command
from app.cli.client.api_client import ApiClient, given
from app.cli.client.connection import warn
from app.cli.client.errors import UsageError
from app.cli.client.jobs import job_path
from app.cli.client.progress import clean
from app.cli.client.upload_body import CSV, NDJSON
from app.cli.client.wire import LOST_STATES, Item
from app.cli.output import take_some
from app.files.csv_injection import neutralize
from app.vocabulary.states import ItemStatus


@api_command("jobs items", rows=True)
@click.argument("job")
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
    api: ApiClient,
    job: str,
    failed: bool,
    limit: int | None,
    as_json: bool,
    as_csv: bool,
    as_ndjson: bool,
    **filters: str | None,
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
    write = _choose_writer(as_json, as_csv)
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


def _choose_writer(as_json: bool, as_csv: bool) -> Callable[[msgspec.Raw], None]:
    if as_json:
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
