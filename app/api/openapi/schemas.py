"""JSON Schemas of everything that goes over the wire, made from the structs and completed where those fall short."""

from __future__ import annotations

import linecache
import re
import sys
from collections.abc import Iterable
from typing import Any, Final

import msgspec
import msgspec.inspect

TEMPLATE: Final = "#/components/schemas/{name}"


def ref(name: str) -> dict[str, str]:
    return {"$ref": TEMPLATE.format(name=name)}


def make_schemas(types: Iterable[Any]) -> dict[str, Any]:
    """The schemas of `types` and of all that they are made of, by name; docstrings become descriptions."""
    types = tuple(types)
    _, schemas = msgspec.json.schema_components(types, ref_template=TEMPLATE)
    for name, struct in _find_structs(types).items():
        for field, text in _read_field_texts(struct).items():
            schemas[name]["properties"][field].setdefault("description", text)
    for schema in schemas.values():
        schema.pop("title", None)
        if "description" in schema:
            schema["description"] = _join(schema["description"])
        _complete_arrays(schema)
    return dict(sorted(schemas.items()))


def _find_structs(types: Iterable[Any]) -> dict[str, type]:
    """Every struct in `types`, by name."""
    found: dict[str, type] = {}
    waiting: list[Any] = [*msgspec.inspect.multi_type_info(types)]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list | tuple):
            waiting += one
        elif isinstance(one, msgspec.inspect.Field):
            waiting.append(one.type)
        elif isinstance(one, msgspec.inspect.Type):
            if isinstance(one, msgspec.inspect.StructType):
                if one.cls.__name__ in found:
                    continue
                found[one.cls.__name__] = one.cls
            waiting += msgspec.structs.astuple(one)
    return found


_CLASS: Final = r"^class {name}\b.*?(?=^[^\s)]|\Z)"
_FIELD: Final = re.compile(
    r'^    (\w+): [^\n]*(?:\n(?:     +[^\n]*|    [\])}][^\n]*))*\n    """(.*?)"""', re.MULTILINE | re.DOTALL
)


def _read_field_texts(struct: type) -> dict[str, str]:
    """The docstrings of a struct's attributes, by the names that they have on the wire.

    Python keeps none of them, so they are read from the source. Not with `ast`: on Python 3.11 it fails if another
    thread uses it (CPython issue 106905).
    """
    texts: dict[str, str] = {}
    for base in reversed(struct.__mro__):
        if issubclass(base, msgspec.Struct) and base is not msgspec.Struct:
            source = "".join(linecache.getlines(sys.modules[base.__module__].__file__ or ""))
            found = re.search(_CLASS.format(name=base.__name__), source, re.MULTILINE | re.DOTALL)
            texts |= {name: _join(text) for name, text in _FIELD.findall(found[0] if found else "")}
    names = {field.name: field.encode_name for field in msgspec.structs.fields(struct)}
    return {names[name]: text for name, text in texts.items() if name in names}


def _join(text: str) -> str:
    return " ".join(text.split())


def _complete_arrays(schema: Any) -> None:
    """`list[Any]` becomes `{"type": "array"}`; some generators drop every schema that has such an array."""
    if isinstance(schema, dict):
        if schema.get("type") == "array":
            schema.setdefault("items", {})
        for member in schema.values():
            _complete_arrays(member)
    elif isinstance(schema, list):
        for member in schema:
            _complete_arrays(member)
