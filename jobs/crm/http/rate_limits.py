"""The header fields in which services say how much of a rate limit is left, and when it is whole again.

`RateLimit: "default";r=0;t=30` (draft-ietf-httpapi-ratelimit-headers-10), its older form `limit=100, remaining=0,
reset=30`, and what most services send: `RateLimit-Reset`, `X-RateLimit-Reset` or `X-Rate-Limit-Reset`, in seconds from
now, as a time since 1970 in seconds or milliseconds, or as a date.
"""

import email.utils
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

_RESET: Final = re.compile(r"(x-)?([a-z]+-)?rate-?limit-reset(-requests|-after)?", re.IGNORECASE)
_REMAINING: Final = re.compile(r"(x-)?([a-z]+-)?rate-?limit-remaining(-requests)?", re.IGNORECASE)
_PARAMETER: Final = re.compile(r"(?:^|[;,\s])(t|reset|r|remaining)=(\d+)")
_SINCE_1970: Final = 1_000_000_000
"""A greater number of seconds is a time, not a wait: it is 31 years."""
_MILLISECONDS: Final = 100_000_000_000


def seconds_to_reset(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds until a call is allowed again, if a header field says so."""
    found = [seconds for value in _values(headers, _RESET) if (seconds := _seconds(value, now)) is not None]
    found += [float(number) for name, number in _parameters(headers) if name in ("t", "reset")]
    return max(found, default=None)


def is_used_up(headers: Mapping[str, str]) -> bool:
    """Whether a header field says that nothing is left of a rate limit."""
    left = _values(headers, _REMAINING)
    left += [number for name, number in _parameters(headers) if name in ("r", "remaining")]
    return any(value.strip() in ("0", "0.0", "-1") for value in left)


def _values(headers: Mapping[str, str], name: re.Pattern[str]) -> list[str]:
    return [value for field, value in headers.items() if name.fullmatch(field)]


def _parameters(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    return _PARAMETER.findall(headers.get("RateLimit", "")[:1_000])


def _seconds(value: str, now: datetime) -> float | None:
    text = value.strip()
    if re.fullmatch(r"\d{1,15}(\.\d{1,9})?", text):
        number = float(text)
        if number >= _MILLISECONDS:
            number /= 1_000
        return max(0.0, number - now.timestamp()) if number >= _SINCE_1970 else number
    for parse in (datetime.fromisoformat, email.utils.parsedate_to_datetime):
        try:
            date = parse(text)
        except (ValueError, TypeError, IndexError):
            continue
        return max(0.0, ((date if date.tzinfo else date.replace(tzinfo=UTC)) - now).total_seconds())
    return None
