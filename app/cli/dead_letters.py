"""`tranche dead-letters list | show | clusters | replay | drop | settle`: the API's routes from the shell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec
import rich_click as click
from rich.table import Column, Table
from rich.text import Text

from app.cli.api_command import api_command, wait_option
from app.cli.client.api_client import ApiClient
from app.cli.client.connection import json_option, lines_option, print_rows, print_table
from app.cli.client.errors import UsageError
from app.cli.client.progress import clean, counted
from app.cli.job_retry import Skipped, describe_skipped, follow_resend, timeout_option

_PATH: Final = "/v1/dead-letters"
F = TypeVar("F", bound=Callable[..., Any])


class _Cluster(msgspec.Struct, frozen=True):
    destination: str
    error_code: str
    count: int
    oldest: str
    newest: str
    samples: list[int] = []
    detail: str = ""


class _Clusters(msgspec.Struct, frozen=True):
    clusters: list[_Cluster]
    skipped: list[Skipped] = []


class _Decision(msgspec.Struct, frozen=True):
    decided: int
    remaining: int = 0
    skipped: list[Skipped] = []


@click.group("dead-letters")
def dead_letters_group() -> None:
    """Items that are no longer tried: inspect, replay, drop or settle them."""


def _filter_options(command: F) -> F:
    for option in (
        click.option("--contact", "contact_id", help="Only of this contact."),
        click.option("--job", "job_id", help="Only of this job."),
        click.option(
            "--state", type=click.Choice(["failed", "dead"]), help="Refused for good, or no longer tried."
        ),
        click.option("--error-code", help="Only with this code."),
        click.option("--destination", help="Only at this destination."),
    ):
        command = option(command)
    return command


def _choice_options(command: F) -> F:
    """Which dead letters to decide about."""
    command = click.option("--all", "everything", is_flag=True, help="Every open dead letter.")(command)
    return click.argument("ids", nargs=-1, type=click.IntRange(min=1))(_filter_options(command))


def _choose(ids: tuple[int, ...], everything: bool, filters: Mapping[str, str | None]) -> dict[str, Any]:
    """The part of a request that selects dead letters."""
    asked = _given(filters)
    if ids and (asked or everything):
        raise UsageError("give ids or a filter, not both")
    if ids:
        return {"ids": ids}
    if not asked and not everything:
        raise UsageError("give ids, a filter such as --destination or --job, or --all")
    return {"filter": asked} if asked else {"all": True}


@api_command("dead-letters list", dead_letters_group)
@_filter_options
@click.option(
    "--resolution",
    default="open",
    show_default=True,
    help="open, replayed, delivered, dropped, superseded or any.",
)
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Most to show.")
@lines_option
async def list_dead_letters(
    api: ApiClient, resolution: str, limit: int, as_json: bool, **filters: str | None
) -> None:
    """Dead letters, newest first."""
    table = Table(
        Column("id", no_wrap=True), "destination", "contact", "state", "code", "detail", "created", "end"
    )
    table.box = None
    found = api.list(_PATH, "dead_letters", _given(filters) | {"resolution": resolution})
    await print_rows(found, limit, table, _describe, as_json=as_json)


def _given(filters: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in filters.items() if value is not None}


def _describe(row: dict[str, Any]) -> list[Text]:
    names = ("id", "destination", "contact_id", "state", "error_code", "detail", "created_at", "resolution")
    return [Text(clean("" if row.get(name) is None else str(row[name]))) for name in names]


@api_command("dead-letters show", dead_letters_group)
@click.argument("dead_letter", type=click.IntRange(min=1))
@json_option
async def show(api: ApiClient, dead_letter: int, as_json: bool) -> None:
    """One dead letter: its reason, attempts with times and answers, history, and choices."""
    body = await api.ask("GET", f"{_PATH}/{dead_letter}")
    print(body.decode() if as_json else "\n".join(_describe_one(msgspec.json.decode(body))))


def _describe_one(found: dict[str, Any]) -> list[str]:
    what = f"contact {found['contact_id']} version {found['version']} at {found['destination']}"
    lines = [
        f"dead letter {found['id']}: {what} is {found['state']} since {found['created_at']}",
        f"reason: {found['error_code']}: {found['detail']} ({counted(found['attempts'], 'attempt')})",
        f"job {found['job_id']}, item {found['item_index']}; it began with job {found['root_job_id']}",
    ]
    for name, values in found["headers"].items():
        lines.append(f"{name}: {', '.join(values)}")
    for call in found["calls"]:
        status = call["status"] or "no answer"
        lines.append(
            f"  {call['sent_at']} {call['asked']}, attempt {call['attempt']}: {status} after "
            f"{call['milliseconds']} ms: {call['detail']}"
        )
    if len(found["chain"]) > 1:
        lines.append("its chain:")
        for link in found["chain"]:
            end = f"{link['resolution']} at {link['resolved_at']}" if link["resolution"] else "open"
            lines.append(f"  {link['id']} {link['created_at']} {link['error_code']}: {end}")
    payload = found["payload"]
    lines.append("payload now: " + ("deletion" if payload is None else msgspec.json.encode(payload).decode()))
    if found["resolution"]:
        why = f": {found['note']}" if found["note"] else ""
        lines.append(f"{found['resolution']} by {found['resolved_by']} at {found['resolved_at']}{why}")
    if found["choices"]:
        lines.append(f"choices: {', '.join(found['choices'])}")
    return [clean(line) for line in lines]


@api_command("dead-letters clusters", dead_letters_group)
@_filter_options
@json_option
async def clusters(api: ApiClient, as_json: bool, **filters: str | None) -> None:
    """Open dead letters by destination and code, the most frequent first."""
    _print_clusters((await api.get(f"{_PATH}/clusters", params=_given(filters))).body, as_json)


def _print_clusters(body: bytes, as_json: bool) -> None:
    if as_json:
        print(body.decode())
        return
    found = msgspec.json.decode(body, type=_Clusters)
    table = Table("destination", "code", "count", "oldest", "newest", "samples", "detail", box=None)
    for c in found.clusters:
        samples = ", ".join(str(sample) for sample in c.samples)
        cells = [c.destination, c.error_code, f"{c.count:,}", c.oldest, c.newest, samples, c.detail]
        table.add_row(*[Text(clean(cell)) for cell in cells])
    print_table(table)
    for line in describe_skipped(found.skipped):
        print(line)


@api_command("dead-letters replay", dead_letters_group)
@_choice_options
@click.option("--preview", is_flag=True, help="Show what would be claimed, and change nothing.")
@click.option("--rate", type=click.FloatRange(min=1), help="Items per second at a destination.")
@wait_option
@timeout_option
@json_option
async def replay(
    api: ApiClient,
    ids: tuple[int, ...],
    everything: bool,
    preview: bool,
    rate: float | None,
    wait: bool,
    seconds: float,
    as_json: bool,
    **filters: str | None,
) -> int:
    """Send dead letters again, by id or by filter. None is replayed twice."""
    wanted = _choose(ids, everything, filters)
    if preview:
        _print_clusters(await api.ask("POST", f"{_PATH}/replay", wanted | {"preview": True}), as_json)
        return 0
    answer = await api.ask("POST", f"{_PATH}/replay", wanted | ({} if rate is None else {"rate": rate}))
    return await follow_resend(api, answer, wait=wait, seconds=seconds, as_json=as_json, again="replay")


@api_command("dead-letters drop", dead_letters_group)
@_choice_options
@click.option("--reason", required=True, help="Why; the audit log keeps it.")
@json_option
async def drop(
    api: ApiClient,
    ids: tuple[int, ...],
    everything: bool,
    reason: str,
    as_json: bool,
    **filters: str | None,
) -> None:
    """Drop dead letters that are not worth sending. Their history remains."""
    body = await api.ask("POST", f"{_PATH}/drop", _choose(ids, everything, filters) | {"reason": reason})
    _print_decision(body, "dropped", as_json)


@api_command("dead-letters settle", dead_letters_group)
@click.argument("ids", nargs=-1, required=True, type=click.IntRange(min=1))
@click.option("--reason", required=True, help="How you know; the audit log keeps it.")
@json_option
async def settle(api: ApiClient, ids: tuple[int, ...], reason: str, as_json: bool) -> None:
    """Confirm that items with OUTCOME_UNKNOWN have arrived."""
    body = await api.ask("POST", f"{_PATH}/settle", {"ids": ids, "reason": reason})
    _print_decision(body, "settled", as_json)


def _print_decision(body: bytes, word: str, as_json: bool) -> None:
    if as_json:
        print(body.decode())
        return
    decision = msgspec.json.decode(body, type=_Decision)
    print(f"{counted(decision.decided, 'dead letter')} {word}")
    if decision.remaining:
        print(f"{decision.remaining:,} are left: ask again")
    for line in describe_skipped(decision.skipped):
        print(line)
