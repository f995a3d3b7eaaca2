"""Declaring types: what a tenant may add, and what a later declaration may change."""

from typing import Any, Final

import msgspec

from app.audit.queries import write_audit
from app.destinations import kinds
from app.destinations.options import MATCHABLE, OptionsError
from app.destinations.service import find_kinds
from app.errors import Conflict, Invalid
from app.files.csv_headers import list_names
from app.kit.postgres.database import Connection
from app.resource_types import queries
from app.resource_types.catalog import Catalog
from app.resources.declaration import Resource
from app.resources.json_schema import TYPE_NAME, Definition, SchemaError, compile_type, find_tightening
from app.resources.rules import pointer
from app.resources.types import BUILT_IN, FIRST_OWN

MOST_TYPES: Final = 100
RESERVED: Final = frozenset(
    "audit-log dead-letters destinations idempotency-keys jobs keys records resource-types tenants version "
    "webhook-endpoints".split()
)
"""Names that paths of the API begin with."""


class ResourceType(msgspec.Struct, frozen=True, kw_only=True):
    """A type of record, as it is declared or built in."""

    name: str
    singular: str
    built_in: bool
    version: int
    """Of the declaration; 0: the tenant has declared nothing of it."""
    schema: dict[str, Any]
    """JSON Schema (2020-12) of an item's fields; of a built-in type those that the tenant added."""
    fields: dict[str, dict[str, Any]]
    """JSON Schema of every field, by name."""
    required: list[str]
    aliases: dict[str, list[str]]
    headers: dict[str, list[str]]
    """By field: what columns of files may call it, aliases included, in any case; accents and signs do not count. A
    column of such a name is what the field is filled from, but `id` and, of contacts, `email` have to be said
    (`map=`)."""
    attributes: bool
    destinations: dict[str, dict[str, Any]]


def describe(resource: Resource, declared: Definition | None) -> ResourceType:
    return ResourceType(
        name=resource.name,
        singular=resource.singular,
        built_in=resource.type_id < FIRST_OWN,
        version=resource.version,
        schema={"type": "object", "properties": {}} if declared is None else declared.schema,
        fields={field.name: msgspec.json.schema(field.type) for field in resource.fields},
        required=list(resource.required),
        aliases={} if declared is None else declared.aliases,
        headers={field.name: list(list_names(field)) for field in (resource.id, *resource.fields)},
        attributes=resource.attributes,
        destinations={name: dict(options) for name, options in resource.destinations.items()},
    )


async def list_types(connection: Connection, tenant_id: int, catalog: Catalog) -> list[ResourceType]:
    rows = await queries.list_types(connection, tenant_id)
    declared = {row.name: row.definition for row in rows}
    types = catalog.compiled(tenant_id, rows)
    return [describe(types[name], declared.get(name)) for name in sorted(types)]


async def read_type(connection: Connection, tenant_id: int, name: str, catalog: Catalog) -> ResourceType:
    """Raises `NotFound`: there is no such type."""
    resource = await catalog.find(connection, tenant_id, name)
    row = await queries.find_type(connection, tenant_id, name, None, 0)
    return describe(resource, None if row is None else row.definition)


async def declare_type(
    connection: Connection, tenant_id: int, name: str, definition: Definition, *, actor: str
) -> tuple[ResourceType, bool]:
    """Declare a type, or change it, or add fields to one of the product; and whether it is new.

    Raises:
        Invalid: the name or the definition cannot be used.
        Conflict: the change could make stored records invalid, or there are too many types.
    """
    if not TYPE_NAME.fullmatch(name) or name in RESERVED:
        raise Invalid(
            f"{name!r} is not a valid name of a type: use a-z, 0-9, '-' and '_', begin with one of a-z, and "
            f"choose none of {', '.join(sorted(RESERVED))}."
        )
    if definition.name not in (msgspec.UNSET, name):
        raise Invalid(f"/name: the path says {name!r} and the definition {definition.name!r}; say the same.")
    base = BUILT_IN.get(name)
    async with connection.transaction():
        await queries.lock(connection, tenant_id)
        declared = {row.name: row for row in await queries.list_types(connection, tenant_id)}
        row = declared.get(name)
        await _check_destinations(connection, tenant_id, definition, base)
        used = [one.type_id for one in declared.values() if one.type_id >= FIRST_OWN]
        type_id = row.type_id if row else base.type_id if base else max(used, default=FIRST_OWN - 1) + 1
        repeated = row is not None and row.definition == definition
        version = row.version + (not repeated) if row else 1
        try:
            after = compile_type(name, definition, type_id=type_id, version=version, base=base)
        except SchemaError as error:
            raise Invalid(f"{error.detail}.") from error
        _check_match(definition, after)
        before = base
        if row is not None:
            if repeated:
                return describe(after, definition), False
            before = compile_type(name, row.definition, type_id=type_id, version=row.version, base=base, stored=True)
        elif base is None and len(used) >= MOST_TYPES:
            raise Conflict(f"There are {len(used)} types, and a tenant may declare {MOST_TYPES}.")
        if before is not None and (change := find_tightening(before, after)) is not None:
            raise Conflict(
                f"{change[0]} {change[1]}: stored {name} may no longer be valid then. Add an optional field under "
                "another name, loosen the rule instead, or declare a new type and import the records into that."
            )
        await queries.declare(connection, tenant_id, type_id, name, definition)
        noted = {"version": version, "fields": len(after.fields)}
        await write_audit(connection, tenant_id, actor, "resource_type.declare", f"resource_type:{name}", noted)
    return describe(after, definition), row is None


def _check_match(definition: Definition, resource: Resource) -> None:
    """The fields by which destinations look for records are fields of the type."""
    for name, options in definition.destinations.items():
        if not isinstance(field := options.get("match_on"), str):
            continue
        texts = [one.name for one in resource.fields if one.many is None and one.kind in MATCHABLE]
        if field not in texts:
            place, known = pointer("destinations", name), ", ".join(texts) or "none"
            raise Invalid(f"{place}: options.match_on: there is no text {field!r} to look for; there are: {known}.")


async def _check_destinations(
    connection: Connection, tenant_id: int, definition: Definition, base: Resource | None
) -> None:
    """A destination that does not exist yet is taken for one that any type can go to."""
    kind_of = await find_kinds(connection, tenant_id, definition.destinations)
    for name, options in definition.destinations.items():
        kind, place = kind_of.get(name, "http"), pointer("destinations", name)
        if not kinds.has_place(kind, base):
            raise Invalid(f"{place}: {name} is a {kind}, which has no place for records of this type.")
        try:
            kinds.parse(kind, options)
        except OptionsError as error:
            raise Invalid(f"{place}: {error}") from error
