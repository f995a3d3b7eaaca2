"""JSON Schemas of everything that goes over the wire, made from the structs and completed where those fall short."""

from collections.abc import Iterable
from typing import Any, Final

import msgspec
import msgspec.inspect

from app.kit.field_texts import read_field_texts

TEMPLATE: Final = "#/components/schemas/{name}"


def ref(name: str) -> dict[str, str]:
    return {"$ref": TEMPLATE.format(name=name)}


def make_schemas(types: Iterable[Any]) -> dict[str, Any]:
    """The schemas of `types` and of all that they are made of, by name; docstrings become descriptions."""
    types = tuple(types)
    _, schemas = msgspec.json.schema_components(types, ref_template=TEMPLATE)
    for name, struct in _find_structs(types).items():
        for field, text in read_field_texts(struct).items():
            schemas[name]["properties"][field].setdefault("description", text)
    for schema in schemas.values():
        schema.pop("title", None)
        if "description" in schema:
            schema["description"] = " ".join(schema["description"].split())
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
