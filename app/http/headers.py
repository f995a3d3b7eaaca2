"""Header fields and query strings, read strictly and without ever raising anything but a 4xx."""

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from app.errors import MalformedRequest
from app.files.encoding import CHARSETS, UTF_8, WORKBOOK
from app.files.readers import Family
from app.http.errors import KeyInvalid, KeyMissing, NotAcceptable, UnsupportedMediaType

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
CSV: Final = "text/csv"
XLSX: Final = WORKBOOK
EVENTS: Final = "text/event-stream"


class Fields:
    """The header fields of one request; names are lower case."""

    __slots__ = ("_fields",)

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._fields: dict[bytes, list[bytes]] = {}
        for name, value in raw:
            self._fields.setdefault(name.lower(), []).append(value)

    def one(self, name: str) -> str | None:
        """The value of a field that may appear once.
        Raises `MalformedRequest`: it appears several times, so that it is ambiguous."""
        values = self._fields.get(name.encode())
        if values is None:
            return None
        if len(values) > 1:
            raise MalformedRequest(f"The {name} header appears {len(values)} times; send it once.")
        return values[0].decode("latin-1").strip(" \t")

    def all(self, name: str) -> str:
        """The values of a list field, joined as RFC 9110 allows; empty when there are none."""
        return ", ".join(value.decode("latin-1") for value in self._fields.get(name.encode(), ()))


_BARE_KEY: Final = re.compile(r"[\x20-\x7e]{1,255}")
_QUOTED_KEY: Final = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')


KEY_SCHEMA: Final = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!#-~]([ -~]*[!-~])?$"}
"""Of an idempotency key."""


def read_key(fields: Fields) -> tuple[str, str]:
    """The idempotency key and the field as it was sent: `abc` and `"abc"` (RFC 8941) are one key. An empty one is none:
    whoever sends it means to be safe, and is not."""
    sent = fields.one("idempotency-key")
    if sent is None:
        raise KeyMissing()
    return parse_key(sent), sent


def parse_key(sent: str) -> str:
    """Raises `KeyInvalid`: it is none."""
    key = sent
    if sent.startswith('"'):
        quoted = _QUOTED_KEY.fullmatch(sent)
        if quoted is None:
            raise KeyInvalid()
        key = re.sub(r"\\(.)", r"\1", quoted[1])
    if not _BARE_KEY.fullmatch(key):
        raise KeyInvalid()
    return key


class Preferences(msgspec.Struct, frozen=True):
    """What of RFC 7240 this service knows; anything else is ignored, as the RFC asks."""

    wait: float | None = None
    minimal: bool = False
    respond_async: bool = False

    def applied(self, *, waited: bool, parted: bool = False) -> dict[str, str]:
        """The answer's `Preference-Applied`, if anything was; `parted`: it came before the work was done."""
        parts = ["respond-async"] if self.respond_async and parted else []
        if self.minimal and not parted:
            parts.append("return=minimal")
        if waited and self.wait is not None:
            parts.append(f"wait={self.wait:g}")
        return {"Preference-Applied": ", ".join(parts)} if parts else {}


_PREFERENCE: Final = re.compile(r'\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)(?:\s*=\s*("[^"]*"|[^\s",;]*))?[^,]*(?:,|$)')


def read_preferences(fields: Fields, *, max_wait: float) -> Preferences:
    text = fields.all("prefer")
    if not text:
        return Preferences()
    found: dict[str, str] = {}
    for name, value in _PREFERENCE.findall(text[:2000]):
        found.setdefault(name.lower(), value.strip('"'))
    wait = found.get("wait", "")
    return Preferences(
        wait=min(float(wait), max_wait) if re.fullmatch(r"[0-9]{1,9}", wait) else None,
        minimal=found.get("return", "").lower() == "minimal",
        respond_async="respond-async" in found,
    )


_RANGE: Final = re.compile(r"([\w!#$&^.+*-]+)/([\w!#$&^.+*-]+)", re.ASCII)
_WEIGHT: Final = re.compile(r";\s*q\s*=\s*([01](?:\.[0-9]{0,3})?)", re.IGNORECASE | re.ASCII)


