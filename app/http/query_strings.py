"""Query strings, read strictly into a struct: its attributes are the parameters, their types what may be sent."""

import re
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import Enum
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import parse_qsl

import msgspec
import msgspec.inspect as types

from app.errors import Invalid
from app.resources.rules import quote

_MOST_PARAMETERS: Final = 100

T = TypeVar("T")

Read = Callable[[str, str], Any]
"""The value of a parameter by its name and text."""


class _Parameter(NamedTuple):
    read: Read
    repeated: bool


def compile_query(struct: type[T]) -> Callable[[Mapping[str, Any]], T]:
    """A function that reads the query of an ASGI scope into `struct`.

    It raises `Invalid` for an unknown parameter, one that is repeated and is not a list, a value that its type does not
    allow, and text that is not UTF-8.
    """
    info = types.type_info(struct)
    assert isinstance(info, types.StructType)
    known = {field.encode_name: _compile(field.type) for field in info.fields}
    attributes = {field.encode_name: field.name for field in info.fields}
    listed = ", ".join(sorted(known)) or "none"
    absent = struct()

    def read(scope: Mapping[str, Any]) -> T:
        if not scope["query_string"]:
            return absent
        found: dict[str, Any] = {}
        for name, text in _split(scope["query_string"]):
            parameter = known.get(name)
            if parameter is None:
                raise Invalid(f"There is no parameter {quote(name)}; there are: {listed}.")
            attribute = attributes[name]
            if parameter.repeated:
                found.setdefault(attribute, []).append(parameter.read(name, text))
            elif attribute in found:
                raise Invalid(f"The parameter {name} appears twice; send it once.")
            else:
                found[attribute] = parameter.read(name, text)
        return struct(**found)

    return read


def describe_query(schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parameters as OpenAPI has them, from the JSON Schema of the struct."""
    return [_describe(name, dict(one)) for name, one in schema.get("properties", {}).items()]


def _describe(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    described = {"name": name, "in": "query", "description": schema.pop("description", "")}
    choices = schema.pop("anyOf", None)
    if choices is not None:  # null says that the parameter may be left out
        schema |= next(one for one in choices if one != {"type": "null"})
    if schema.get("default", "") in (None, []):
        del schema["default"]
    if "enum" in schema:
        schema.setdefault("type", "string")
    return described | {"schema": schema}


def _split(raw: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_PARAMETERS)
    except ValueError as error:  # UnicodeDecodeError is one
        raise Invalid(
            f"The query string cannot be read; percent-encode it as UTF-8 ({_MOST_PARAMETERS} parameters at most)."
        ) from error


def _compile(kind: types.Type, extra: Mapping[str, Any] | None = None) -> _Parameter:
    match kind:
        case types.Metadata(type=inner, extra_json_schema=schema):
            return _compile(inner, schema)
        case types.UnionType():
            (one,) = (member for member in kind.types if not isinstance(member, types.NoneType))
            return _compile(one, extra)
        case types.ListType(item_type=item):
            return _Parameter(_compile(item).read, repeated=True)
        case types.BoolType():
            read: Read = _read_flag
        case types.IntType(ge=least, le=most):
            assert least is not None
            assert most is not None
            read = _reader_of_number(least, most)
        case types.EnumType(cls=words):
            read = _reader_of_word({str(word.value): word for word in words})
        case types.LiteralType(values=values):
            read = _reader_of_word({str(value): value for value in values})
        case types.UUIDType():
            read = _reader_of(uuid.UUID, "a UUID")
        case types.DateTimeType():
            read = _reader_of(datetime, "an RFC 3339 timestamp, as 2026-01-15T09:30:00Z")
        case types.StrType() if extra and "enum" in extra:
            read = _reader_of_word({word: word for word in extra["enum"]})
        case types.StrType():
            return _Parameter(lambda _, text: text, repeated=False)
        case _:
            raise TypeError(f"a query parameter cannot be {kind}")
    return _Parameter(read, repeated=False)


def _read_flag(name: str, text: str) -> bool:
    if text not in ("true", "false", "1", "0"):
        raise Invalid(f"{name}={quote(text)} must be true or false.")
    return text in ("true", "1")


def _reader_of(kind: type[Any], what: str) -> Read:
    def read(name: str, text: str) -> Any:
        try:
            return msgspec.convert(text, kind)
        except msgspec.ValidationError:
            raise Invalid(f"{name}={quote(text)} must be {what}.") from None

    return read


def _reader_of_number(least: int, most: int) -> Read:
    def read(name: str, text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise Invalid(f"{name}={quote(text)} must be a whole number from {least} to {most}.")
        return int(text)

    return read


def _reader_of_word(words: Mapping[str, Enum | Any]) -> Read:
    def read(name: str, text: str) -> Any:
        if text not in words:
            raise Invalid(f"{name}={quote(text)} must be one of: {', '.join(words)}.")
        return words[text]

    return read
