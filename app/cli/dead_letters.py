"""`tranche dead-letters list | show | clusters | replay | drop | settle`: the API's routes from the shell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec
import rich_click as click
from rich.table import Column, Table
from rich.text import Text

from app.cli.client.api_client import ApiClient
from app.cli.client.connection import (
    connection_options,
    json_option,
    lines_option,
    open_api,
    print_rows,
    print_table,
    run_command,
)
from app.cli.client.errors import UsageError
from app.cli.client.progress import clean, counted
from app.cli.job_retry import Skipped, patience_option, send_again, tell_skipped

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
    """Which letters to decide about."""
    command = click.option("--all", "everything", is_flag=True, help="Every open dead letter.")(command)
    return click.argument("ids", nargs=-1, type=click.IntRange(min=1))(_filter_options(command))


def _choose(ids: tuple[int, ...], everything: bool, filters: Mapping[str, str | None]) -> dict[str, Any]:
    """The part of a request that says which letters."""
    asked = {name: value for name, value in filters.items() if value is not None}
    if ids and (asked or everything):
        raise UsageError("give ids or a filter, not both")
    if ids:
        return {"ids": ids}
    if not asked and not everything:
        raise UsageError("give ids, a filter such as --destination or --job, or --all")
    return {"filter": asked} if asked else {"all": True}


@dead_letters_group.command("list")
@connection_options
@_filter_options
@click.option(
    "--resolution",
    default="open",
    show_default=True,
    help="open, replayed, delivered, dropped, superseded or any.",
)
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Most to show.")
@lines_option
@click.pass_context
def list_command(
    context: click.Context,
    /,
    url: str | None,
    key: str | None,
    resolution: str,
    limit: int,
    as_json: bool,
    **filters: str | None,
) -> None:
    """Dead letters, newest first."""

    async def work() -> int:
        params = {name: value for name, value in filters.items() if value is not None}
        params |= {"resolution": resolution}
        table = Table(
            Column("id", no_wrap=True), "destination", "contact", "state", "code", "detail", "created", "end"
        )
        table.box = None
        async with open_api(url, key) as api:
            await print_rows(
                api.list(_PATH, "dead_letters", params), limit, table, _describe, as_json=as_json
            )
        return 0

    context.exit(run_command("dead-letters list", work, as_json=as_json))


def _describe(letter: dict[str, Any]) -> list[Text]:
    names = ("id", "destination", "contact_id", "state", "error_code", "detail", "created_at", "resolution")
    return [Text(clean("" if letter.get(name) is None else str(letter[name]))) for name in names]


@dead_letters_group.command("show")
@click.argument("letter", type=click.IntRange(min=1))
@connection_options
@json_option
@click.pass_context
def show_command(
    context: click.Context, /, letter: int, url: str | None, key: str | None, as_json: bool
) -> None:
    """One dead letter: its reason, attempts with times and answers, history, and choices."""

    async def work() -> int:
        async with open_api(url, key) as api:
            body = (await api.get(f"{_PATH}/{letter}")).body
        print(body.decode() if as_json else "\n".join(_tell_letter(msgspec.json.decode(body))))
        return 0

    context.exit(run_command("dead-letters show", work, as_json=as_json))


def _tell_letter(letter: dict[str, Any]) -> list[str]:
    what = f"contact {letter['contact_id']} version {letter['version']} at {letter['destination']}"
    lines = [
        f"dead letter {letter['id']}: {what} is {letter['state']} since {letter['created_at']}",
        f"reason: {letter['error_code']}: {letter['detail']} ({counted(letter['attempts'], 'attempt')})",
        f"job {letter['job_id']}, item {letter['item_index']}; it began with job {letter['root_job_id']}",
    ]
    for name, values in letter["headers"].items():
        lines.append(f"{name}: {', '.join(values)}")
    for call in letter["calls"]:
        status = call["status"] or "no answer"
        lines.append(
            f"  {call['sent_at']} {call['asked']}, attempt {call['attempt']}: {status} after "
            f"{call['milliseconds']} ms: {call['detail']}"
        )
    if len(letter["chain"]) > 1:
        lines.append("its chain:")
        for link in letter["chain"]:
            end = f"{link['resolution']} at {link['resolved_at']}" if link["resolution"] else "open"
            lines.append(f"  {link['id']} {link['created_at']} {link['error_code']}: {end}")
    payload = letter["payload"]
    lines.append("payload now: " + ("deletion" if payload is None else msgspec.json.encode(payload).decode()))
    if letter["resolution"]:
        why = f": {letter['note']}" if letter["note"] else ""
        lines.append(f"{letter['resolution']} by {letter['resolved_by']} at {letter['resolved_at']}{why}")
    if letter["choices"]:
        lines.append(f"choices: {', '.join(letter['choices'])}")
    return [clean(line) for line in lines]


@dead_letters_group.command("clusters")
@connection_options
@_filter_options
@json_option
@click.pass_context
def clusters_command(
    context: click.Context, /, url: str | None, key: str | None, as_json: bool, **filters: str | None
) -> None:
    """Open dead letters by destination and code, the most frequent first."""

    async def work() -> int:
        params = {name: value for name, value in filters.items() if value is not None}
        async with open_api(url, key) as api:
            body = (await api.get(f"{_PATH}/clusters", params=params)).body
        _print_clusters(body, as_json)
        return 0

    context.exit(run_command("dead-letters clusters", work, as_json=as_json))


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
    for line in tell_skipped(found.skipped):
        print(line)


@dead_letters_group.command("replay")
@connection_options
@_choice_options
@click.option("--preview", is_flag=True, help="Show what would be claimed, and change nothing.")
@click.option("--rate", type=click.FloatRange(min=1), help="Items a second at a destination.")
@click.option("--wait", "wait", is_flag=True, help="Wait until it is finished.")
@patience_option
@json_option
@click.pass_context
def replay_command(
    context: click.Context,
    /,
    url: str | None,
    key: str | None,
    ids: tuple[int, ...],
    everything: bool,
    preview: bool,
    rate: float | None,
    wait: bool,
    patience: float,
    as_json: bool,
    **filters: str | None,
) -> None:
    """Send dead letters again, by id or by filter. None is replayed twice."""

    async def work() -> int:
        chosen = _choose(ids, everything, filters)
        if preview:
            async with open_api(url, key) as api:
                answer = await api.ask("POST", f"{_PATH}/replay", chosen | {"preview": True})
            _print_clusters(answer, as_json)
            return 0

        async def ask(api: ApiClient) -> bytes:
            pace = {} if rate is None else {"rate": rate}
            return await api.ask("POST", f"{_PATH}/replay", chosen | pace)

        return await send_again(url, key, ask, wait=wait, patience=patience, as_json=as_json, again="replay")

    context.exit(run_command("dead-letters replay", work, as_json=as_json))


@dead_letters_group.command("drop")
@connection_options
@_choice_options
@click.option("--reason", required=True, help="Why; the audit log keeps it.")
@json_option
@click.pass_context
def drop_command(
    context: click.Context,
    /,
    url: str | None,
    key: str | None,
    ids: tuple[int, ...],
    everything: bool,
    reason: str,
    as_json: bool,
    **filters: str | None,
) -> None:
    """Drop dead letters that are not worth sending. Their history remains."""

    async def work() -> int:
        chosen = _choose(ids, everything, filters)
        async with open_api(url, key) as api:
            body = await api.ask("POST", f"{_PATH}/drop", chosen | {"reason": reason})
        _print_decision(body, "dropped", as_json)
        return 0

    context.exit(run_command("dead-letters drop", work, as_json=as_json))


@dead_letters_group.command("settle")
@click.argument("ids", nargs=-1, required=True, type=click.IntRange(min=1))
@connection_options
@click.option("--reason", required=True, help="How you know; the audit log keeps it.")
@json_option
@click.pass_context
def settle_command(
    context: click.Context,
    /,
    ids: tuple[int, ...],
    url: str | None,
    key: str | None,
    reason: str,
    as_json: bool,
) -> None:
    """Confirm that items with OUTCOME_UNKNOWN have arrived."""

    async def work() -> int:
        async with open_api(url, key) as api:
            body = await api.ask("POST", f"{_PATH}/settle", {"ids": ids, "reason": reason})
        _print_decision(body, "settled", as_json)
        return 0

    context.exit(run_command("dead-letters settle", work, as_json=as_json))


def _print_decision(body: bytes, word: str, as_json: bool) -> None:
    if as_json:
        print(body.decode())
        return
    decision = msgspec.json.decode(body, type=_Decision)
    print(f"{counted(decision.decided, 'dead letter')} {word}")
    if decision.remaining:
        print(f"{decision.remaining:,} are left: ask again")
    for line in tell_skipped(decision.skipped):
        print(line)