def choose_type(fields: Fields, offers: tuple[str, ...] = (JSON,)) -> str:
    """The offer that `Accept` likes best; the first of equals.
    Raises `NotAcceptable`: every offer is excluded. A field that cannot be read excludes nothing."""
    text = fields.all("accept")
    if not text:
        return offers[0]
    ranges = []
    for part in text.split(","):
        match = _RANGE.match(part.strip())
        if match is not None:
            weight = _WEIGHT.search(part)
            ranges.append((match[1].lower(), match[2].lower(), float(weight[1]) if weight else 1.0))
    if not ranges:
        return offers[0]
    best, liked = offers[0], 0.0
    for offer in offers:
        quality = _quality(offer, ranges)
        if quality > liked:
            best, liked = offer, quality
    if liked == 0.0:
        raise NotAcceptable(f"This resource is available as {' or '.join(offers)}.")
    return best


def _quality(offer: str, ranges: list[tuple[str, str, float]]) -> float:
    kind, _, subtype = offer.partition("/")
    found = (0, 0.0)
    for range_kind, range_subtype, weight in ranges:
        if (range_kind, range_subtype) == (kind, subtype):
            found = max(found, (3, weight))
        elif (range_kind, range_subtype) == (kind, "*"):
            found = max(found, (2, weight))
        elif (range_kind, range_subtype) == ("*", "*"):
            found = max(found, (1, weight))
    return found[1]


_CHARSET: Final = re.compile(r';\s*charset\s*=\s*"?([\w.:-]+)"?', re.IGNORECASE | re.ASCII)

_HEADER_ROW: Final = re.compile(r';\s*header\s*=\s*"?absent', re.IGNORECASE | re.ASCII)
_FAMILIES: Final = {
    JSON: Family.JSON,
    CSV: Family.CSV,
    XLSX: Family.XLSX,
    NDJSON: Family.NDJSON,
    "application/ndjson": Family.NDJSON,
    "application/jsonl": Family.NDJSON,
    "application/x-jsonlines": Family.NDJSON,
}


def require_json(fields: Fields) -> None:
    """A body without a type is taken as JSON.
    Raises `UnsupportedMediaType`: it is something else, or in another charset."""
    _read_type(fields, (JSON,))


def read_type(fields: Fields) -> tuple[Family, str]:
    """What a body of items is written in, and the codec of its text; without a type it is JSON in UTF-8.
    Raises `UnsupportedMediaType`: it is something else, or in a charset that is not taken."""
    return _read_type(fields, (JSON, NDJSON, CSV, XLSX))


def _read_type(fields: Fields, offers: tuple[str, ...]) -> tuple[Family, str]:
    sent = fields.one("content-type")
    if not sent:
        return Family.JSON, UTF_8
    headers = {"Accept-Post": ", ".join(offers)}
    media_type = sent.partition(";")[0].strip().lower()
    family = _FAMILIES.get(media_type)
    if family is None or (family is not Family.JSON and len(offers) == 1):
        shown = "".join(c if c.isprintable() and c.isascii() else "?" for c in media_type[:80])
        raise UnsupportedMediaType(f"{shown!r} is not supported here; send {' or '.join(offers)}.", headers=headers)
    charset = _CHARSET.search(sent)
    codec = UTF_8 if charset is None else CHARSETS.get(charset[1].lower())
    if family is Family.CSV:
        if codec is None:
            raise UnsupportedMediaType(
                f"This charset is not supported; send one of: {', '.join(CHARSETS)}.", headers=headers
            )
        if _HEADER_ROW.search(sent):
            raise UnsupportedMediaType(
                "A CSV without a header row is not supported: its first line must name the columns.", headers=headers
            )
    elif family is Family.XLSX and charset is not None:
        raise UnsupportedMediaType("A workbook has no charset; send it without one.", headers=headers)
    elif codec != UTF_8:
        raise UnsupportedMediaType(
            f"{'JSON' if family is Family.JSON else 'NDJSON'} is sent as UTF-8.", headers=headers
        )
    return family, codec
