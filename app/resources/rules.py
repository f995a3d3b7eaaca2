"""What each field of a record may hold, and the messages that say what is wrong and what to do.

Values are judged as they were sent: nothing is trimmed or rewritten here, because an import must not change
data silently. White space around an e-mail address is therefore an error that shows the address without it;
readers of files (CSV) trim cells before they make items.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from app.kit import spelling
from app.resources import email, formats
from app.resources.declaration import FLOAT_BOUND, MAX_EMAIL, MAX_ID, MAX_INT, NUMERIC, Field, Kind, Resource
from app.vocabulary.outcomes_wire import FieldError
from app.vocabulary.states import ErrorCode

MAX_KEY: Final = 255
MAX_DEPTH: Final = 32
"""Levels of objects and arrays in `attributes`, itself included."""
_MAX_POINTER: Final = 500
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_SHOWN_CHOICES: Final = 12


class Object(dict[str, Any]):
    """A decoded JSON object that remembers which of its names came more than once, and how often."""

    __slots__ = ("repeated",)

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.repeated: dict[str, int] = {}
        if len(self) != len(pairs):
            for name, _ in pairs:
                self.repeated[name] = self.repeated.get(name, 0) + 1
            self.repeated = {name: count for name, count in self.repeated.items() if count > 1}


class Unreadable(msgspec.Struct, frozen=True):
    """Takes the place of a value that could not be decoded."""

    detail: str


def pointer(*tokens: str | int) -> str:
    """A JSON pointer that is safe to store and print; longer than 500 characters it ends in "…"."""
    if len(tokens) == 1:
        name = tokens[0]
        if type(name) is str and len(name) < _MAX_POINTER and (name.isalnum() or name.isidentifier()):
            return f"/{name}"
    text = "".join("/" + str(token).replace("~", "~0").replace("/", "~1") for token in tokens)
    text = _SURROGATE.sub("\ufffd", text.replace("\0", "\ufffd"))
    return text if len(text) <= _MAX_POINTER else text[:_MAX_POINTER] + "…"


def quote(text: str, limit: int = 60) -> str:
    """The text in double quotes for a message, shortened, with what cannot be stored or printed replaced."""
    shown = text if len(text) <= limit else text[:limit] + "…"
    if shown.isprintable():
        return f'"{shown}"'
    return '"' + "".join(c if c.isprintable() else "\ufffd" for c in shown) + '"'


def kind(value: object) -> str:
    """The JSON type of a decoded value, in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "an array" if isinstance(value, list) else "an object"


def email_fault(value: str) -> str | None:
    """Why this is no e-mail address (see `app.resources.email`), or None."""
    if email.is_usual(value):
        return None
    if not value.strip():
        return "is empty; an e-mail address like name@example.com is required"
    size = len(value.encode("utf-8", "surrogatepass"))
    if size > MAX_EMAIL:
        unit = "characters" if value.isascii() else "bytes"
        return f"has {size} {unit}; an e-mail address has at most {MAX_EMAIL}"
    if value != value.strip():
        return f"has white space around it; send {quote(value.strip(), MAX_EMAIL)}"
    reason = email.find_fault(value)
    return reason and f"{quote(value)} is not an e-mail address: {reason}"


def text_fault(value: str) -> str | None:
    """Why PostgreSQL and JSON could not carry this text, or None."""
    if "\0" in value:
        return "contains the character U+0000, which cannot be stored; remove it"
    if value.isascii():
        return None
    found = _SURROGATE.search(value)
    if found is None:
        return None
    if "\udc80" <= found[0] <= "\udcff":  # what "surrogateescape" makes of a byte; an escape of that range is rare
        return f"contains bytes that are not valid UTF-8 (at character {found.start()}); send it as UTF-8"
    return (
        f"contains half a surrogate pair, \\u{ord(found[0]):04x} (at character {found.start()}), "
        "which is no character; send both halves or remove it"
    )


