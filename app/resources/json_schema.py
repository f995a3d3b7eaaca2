"""A tenant's own type: a JSON Schema (2020-12) of a few keywords → a `Resource`, and what a later one may change.

An item needs no more than that says: nothing is referred to, nothing depends on something else, and every pattern takes
time in proportion to the text (`app.resources.formats`).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from app.resources import formats
from app.resources.declaration import ID, MAX_INT, NUMERIC, Field, Kind, Resource
from app.resources.rules import check_field, pointer, quote

MOST_FIELDS: Final = 200
MOST_CHOICES: Final = 1_000
MOST_VALUES: Final = 1_000
"""Of a list."""
_LONGEST: Final = 100_000
"""Characters of a text; an item is limited in bytes anyway."""
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
TYPE_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_RESERVED: Final = frozenset(
    "id attributes deleted if_version source_version version type job_id created_at updated_at destinations".split()
)
_NOTES: Final = frozenset({"title", "description", "examples", "default", "$comment"})
_TOP: Final = _NOTES | {"$schema", "$id", "type", "properties", "required", "additionalProperties"}
_FORMATS: Final = {kind.value: kind for kind in Kind if kind not in NUMERIC | {Kind.TEXT, Kind.BOOLEAN}}
_KEYWORDS: Final = {
    "string": {"minLength", "maxLength", "pattern", "format", "enum"},
    "integer": {"minimum", "maximum", "enum"},
    "number": {"minimum", "maximum", "enum"},
    "boolean": set[str](),
    "array": {"items", "maxItems"},
}
_PLAIN_KINDS: Final = {"integer": Kind.INTEGER, "number": Kind.NUMBER, "boolean": Kind.BOOLEAN}


class SchemaError(ValueError):
    """A definition cannot be used; `detail` names the place, as a JSON pointer, and the remedy."""

    def __init__(self, place: str, detail: str) -> None:
        super().__init__(f"{place}: {detail}")
        self.detail = f"{place}: {detail}"


class Definition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A type as its tenant declares it. Of a type of the product it has what the tenant adds to it."""

    name: str | UnsetType = UNSET
    """As in the path, if it is given at all."""
    singular: str = ""
    schema: dict[str, Any]
    aliases: dict[str, list[str]] = {}
    """By field: what columns of files call it."""
    attributes: bool = True
    destinations: dict[str, dict[str, Any]] = {}
    """By name of a destination, its options for this type. If there are any, records go nowhere else unless a
    destination lists the type in its `types`."""


def compile_type(
    name: str, definition: Definition, *, type_id: int, version: int, base: Resource | None = None, stored: bool = False
) -> Resource:
    """`base`: the type of the product that the definition adds to. `stored`: the definition was accepted before, maybe
    by an earlier release; a field that the product has by now is the product's.
    Raises `SchemaError`: it cannot be used."""
    own = tuple(_read_fields(definition))
    if base is not None:
        if not definition.attributes or definition.singular not in ("", base.singular):
            raise SchemaError(
                "", f"{name} is a type of the product: only fields, aliases and destinations can be added"
            )
        taken = set(base.names)
        if stored:
            own = tuple(field for field in own if field.name not in taken)
        for field in own:
            if field.name in taken:
                raise SchemaError(pointer("schema", "properties", field.name), f"{name} has this field already")
            if field.required:
                raise SchemaError("/schema/required", f"{field.name} is added to {name}, so it must be optional")
    fields = (*(base.fields if base else ()), *own)
    fields = tuple(replace(f, headers=_join(f, definition.aliases.get(f.name, ()))) for f in fields)
    for alias in definition.aliases:
        if alias != "id" and alias not in {field.name for field in fields}:
            raise SchemaError(pointer("aliases", alias), "there is no such field")
    identity = base.id if base else replace(ID, headers="id, external id, key")
    return Resource(
        type_id=type_id,
        name=name,
        singular=base.singular if base else definition.singular or "record",
        id=replace(identity, headers=_join(identity, definition.aliases.get("id", ()))),
        fields=fields,
        attributes=definition.attributes,
        objects=base.objects if base else {},
        destinations=definition.destinations,
        example=base.example if base else {"id": "1"},
        version=version,
    )


