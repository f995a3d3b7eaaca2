"""`tranche contacts show | history`: a contact as it stands, and everything that ever happened to it."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec
import rich_click as click
from rich.table import Column, Table
from rich.text import Text

from app.cli.client.connection import (
    connection_options,
    json_option,
    lines_option,
    open_api,
    print_rows,
    print_table,
    run_command,
)
from app.cli.client.progress import clean


@click.group("contacts")
def contacts_group() -> None:
    """Single contacts: their state at each destination, and their history."""


@contacts_group.command("show")
@click.argument("contact")
@connection_options
@json_option
@click.pass_context
def show_command(
    context: click.Context, /, contact: str, url: str | None, key: str | None, as_json: bool
) -> None:
    """A contact, and its state at every destination."""

    async def work() -> int:
        async with open_api(url, key) as api:
            body = (await api.get(_path(contact))).body
        if as_json:
            print(body.decode())
            return 0
        found: dict[str, Any] = msgspec.json.decode(body)
        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column()
        for name, value in found.items():
            if value in (None, {}):
                continue
            for label, cell in _spread(name, value):
                table.add_row(Text(clean(label)), Text(clean(cell)))
        print_table(table)
        return 0

    context.exit(run_command("contacts show", work, as_json=as_json))


def _spread(name: str, value: object) -> list[tuple[str, str]]:
    """A destination has a line of its own."""
    if name == "destinations" and isinstance(value, dict):
        return [
            (f"at {place}", ", ".join(f"{k} {v}" for k, v in state.items())) for place, state in value.items()
        ]
    shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return [(name, shown)]


@contacts_group.command("history")
@click.argument("contact")
@connection_options
@click.option(
    "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Most versions to show."
)
@lines_option
@click.pass_context
def history_command(
    context: click.Context,
    /,
    contact: str,
    url: str | None,
    key: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Every version of a contact, newest first: what changed, when, by which job and whose key."""

    async def work() -> int:
        job = Column("job", no_wrap=True, min_width=36)
        table = Table("version", "when", "kind", job, "item", "key", "what", box=None)
        async with open_api(url, key) as api:
            await print_rows(
                api.list(f"{_path(contact)}/history", "versions"), limit, table, _describe, as_json=as_json
            )
        return 0

    context.exit(run_command("contacts history", work, as_json=as_json))


def _path(contact: str) -> str:
    return f"/v1/contacts/{quote(contact, safe='')}"


def _describe(version: dict[str, Any]) -> list[Text]:
    names = ("version", "changed_at", "kind", "job_id", "item_index", "key_id")
    what = _tell_change(version)
    if version.get("undone_by"):
        what += f" (undone by job {version['undone_by']})"
    return [Text(clean(str(cell))) for cell in (*(version.get(name, "") for name in names), what)]


def _tell_change(version: dict[str, Any]) -> str:
    before, after = version.get("before"), version.get("after")
    if after is None:
        return "removed: its creation was undone"
    if before is None:
        return "created"
    changed = [name for name in after if after[name] != before.get(name)]
    return "changed " + ", ".join(changed) if changed else "unchanged"
