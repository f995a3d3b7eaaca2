"""What texts of a certain form look like: dates, times, addresses on the web, and patterns of a tenant's own.

Every check takes time in proportion to the length of the text: patterns are RE2's, which never go back.
"""

import re
from collections.abc import Callable
from datetime import date, datetime
from functools import lru_cache
from typing import Any, Final

import msgspec

from app.resources.declaration import Kind

_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s<>\"{}|\\^`\x00-\x1f]+")
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?", re.ASCII)
_LOCAL_NUMBER: Final = re.compile(r"[+-]?\d+([., '\u00a0\u202f]\d+)*")
_LOCAL_DATE: Final = re.compile(r"(\d{1,2}[./-]\d{1,2}[./-]\d{4})|(\d{4}[./-]\d{1,2}[./-]\d{1,2})", re.ASCII)
_PATTERN_MEMORY: Final = 1_048_576
"""Bytes that a compiled pattern may take."""
has_digit: Final = re.compile(r"\d").search


def is_date(value: str) -> bool:
    """RFC 3339, full-date."""
    if not _DATE.fullmatch(value):
        return False
    try:
        date.fromisoformat(value)
    except ValueError:
        return False
    return True


def is_date_time(value: str) -> bool:
    """RFC 3339, date-time: with its offset."""
    try:
        return msgspec.convert(value, datetime).tzinfo is not None
    except ValueError:
        return False


def advise_number(value: str) -> str:
    """How a text that is meant as a number becomes one."""
    if _NUMBER.fullmatch(value):
        return "; send it without quotes"
    local = _LOCAL_NUMBER.fullmatch(value)
    return "; write it like 1200.5, or say how a CSV writes numbers: decimal=. or decimal=," if local else ""


def advise_date(value: str) -> str:
    """How a text that is meant as a date becomes one."""
    local = _LOCAL_DATE.fullmatch(value)
    return ", or in a CSV as its date_format says, such as DD.MM.YYYY" if local else ""


CHECKS: Final[dict[Kind, Callable[[str], Any]]] = {
    Kind.PHONE: has_digit,
    Kind.DATE: is_date,
    Kind.DATE_TIME: is_date_time,
    Kind.URI: _URI.fullmatch,
    Kind.UUID: _UUID.fullmatch,
}
"""Of e-mail addresses see `app.resources.email`."""
REMEDIES: Final = {
    Kind.PHONE: "has no digit; send a number, or null to clear the field",
    Kind.DATE: "is not a date; write it like 2026-03-31",
    Kind.DATE_TIME: "is not a date and time with its offset; write it like 2026-03-31T12:00:00Z",
    Kind.URI: "is not a URI; write it with its scheme, like https://example.com/",
    Kind.UUID: "is not a UUID; write it like 0b9f6f2e-5a0d-4c9b-9a53-0c7d1f2f6a11",
}


@lru_cache(maxsize=4_096)
def compile_pattern(pattern: str) -> Any:
    """Raises `ValueError`: RE2 does not have it (a reference back, a look around), or it is too large."""
    import re2  # type: ignore[import-untyped,import-not-found,unused-ignore]  # half a megabyte that only types with patterns need

    options = re2.Options()
    options.max_mem = _PATTERN_MEMORY
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        words = error.args[0] if error.args else error
        raise ValueError(words.decode() if isinstance(words, bytes) else str(words)) from error
