"""`tranche records list | show | history | export | erase`: records, and everything that ever happened to them."""

import sys
from collections.abc import Iterator
from typing import Any, TextIO
from urllib.parse import quote

import msgspec
import rich_click as click

from app.cli.client.api_client import ApiClient
from app.cli.client.connection import open_api
from app.cli.command import api_command, limit_option
from app.cli.output import show_fields, show_rows
from app.resources.declaration import Resource
from app.resources.json_schema import Definition, compile_type
from app.resources.types import BUILT_IN, FIRST_OWN

type_option = click.option("--type", default="contacts", show_default=True, help="Of the records, such as companies.")


async def find_type(name: str, url: str | None, key: str | None) -> Resource:
    """A built-in type is known here; another one is asked for.

    Raises:
        ClientError: the server does not know it.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    async with open_api(url, key) as api:
        shown = msgspec.json.decode(await api.ask("GET", f"/v1/resource-types/{quote(name, safe='')}"))
    return compile_type(name, msgspec.convert(declared_part(shown), Definition), type_id=FIRST_OWN, version=1)


def declared_part(shown: dict[str, Any]) -> dict[str, Any]:
    """A type as it was declared, of what the API and `resource-types show --json` say about it."""
    return {key: value for key, value in shown.items() if key in Definition.__struct_fields__}


@click.group("records")
def records_group() -> None:
    """Records: lists of them, their state at each destination, and their history."""


@api_command(records_group, "list", rows=True)
@type_option
@click.option("--updated-since", metavar="TIME", help="Only records that changed since, like 2026-03-31T12:00:00Z.")
@click.option("--email", metavar="ADDRESS", help="Only records with this e-mail address.")
@click.option("--domain", help="Only records with this domain.")
@limit_option(100)
async def list_(api: ApiClient, type: str, limit: int, **filters: str | None) -> None:
    """Records as they are now."""
    params = {name: value for name, value in filters.items() if value}
    columns = ("id", "version", "updated", "record")
    await show_rows(api.list(f"/v1/{type}", "records", params), limit, columns, _describe_record, whole="record")


def _describe_record(record: dict[str, Any]) -> list[object]:
    facts = ("id", "version", "source_version", "job_id", "created_at", "updated_at")
    rest = {name: value for name, value in record.items() if name not in facts and value not in (None, {})}
    return [record["id"], record["version"], record["updated_at"], msgspec.json.encode(rest).decode()]


@api_command(records_group, "export")
@type_option
@click.option("--csv", "as_csv", is_flag=True, help="CSV; else one JSON object a line.")
async def export(api: ApiClient, type: str, as_csv: bool) -> None:
    """All records of a type as of one moment, to standard output."""
    media_type = "text/csv" if as_csv else "application/x-ndjson"
    await api.save(f"/v1/{type}:export", params={}, media_type=media_type, out=sys.stdout.buffer)


@api_command(records_group, "show")
@click.argument("record")
@type_option
async def show(api: ApiClient, record: str, type: str) -> None:
    """A record, and its state at every destination."""
    body = await api.ask("GET", _path(type, record))
    show_fields(body, _fields(msgspec.json.decode(body)))


def _fields(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """A destination has a line of its own."""
    for name, value in record.items():
        if name == "destinations":
            for destination, state in value.items():
                yield f"at {destination}", ", ".join(f"{k} {v}" for k, v in state.items())
        elif value not in (None, {}):
            yield name, value if isinstance(value, str) else msgspec.json.encode(value).decode()


@api_command(records_group, "history", rows=True)
@click.argument("record")
@type_option
@limit_option(20)
async def history(api: ApiClient, record: str, type: str, limit: int) -> None:
    """Every version of a record, newest first: what changed, when, by which job and whose key."""
    columns = ("version", "when", "kind", "job", "item", "key", "what")
    versions = api.list(f"{_path(type, record)}/history", "versions")
    await show_rows(versions, limit, columns, _describe, whole="job")


@api_command(records_group, "erase")
@click.argument("ids", nargs=-1)
@type_option
@click.option(
    "--file", "source", type=click.File(encoding="utf-8"), help="A file with an id a line; - is standard input."
)
@click.option("--reason", required=True, help="For the audit log; without personal data.")
async def erase(api: ApiClient, ids: tuple[str, ...], type: str, source: TextIO | None, reason: str) -> None:
    """Erase records: whatever is known of them, here and at the destinations. It cannot be undone."""
    lines = [] if source is None else source.read().splitlines()
    body = await api.ask("POST", f"/v1/{type}:erase", body={"ids": [*ids, *filter(None, lines)], "reason": reason})
    show_fields(body, {"job": msgspec.json.decode(body)["job_id"]}.items())


def _path(type: str, record: str) -> str:
    return f"/v1/{type}/{quote(record, safe='')}"


def _describe(version: dict[str, Any]) -> list[object]:
    names = ("version", "changed_at", "kind", "job_id", "item_index", "key_id")
    what = _describe_change(version)
    if version.get("undone_by"):
        what += f" (undone by job {version['undone_by']})"
    return [*map(version.get, names), what]


def _describe_change(version: dict[str, Any]) -> str:
    before, after = version.get("before"), version.get("after")
    if after is None:
        return "removed: its creation was undone" if version.get("kind") == "undo" else "removed"
    if before is None:
        return "created" if version.get("before_kept", True) else "changed; the version before is no longer kept"
    changed = [name for name in after if after[name] != before.get(name)]
    return "changed " + ", ".join(changed) if changed else "unchanged"