def _join(field: Field, aliases: list[str] | tuple[str, ...]) -> str:
    known = field.headers or field.name.replace("_", " ").replace("-", " ")
    return ", ".join((known, *(alias.lower() for alias in aliases)))


def _read_fields(definition: Definition) -> Iterator[Field]:
    schema = definition.schema
    _check_keywords(schema, _TOP, "/schema")
    if schema.get("type", "object") != "object":
        raise SchemaError("/schema/type", "an item is an object: it must be object")
    if schema.get("additionalProperties", False) is not False:
        raise SchemaError("/schema/additionalProperties", "must be false; own data of records belongs in attributes")
    properties, required = schema.get("properties", {}), schema.get("required", [])
    if not isinstance(properties, dict):
        raise SchemaError("/schema/properties", "must be an object")
    if len(properties) > MOST_FIELDS:
        raise SchemaError("/schema/properties", f"has {len(properties)} fields; at most {MOST_FIELDS} are allowed")
    if not isinstance(required, list):
        raise SchemaError("/schema/required", "must be an array of names")
    for name in required:
        if name != "id" and name not in properties:
            raise SchemaError("/schema/required", f"{quote(str(name))} is no property")
    for name, one in properties.items():
        if name != "id" or one not in ({}, {"type": "string"}):  # which is implied
            yield replace(_read_named(name, one), required=name in required)


def _read_named(name: str, schema: Any) -> Field:
    place = pointer("schema", "properties", name)
    if name in _RESERVED:
        raise SchemaError(place, "the name has another use; choose another one")
    if not _NAME.fullmatch(name):
        raise SchemaError(place, "a name is up to 63 of a-z, A-Z, 0-9, _ and -, and begins with one of a-z and A-Z")
    if not isinstance(schema, dict):
        raise SchemaError(place, 'must be an object like {"type": "string"}')
    return _read_field(name, schema, place)


def _read_field(name: str, schema: Mapping[str, Any], place: str) -> Field:
    kind = schema.get("type", _type_of(schema.get("enum")))
    if not isinstance(kind, str) or kind not in _KEYWORDS:
        hint = " (null clears any field that is not required; it is no type)" if isinstance(kind, list) else ""
        raise SchemaError(f"{place}/type", f"must be one of {', '.join(_KEYWORDS)}{hint}")
    _check_keywords(schema, _NOTES | {"type"} | _KEYWORDS[kind], place)
    if kind == "array":
        inner = schema.get("items", {})
        if not isinstance(inner, dict) or inner.get("type") == "array":
            raise SchemaError(f"{place}/items", "must be the schema of a string, number, integer or boolean")
        most = _whole(schema, "maxItems", place, MOST_VALUES)
        return replace(_read_field(name, inner, f"{place}/items"), many=MOST_VALUES if most is None else most)
    if kind != "string":
        field = Field(
            name=name,
            kind=_PLAIN_KINDS[kind],
            least=_number(schema, "minimum", place),
            most=_number(schema, "maximum", place),
        )
        if field.least is not None and field.most is not None and field.least > field.most:
            raise SchemaError(f"{place}/maximum", "is below the minimum")
        return replace(field, choices=_choices(field, schema, place))
    field = Field(
        name=name,
        kind=_format(schema, place),
        shortest=_whole(schema, "minLength", place, _LONGEST) or 0,
        longest=_whole(schema, "maxLength", place, _LONGEST),
        pattern=_pattern(schema, place),
    )
    if field.longest is not None and field.shortest > field.longest:
        raise SchemaError(f"{place}/maxLength", "is below minLength")
    return replace(field, choices=_choices(field, schema, place))


def _type_of(choices: Any) -> Any:
    first = choices[0] if isinstance(choices, list) and choices else None
    return {str: "string", int: "integer", float: "number"}.get(type(first))


