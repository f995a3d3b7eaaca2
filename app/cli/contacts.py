"""`tranche contacts show | history`: the state of a contact, and everything that ever happened to it."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec
import rich_click as click
from rich.table import Column, Table
from rich.text import Text

from app.cli.api_command import api_command
from app.cli.client.api_client import ApiClient
from app.cli.client.connection import json_option, lines_option, print_rows, print_table
from app.cli.client.progress import clean


@click.group("contacts")
def contacts_group() -> None:
    """Single contacts: their state at each destination, and their history."""


@api_command("contacts show", contacts_group)
@click.argument("contact")
@json_option
async def show(api: ApiClient, contact: str, as_json: bool) -> None:
    """A contact, and its state at every destination."""
    body = await api.ask("GET", _path(contact))
    if as_json:
        print(body.decode())
        return
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


def _spread(name: str, value: object) -> list[tuple[str, str]]:
    """A destination has a line of its own."""
    if name == "destinations" and isinstance(value, dict):
        return [
            (f"at {place}", ", ".join(f"{k} {v}" for k, v in state.items())) for place, state in value.items()
        ]
    shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return [(name, shown)]


@api_command("contacts history", contacts_group)
@click.argument("contact")
@click.option(
    "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Most versions to show."
)
@lines_option
async def history(api: ApiClient, contact: str, limit: int, as_json: bool) -> None:
    """Every version of a contact, newest first: what changed, when, by which job and whose key."""
    job = Column("job", no_wrap=True, min_width=36)
    table = Table("version", "when", "kind", job, "item", "key", "what", box=None)
    versions = api.list(f"{_path(contact)}/history", "versions")
    await print_rows(versions, limit, table, _describe, as_json=as_json)


def _path(contact: str) -> str:
    return f"/v1/contacts/{quote(contact, safe='')}"


def _describe(version: dict[str, Any]) -> list[Text]:
    names = ("version", "changed_at", "kind", "job_id", "item_index", "key_id")
    what = _describe_change(version)
    if version.get("undone_by"):
        what += f" (undone by job {version['undone_by']})"
    return [Text(clean(str(cell))) for cell in (*(version.get(name, "") for name in names), what)]


def _describe_change(version: dict[str, Any]) -> str:
    before, after = version.get("before"), version.get("after")
    if after is None:
        return "removed: its creation was undone"
    if before is None:
        return "created"
    changed = [name for name in after if after[name] != before.get(name)]
    return "changed " + ", ".join(changed) if changed else "unchanged"
