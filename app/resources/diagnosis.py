"""The slow, thorough reading of one item: every fault with its code, its place and its remedy."""

import json
import math
from collections.abc import Callable
from itertools import islice
from typing import Any, Final

import msgspec

from app.resources import json_scanner, rules
from app.resources.declaration import Resource
from app.resources.rules import Object, Unreadable
from app.vocabulary.outcomes_wire import FieldError
from app.vocabulary.states import ErrorCode

MAX_ERRORS: Final = 20
"""Errors listed for one item; the last one says that there are more. Bounds the answer to a hostile item."""

_SUGGESTIONS: Final = 3
_SPACE: Final = 0x20
_SMALL: Final = 512
"""Bytes of an item of which there can be so many that their reading must be quick."""
_INEXACT: Final = frozenset({float, list})
"""What the two decoders may read differently: long numbers, and what may hold some."""


class Finding(msgspec.Struct, frozen=True):
    """`members` are the decoded fields, all of them sound when `errors` is empty.

    `record_id` is the id as text, also where it was sent as a number or a boolean, which is an error; None when
    there is none that could be stored.
    """

    record_id: str | None
    members: dict[str, Any]
    errors: list[FieldError]


class _IdAlone(msgspec.Struct):
    id: str


_decode_members = msgspec.json.Decoder(dict[str, Any]).decode
_decode_id = msgspec.json.Decoder(_IdAlone).decode


def _number(text: str) -> int | float:
    # int() is quadratic in the digits and refuses more than 4,300; beyond 20 only "too large" matters.
    return int(text) if len(text) <= 20 else float(text)


def _constant(text: str) -> Unreadable:
    return Unreadable(f"is {text}, which JSON does not have; send null or a number")


_loads = json.JSONDecoder(object_pairs_hook=Object, parse_int=_number, parse_constant=_constant).decode


def read_id(raw: bytes) -> str | None:
    """The item's id, if it can be read and is sound; nothing else of the item is looked at."""
    try:
        record_id = _decode_id(raw).id
    except (ValueError, RecursionError):
        return None
    return record_id if rules.is_id(record_id) else None