def _check_keywords(schema: Mapping[str, Any], known: set[str] | frozenset[str], place: str) -> None:
    for keyword in schema:
        if keyword not in known:
            there = ", ".join(sorted(known - _NOTES))
            raise SchemaError(f"{place}{pointer(keyword)}", f"this keyword is not supported here; there are {there}")


def _whole(schema: Mapping[str, Any], keyword: str, place: str, most: int) -> int | None:
    value = schema.get(keyword)
    if value is None and keyword not in schema:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise SchemaError(f"{place}/{keyword}", f"must be a whole number from 0 to {most}")
    return value


def _number(schema: Mapping[str, Any], keyword: str, place: str) -> float | None:
    value = schema.get(keyword)
    if value is None and keyword not in schema:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not -MAX_INT <= value <= MAX_INT:
        raise SchemaError(f"{place}/{keyword}", "must be a number within ±(2^63-1)")
    return value


def _format(schema: Mapping[str, Any], place: str) -> Kind:
    form = schema.get("format")
    if form is not None and form not in _FORMATS:
        raise SchemaError(f"{place}/format", f"must be one of {', '.join(_FORMATS)}")
    return _FORMATS[form] if form is not None else Kind.TEXT


def _pattern(schema: Mapping[str, Any], place: str) -> str | None:
    pattern = schema.get("pattern")
    if pattern is None:
        return None
    try:
        formats.compile_pattern(pattern)
    except (ValueError, TypeError) as error:
        raise SchemaError(
            f"{place}/pattern", f"is not a pattern of RE2, which has no look-around and no back-references: {error}"
        ) from error
    return str(pattern)


def _choices(field: Field, schema: Mapping[str, Any], place: str) -> tuple[Any, ...]:
    choices = schema.get("enum", [])
    if not isinstance(choices, list) or ("enum" in schema and not 0 < len(choices) <= MOST_CHOICES):
        raise SchemaError(f"{place}/enum", f"must be an array of 1 to {MOST_CHOICES} values")
    for choice in choices:
        if fault := next(check_field(field, choice), None):
            raise SchemaError(f"{place}/enum", fault.detail)
    return tuple(choices)


def find_tightening(before: Resource, after: Resource) -> tuple[str, str] | None:
    """A change that could make stored records invalid: the field (or `attributes`), and the change in words; None:
    every record that was sound before is so afterwards."""
    found = {field.name: field for field in after.fields}
    if before.attributes and not after.attributes:
        return "attributes", "cannot be taken away"
    for old in before.fields:
        new = found.pop(old.name, None)
        if new is None:
            return old.name, "cannot be removed"
        if change := _tightened(old, new):
            return old.name, change
    for field in found.values():
        if field.required:
            return field.name, "is new, so it cannot be required"
    return None


_WIDER: Final = {Kind.INTEGER: {Kind.NUMBER}} | {kind: {Kind.TEXT} for kind in _FORMATS.values()}


def _tightened(old: Field, new: Field) -> str | None:
    if new.kind is not old.kind and new.kind not in _WIDER.get(old.kind, ()):
        return f"cannot become {new.kind} where it was {old.kind}"
    if (old.many is None) != (new.many is None):
        return "cannot become a list, or none"
    if new.required and not old.required:
        return "cannot become required"
    if old.many is not None and new.many is not None and new.many < old.many:
        return "cannot have fewer values (maxItems)"
    if old.kind not in NUMERIC and old.kind is not Kind.BOOLEAN:
        if new.shortest > old.shortest:
            return "cannot have a longer minLength"
        if new.limit < old.limit:
            return "cannot have a shorter maxLength"
    if new.pattern and new.pattern != old.pattern:
        return "cannot have another pattern"
    if new.least is not None and (old.least is None or new.least > old.least):
        return "cannot have a higher minimum"
    if new.most is not None and (old.most is None or new.most < old.most):
        return "cannot have a lower maximum"
    if new.choices and (not old.choices or not set(old.choices) <= set(new.choices)):
        return "cannot have fewer values (enum)"
    return None
