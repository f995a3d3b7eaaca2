"""`tranche contacts show | history`: the state of a contact, and everything that ever happened to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import msgspec
import rich_click as click

from app.cli.api_command import api_command, limit_option
from app.cli.client.api_client import ApiClient
from app.cli.output import print_fields, print_rows


@click.group("contacts")
def contacts_group() -> None:
    """Single contacts: their state at each destination, and their history."""


@api_command("contacts show", contacts_group)
@click.argument("contact")
async def show(api: ApiClient, contact: str, as_json: bool) -> None:
    """A contact, and its state at every destination."""
    body = await api.ask("GET", _path(contact))
    if as_json:
        print(body.decode())
    else:
        print_fields(_fields(msgspec.json.decode(body)))


def _fields(contact: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """A destination has a line of its own."""
    for name, value in contact.items():
        if name == "destinations":
            for destination, state in value.items():
                yield f"at {destination}", ", ".join(f"{k} {v}" for k, v in state.items())
        elif value not in (None, {}):
            yield name, value if isinstance(value, str) else msgspec.json.encode(value).decode()


@api_command("contacts history", contacts_group, rows=True)
@click.argument("contact")
@limit_option(20)
async def history(api: ApiClient, contact: str, limit: int, as_json: bool) -> None:
    """Every version of a contact, newest first: what changed, when, by which job and whose key."""
    columns = ("version", "when", "kind", "job", "item", "key", "what")
    versions = api.list(f"{_path(contact)}/history", "versions")
    await print_rows(versions, limit, columns, _describe, as_json=as_json, whole="job")


def _path(contact: str) -> str:
    return f"/v1/contacts/{quote(contact, safe='')}"


def _describe(version: dict[str, Any]) -> list[object]:
    names = ("version", "changed_at", "kind", "job_id", "item_index", "key_id")
    what = _describe_change(version)
    if version.get("undone_by"):
        what += f" (undone by job {version['undone_by']})"
    return [*map(version.get, names), what]


def _describe_change(version: dict[str, Any]) -> str:
    before, after = version.get("before"), version.get("after")
    if after is None:
        return "removed: its creation was undone"
    if before is None:
        return "created"
    changed = [name for name in after if after[name] != before.get(name)]
    return "changed " + ", ".join(changed) if changed else "unchanged"