def _fault(name: str, detail: str) -> FieldError:
    return FieldError(ErrorCode.INVALID_FIELD, pointer(name), f"{name} {detail}")


def check_text(value: object, *, shortest: int = 0, longest: int = MAX_ID) -> str | None:
    """Why this is no text of such a length that can be stored, or None."""
    if isinstance(value, Unreadable):
        return value.detail
    if not isinstance(value, str):
        hint = "; put it in double quotes" if isinstance(value, int | float) else ""
        return f"must be a string, not {kind(value)}{hint}"
    if not shortest <= len(value) <= longest:
        span = f"{shortest} to {longest}" if shortest else f"at most {longest}"
        return f"has {len(value)} characters; {span} are allowed"
    return text_fault(value)


def check_id(value: object) -> FieldError | None:
    detail = check_text(value, shortest=1, longest=MAX_ID)
    if detail is None and isinstance(value, str) and value != value.strip():
        detail = f"has white space around it; send {quote(value.strip(), MAX_ID)}"
    return _fault("id", detail) if detail else None


def is_id(value: str) -> bool:
    """Whether a record can be found by it, whatever else is wrong with it."""
    return check_text(value, shortest=1, longest=MAX_ID) is None


Sound = tuple[Callable[[Sequence[Any]], bool], Callable[[Any], bool]]
"""Whether values of a field, which are decoded as its type, break none of its other rules: many at once, and one. What
is not so found may be sound all the same: `check_field` decides."""


def sound_values(field: Field) -> Sound | None:
    """None: its type says all."""
    if field.kind is Kind.EMAIL and not field.pattern and field.many is None:
        return email.are_usual, lambda value: email.is_usual(value) or email_fault(value) is None
    checks = [check for check in (formats.CHECKS.get(field.kind), _matcher(field)) if check is not None]
    if field.kind is Kind.EMAIL:
        checks.append(email.is_usual)
    if field.choices and field.kind is Kind.NUMBER:
        checks.append(field.choices.__contains__)
    if not checks:
        return None
    first, *others = checks

    def one(value: Any) -> bool:
        return bool(first(value)) and all(check(value) for check in others)

    def many(values: Sequence[Any]) -> bool:
        return all(map(first, values)) and all(all(map(check, values)) for check in others)

    return (many, one) if field.many is None else (lambda lists: all(map(many, lists)), many)


def _matcher(field: Field) -> Callable[[str], Any] | None:
    return formats.compile_pattern(field.pattern).search if field.pattern else None


def check_field(field: Field, value: object) -> Iterator[FieldError]:
    """Every fault of a value, in words; none: it is sound."""
    faults: list[tuple[str, tuple[str | int, ...], str | None]]
    if field.many is None or isinstance(value, Unreadable):
        faults = [(field.name, (field.name,), _check_one(field, value))]
    elif not isinstance(value, list):
        faults = [(field.name, (field.name,), f"must be an array, not {kind(value)}")]
    elif len(value) > field.many:
        faults = [(field.name, (field.name,), f"has {len(value)} values; at most {field.many} are allowed")]
    else:
        faults = [(f"{field.name}[{i}]", (field.name, i), _check_one(field, one)) for i, one in enumerate(value)]
    for name, place, detail in faults:
        if detail:
            code = _CODES.get(field.kind) if isinstance(value, str) and not detail.startswith(_UNSTORABLE) else None
            yield FieldError(code or ErrorCode.INVALID_FIELD, pointer(*place), f"{name} {detail}")


_CODES: Final = {Kind.EMAIL: ErrorCode.INVALID_EMAIL, Kind.PHONE: ErrorCode.INVALID_PHONE}
_UNSTORABLE: Final = "contains "


