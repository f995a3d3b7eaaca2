"""The slow, thorough reading of one item: every fault with its code, its place and its remedy."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

import msgspec

from app.domain import lexical, rules
from app.domain.outcomes import ErrorCode
from app.domain.rules import FieldError, Object, Unreadable

MAX_ERRORS: Final = 20
"""Errors listed for one item; the last one says that there are more. Bounds the answer to a hostile item."""

_SUGGESTIONS: Final = 3
_TEXTS: Final = ("first_name", "last_name", "company")


class Finding(msgspec.Struct, frozen=True):
    """`members` are the decoded fields, all of them sound when `errors` is empty.

    `contact_id` is the id as text, also where it was sent as a number or a boolean, which is an error; None when
    there is none that could be stored.
    """

    contact_id: str | None
    members: dict[str, Any]
    errors: list[FieldError]


class _IdAlone(msgspec.Struct):
    id: str


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
        contact_id = _decode_id(raw).id
    except (ValueError, RecursionError):
        return None
    return (
        contact_id if rules.check_string("id", contact_id, shortest=1, longest=rules.MAX_ID) is None else None
    )


def examine(raw: bytes) -> Finding:
    """Read one item and collect its faults, in the order of its members, missing ones last."""
    errors: list[FieldError] = []
    members = _read_members(raw, errors)
    if members is None:
        return Finding(None, {}, errors)
    errors.extend(islice(_check_members(members), MAX_ERRORS + 1))
    contact_id = _as_text(members.get("id"))
    if rules.check_string("id", contact_id, shortest=1, longest=rules.MAX_ID) is not None:
        contact_id = None
    if len(errors) > MAX_ERRORS:
        last = errors[MAX_ERRORS - 1]
        detail = f"{last.detail} (the item has more errors than the {MAX_ERRORS} listed)"
        errors = [*errors[: MAX_ERRORS - 1], FieldError(last.code, last.pointer, detail)]
    return Finding(contact_id, members, errors)


def _as_text(value: object) -> str | None:
    """A client finds its item by the id that it sent, whatever the type."""
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return json.dumps(value)
    return value if isinstance(value, str) else None


def _check_members(members: Object) -> Iterator[FieldError]:
    unknown = 0
    yield from rules.repeated_faults(members.repeated)
    for name, value in members.items():
        if name not in rules.FIELDS:
            unknown += 1
            yield rules.unknown_field(name, search=unknown <= _SUGGESTIONS)
        elif value is not None:
            yield from _check_field(name, value)
    for name in ("id", "email"):
        if members.get(name) is None:
            state = "null" if name in members else "absent"
            yield FieldError(
                ErrorCode.MISSING_FIELD, f"/{name}", f"{name} is required, but it is {state}; send it"
            )


def _check_field(name: str, value: object) -> Iterator[FieldError]:
    if name == "attributes":
        yield from rules.check_attributes(value)
        return
    if name == "email":
        error = rules.check_email(value)
    elif name == "phone":
        error = rules.check_phone(value)
    elif name == "id":
        error = rules.check_string(name, value, shortest=1, longest=rules.MAX_ID)
    elif name in _TEXTS:
        error = rules.check_string(name, value, longest=rules.MAX_TEXT)
    else:
        error = rules.check_counter(name, value)
    if error is not None:
        yield error


def _not_an_object(raw: bytes) -> str:
    kinds = {b'"': "a string", b"[": "an array", b"t": "a boolean", b"f": "a boolean", b"n": "null"}
    first = raw.lstrip(b" \t\r\n")[:1]
    what = (
        "a number"
        if first in (b"-", *(b"%d" % digit for digit in range(10)))
        else kinds.get(first, "something else")
    )
    return f'an item must be an object like {{"id": "c1", "email": "name@example.com"}}, not {what}'


def _read_members(raw: bytes, errors: list[FieldError]) -> Object | None:
    if raw.lstrip(b" \t\r\n")[:1] != b"{":
        errors.append(FieldError(ErrorCode.INVALID_FIELD, "", _not_an_object(raw)))
        return None
    try:
        found: Object = _loads(raw.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        return _read_one_by_one(raw, errors, _describe(error, "the item"))
    return found


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
    start = lexical.skip_space(raw, 0) + 1
    try:
        spans, close = lexical.split_values(raw, start, closer="}", limit=len(raw))
    except lexical.StructureError:
        errors.append(FieldError(ErrorCode.INVALID_FIELD, "", whole))
        return None
    pairs: list[tuple[str, Any]] = []
    broken = 0
    for begin, end in spans:
        if broken + len(errors) > MAX_ERRORS:
            break
        member = raw[begin:end]
        name = lexical.MEMBER_NAME.match(member)
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
    if lexical.skip_space(raw, close + 1) != len(raw) or not (broken or errors):
        errors.append(FieldError(ErrorCode.INVALID_FIELD, "", whole))
    return Object(pairs)
