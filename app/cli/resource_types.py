"""`tranche resource-types list | show | apply`: the types of record that the tenant may import."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import rich_click as click

from app.cli.client.api_client import ApiClient
from app.cli.client.errors import UsageError
from app.cli.command import api_command
from app.cli.output import show_fields, show_table
from app.cli.records import declared_part
from app.resources.json_schema import TYPE_NAME


@click.group("resource-types")
def resource_types_group() -> None:
    """The types of record that the tenant may import."""


@api_command(resource_types_group, "list")
async def list_(api: ApiClient) -> None:
    """All of them, by name."""
    document = msgspec.json.decode(await api.ask("GET", "/v1/resource-types"))
    rows = [
        (t["name"], "built-in" if t["built_in"] else "own", t["version"], ", ".join(t["fields"]))
        for t in document["resource_types"]
    ]
    show_table(document, ("name", "kind", "version", "fields"), rows)


@api_command(resource_types_group, "show")
@click.argument("name")
async def show(api: ApiClient, name: str) -> None:
    """One type, with its fields."""
    _print(await api.ask("GET", f"/v1/resource-types/{name}"))


@api_command(resource_types_group, "apply")
@click.argument("file")
@click.option("--name", help="Of the type.  [default: `name` in the file]")
async def apply(api: ApiClient, file: str, name: str | None) -> None:
    """Declare the type of FILE, a JSON document with its `schema`, or change it."""
    definition = _read(file)
    name = name or (definition.get("name") if isinstance(definition, dict) else None)
    if not isinstance(name, str) or not TYPE_NAME.fullmatch(name):
        raise UsageError(f"{file}: name the type, with --name or as `name` in the file: a-z, 0-9, - and _")
    if "built_in" in definition:  # what `show --json` prints
        definition = declared_part(definition)
    _print(await api.ask("PUT", f"/v1/resource-types/{name}", {**definition, "name": name}))


def _read(file: str) -> Any:
    try:
        return msgspec.json.decode(Path(file).read_bytes())
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"{file} is not valid JSON: {error}") from error


def _print(body: bytes) -> None:
    show_fields(body, _fields(msgspec.json.decode(body)))


def _fields(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    # As they were declared, where the tenant declared them.
    fields = found.pop("fields") | found.pop("schema").get("properties", {})
    required = set(found.pop("required"))
    yield from ((k, v if isinstance(v, str) else msgspec.json.encode(v).decode()) for k, v in found.items() if v != {})
    for name, schema in fields.items():
        words = msgspec.json.encode(schema).decode()
        yield f"field {name}", f"required {words}" if name in required else words