def _check_one(field: Field, value: object) -> str | None:
    if isinstance(value, Unreadable):
        return value.detail
    if field.kind in NUMERIC:
        detail = _number_fault(field, value)
    elif field.kind is Kind.BOOLEAN:
        detail = None if isinstance(value, bool) else f"must be true or false, not {_show(value)}"
    else:
        detail = _text_fault(field, value)
    if detail is None and field.choices and value not in field.choices:
        shown = ", ".join(str(one) for one in field.choices[:_SHOWN_CHOICES])
        more = f", … ({len(field.choices)})" if len(field.choices) > _SHOWN_CHOICES else ""
        detail = f"cannot be {_show(value)}; its values are {shown}{more}"
    return detail


def _show(value: object) -> str:
    if isinstance(value, str):
        return f"the text {quote(value)}"
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else kind(value)


def _number_fault(field: Field, value: object) -> str | None:
    whole = field.kind is Kind.INTEGER
    if isinstance(value, bool) or not isinstance(value, int | float):
        hint = formats.advise_number(value) if isinstance(value, str) else ""
        return f"must be a {'whole number' if whole else 'number'}, not {_show(value)}{hint}"
    if not in_range(value):
        return "is a number beyond ±(2^63-1), which cannot be stored"
    if whole and isinstance(value, float):
        return "must be a whole number, written without fraction and exponent"
    if field.least is not None and value < field.least:
        return f"must be at least {field.least:g}, not {value}"
    if field.most is not None and value > field.most:
        return f"must be at most {field.most:g}, not {value}"
    return None


def _text_fault(field: Field, value: object) -> str | None:
    if not isinstance(value, str):
        return check_text(value)
    if detail := text_fault(value):
        return detail
    if field.kind is Kind.EMAIL:
        detail = email_fault(value)
    elif field.kind is Kind.PHONE and len(value) > field.limit:
        detail = f"has {len(value)} characters; a phone number has at most {field.limit}"
    else:
        detail = check_text(value, shortest=field.shortest, longest=field.limit)
        if detail is None and field.kind in formats.CHECKS and not formats.CHECKS[field.kind](value):
            hint = formats.advise_date(value) if field.kind is Kind.DATE else ""
            detail = f"{quote(value)} {formats.REMEDIES[field.kind]}{hint}"
    if detail is None and field.pattern and not formats.compile_pattern(field.pattern).search(value):
        detail = f"{quote(value)} does not match the pattern {field.pattern}"
    return detail


def check_counter(name: str, value: object) -> FieldError | None:
    """`if_version` and `source_version`: whole numbers from 0 to 2^63-1."""
    if isinstance(value, Unreadable):
        return _fault(name, value.detail)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _fault(name, f"must be a whole number, not {kind(value)}")
    if not 0 <= value <= MAX_INT:
        return _fault(name, f"must be from 0 to {MAX_INT}")
    if isinstance(value, float):
        return _fault(name, "must be a whole number, written without fraction and exponent")
    return None


def check_deleted(value: object) -> FieldError | None:
    return None if isinstance(value, bool) else _fault("deleted", f"must be true or false, not {kind(value)}")


def check_attributes(value: object) -> Iterator[FieldError]:
    """Every fault of `attributes`, in the order of the item."""
    if isinstance(value, Unreadable):
        yield _fault("attributes", value.detail)
    elif not isinstance(value, dict):
        yield _fault("attributes", f'must be an object like {{"city": "Berlin"}}, not {kind(value)}')
    else:
        yield from _check_value(value, ("attributes",), 1)


def _check_value(value: object, path: tuple[str | int, ...], depth: int) -> Iterator[FieldError]:
    detail = None
    if isinstance(value, str):
        detail = text_fault(value)
    elif isinstance(value, Unreadable):
        detail = value.detail
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if not in_range(value):
            detail = "is a number beyond ±(2^63-1), which cannot be stored; send it as a string"
    elif isinstance(value, dict | list):
        if depth > MAX_DEPTH:
            detail = f"is nested deeper than {MAX_DEPTH} levels; send it flatter, or as a string"
            path = path[:2]
        elif isinstance(value, dict):
            yield from _check_names(value, path)
            for name, member in value.items():
                yield from _check_value(member, (*path, name), depth + 1)
        else:
            for index, member in enumerate(value):
                yield from _check_value(member, (*path, index), depth + 1)
    if detail:
        yield FieldError(ErrorCode.INVALID_FIELD, pointer(*path), f"{quote(str(path[-1]))} {detail}")