def _as_text(value: object) -> str | None:
    """A client finds its item by the id that it sent, whatever the type."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return json.dumps(value)
    return None


class Examiner:
    """Knows the rules of one type."""

    def __init__(self, resource: Resource) -> None:
        self._names = rules.Names(resource)
        self._fields = {field.name: field for field in resource.fields}
        self._attributes = resource.attributes
        self._missing = {
            name: [
                FieldError(ErrorCode.MISSING_FIELD, f"/{name}", f"{name} is required, but it is {found}; send it")
                for found in ("absent", "null")
            ]
            for name in resource.required
        }
        shown = {name: value for name, value in resource.example.items() if name in resource.required}
        self._object = json.dumps(shown or {"id": "c1"})

    def examine(self, raw: bytes) -> Finding:
        """Read one item and collect its faults, in the order of its members, missing ones last."""
        other = name_kind(raw)
        if other is not None:
            detail = f"an item must be an object like {self._object}, not {other}"
            return Finding(None, {}, [FieldError(ErrorCode.INVALID_FIELD, "", detail)])
        errors: list[FieldError] = []
        members = _read_members(raw, errors)
        if members is None:
            return Finding(None, {}, errors)
        self._check(members, errors)
        record_id = _as_text(members.get("id"))
        if record_id is not None and not rules.is_id(record_id):
            record_id = None
        if len(errors) > MAX_ERRORS:
            last = errors[MAX_ERRORS - 1]
            detail = f"{last.detail} (the item has more errors than the {MAX_ERRORS} listed)"
            errors = [*errors[: MAX_ERRORS - 1], FieldError(last.code, last.pointer, detail)]
        return Finding(record_id, members, errors)

    def _check(self, members: dict[str, Any], errors: list[FieldError]) -> None:
        """Add the faults of the members, at most one more than are listed."""
        if type(members) is Object:
            errors += islice(rules.repeated_faults(members.repeated), MAX_ERRORS + 1)
        unknown = 0
        for name, value in members.items():
            if len(errors) > MAX_ERRORS:
                return
            field = self._fields.get(name)
            if field is not None or (name == "attributes" and self._attributes):
                if value is not None:
                    faults = rules.check_attributes(value) if field is None else rules.check_field(field, value)
                    errors += islice(faults, MAX_ERRORS + 1 - len(errors))
            elif name in _OF_EVERY_TYPE:
                if value is not None and (error := _OF_EVERY_TYPE[name](value)) is not None:
                    errors.append(error)
            else:
                unknown += 1
                errors.append(self._names.unknown_field(name, search=unknown <= _SUGGESTIONS))
        deleted = members.get("deleted") is True
        for name, missing in self._missing.items():
            if members.get(name) is None and (name == "id" or not deleted):
                errors.append(missing[name in members])


_OF_EVERY_TYPE: Final[dict[str, Callable[[object], FieldError | None]]] = {
    "id": rules.check_id,
    "deleted": rules.check_deleted,
    "if_version": lambda value: rules.check_counter("if_version", value),
    "source_version": lambda value: rules.check_counter("source_version", value),
}


_KINDS: Final = {
    **dict.fromkeys(b"-0123456789", "a number"),
    **dict.fromkeys(b"tf", "a boolean"),
    ord('"'): "a string",
    ord("["): "an array",
    ord("n"): "null",
}
_OBJECT: Final = ord("{")


def name_kind(raw: bytes) -> str | None:
    """What an item is that is no object, in words; None if it is one."""
    first = raw[0] if raw and raw[0] > _SPACE else (raw.lstrip(b" \t\r\n") or b" ")[0]
    return None if first == _OBJECT else _KINDS.get(first, "something else")


def _read_members(raw: bytes, errors: list[FieldError]) -> dict[str, Any] | None:
    """The members; an `Object` unless no name can have come twice."""
    if len(raw) <= _SMALL and (small := _read_small(raw)) is not None:
        return small
    try:
        found: Object = _loads(raw.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        return _read_one_by_one(raw, errors, _describe(error, "the item"))
    return found


def _read_small(raw: bytes) -> dict[str, Any] | None:
    """What `_loads` makes of a small item, in a fifth of the time; None where it might make something else of it."""
    try:
        members = _decode_members(raw)
    except (ValueError, RecursionError):
        return None
    if not _INEXACT.isdisjoint(map(type, members.values())):
        return None
    # Where an object within has names too, or a text has such a pair, `_loads` tells which of them come twice.
    return members if raw.count(b":") == len(members) else None


def _describe(error: Exception, what: str) -> str:
    if isinstance(error, RecursionError):
        return f"{what} is nested deeper than {rules.MAX_DEPTH} levels; send it flatter, or as a string"
    reason = (
        f"{error.msg.lower().removesuffix(' at')} at character {error.pos}"
        if isinstance(error, json.JSONDecodeError)
        else str(error)
    )
    return f"{what} is not valid JSON: {reason}; correct it"


def _read_one_by_one(raw: bytes, errors: list[FieldError], whole: str) -> Object | None:
    """The members that can be decoded, with `Unreadable` for those that cannot."""
    start = json_scanner.skip_space(raw, 0) + 1
    try:
        spans, close = json_scanner.split_values(raw, start, closer="}", limit=len(raw))
    except json_scanner.StructureError:
        errors.append(FieldError(ErrorCode.INVALID_FIELD, "", whole))
        return None
    pairs: list[tuple[str, Any]] = []
    broken = 0
    for begin, end in spans:
        if broken + len(errors) > MAX_ERRORS:
            break
        member = raw[begin:end]
        name = json_scanner.MEMBER_NAME.match(member)
        try:
            if name is None:
                raise ValueError("a member name in double quotes and a colon were expected")
            key = _loads(name[1].decode("utf-8", "surrogateescape"))
        except ValueError as error:
            shown = rules.quote(member.decode("utf-8", "replace"))
            errors.append(FieldError(ErrorCode.INVALID_FIELD, "", _describe(error, f"the member {shown}")))
            continue
        try:
            value = _loads(member[name.end() :].decode("utf-8", "surrogateescape"))
        except (ValueError, RecursionError) as error:
            broken += 1
            value = Unreadable(_describe(error, "").lstrip())
        pairs.append((key, value))
    if json_scanner.skip_space(raw, close + 1) != len(raw) or not (broken or errors):
        errors.append(FieldError(ErrorCode.INVALID_FIELD, "", whole))
    return Object(pairs)