def _check_names(value: dict[str, Any], path: tuple[str | int, ...]) -> Iterator[FieldError]:
    for name in value:
        if not name:
            detail: str | None = "is an empty key; name the attribute"
        elif len(name) > MAX_KEY:
            detail = f"is a key of {len(name)} characters; at most {MAX_KEY} are allowed"
        else:
            detail = text_fault(name)
        if detail:
            yield FieldError(ErrorCode.INVALID_FIELD, pointer(*path, name), f"{quote(name)} {detail}")
    if isinstance(value, Object):
        yield from repeated_faults(value.repeated, *path)


def repeated_faults(repeated: dict[str, int], *path: str | int) -> Iterator[FieldError]:
    for name, count in repeated.items():
        detail = f"{quote(name)} appears {count} times in one object; keep one"
        yield FieldError(ErrorCode.INVALID_FIELD, pointer(*path, name), detail)


def in_range(value: float) -> bool:
    """Whether a number, whole or not, is finite and lies strictly within ±2^63."""
    return -FLOAT_BOUND < value < FLOAT_BOUND  # false for NaN as well


def count_names(value: dict[str, Any] | list[Any], depth: int = 1) -> int | None:
    """Names of all objects in decoded attributes; None when a rule is broken that decoding did not check.

    Speed matters: exact types, as msgspec makes them, and calls for containers alone.
    """
    if depth > MAX_DEPTH:
        return None
    total = 0
    members: Any = value
    if type(value) is dict:
        total = len(value)
        for name in value:
            if not 0 < len(name) <= MAX_KEY:
                return None
        members = value.values()
    for member in members:
        found = type(member)
        if found is dict or found is list:
            inner = count_names(member, depth + 1)
            if inner is None:
                return None
            total += inner
        elif (found is int or found is float) and not -FLOAT_BOUND < member < FLOAT_BOUND:
            return None
    return total


_LIKELY: Final = {
    "attributes": "attribute customfields custom properties extra metadata",
    "deleted": "isdeleted delete removed",
    "if_version": "ifversion version expectedversion",
    "source_version": "sourceversion",
}
_NOT_PLAIN: Final = re.compile(r"[^a-z0-9]")


class Names:
    """The names that an item of a type may have, and those that people write in their place."""

    def __init__(self, resource: Resource) -> None:
        self._singular = resource.singular
        self._attributes = resource.attributes
        likely = {field.name: field.meant_by for field in (resource.id, *resource.fields)} | _LIKELY
        if not resource.attributes:
            del likely["attributes"]
        self._likely = {alias: field for field, aliases in likely.items() for alias in (field, *aliases.split())}
        self._spelling = spelling.Index({field.replace("_", ""): field for field in likely})
        self.suggest = lru_cache(maxsize=2_048)(self._suggest)

    def _suggest(self, name: str) -> str | None:
        """The field that a user who wrote `name` probably meant."""
        plain = name.lower()
        if "_" in plain:
            plain = plain.replace("_", "")
        if not (plain.isascii() and plain.isalnum()):
            plain = _NOT_PLAIN.sub("", plain)
        return self._likely.get(plain) or self._spelling.find(plain)

    def unknown_field(self, name: str, *, search: bool = True) -> FieldError:
        """`search` False spares the look for a similar name."""
        meant = self.suggest(name) if search and 0 < len(name) <= 40 else None
        remedy = "own data belongs in attributes." if self._attributes else f"a {self._singular} has no such field."
        remedy = f'did you mean "{meant}"?' if meant else remedy
        return FieldError(ErrorCode.UNKNOWN_FIELD, pointer(name), f"{quote(name)} is not a field; {remedy}")
