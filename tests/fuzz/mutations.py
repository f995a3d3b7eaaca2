"""Requests that were sound before they were mutated; each is made from its number and the seed alone."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from typing import Any, Final

import msgspec
import zstandard

from app.api.routes import OPERATIONS
from app.files.encoding import WORKBOOK
from app.files.readers import Family
from tests.bench.parsing.inputs import hostile
from tests.fuzz.workbooks import write_workbook
from tests.http.world import ABSENT, Slots, Things

JSON, NDJSON, CSV = "application/json", "application/x-ndjson", "text/csv"
XLSX = WORKBOOK
_WORKBOOKS: Final = 0.03
"""Of the imports: each takes a process."""
SLOTS: Final = [one for one in map(Slots, OPERATIONS) if one.make_body is not None]
IMPORT: Final = next(one for one in SLOTS if one.operation.id == "importRecords")
FAMILIES: Final = {JSON: Family.JSON, NDJSON: Family.NDJSON, CSV: Family.CSV}
_HOSTILE: Final = {media: hostile(family) for media, family in FAMILIES.items()}

_TEXTS: Final = (
    "", " ", "a", "\0", "a\0b", "\ud800", "\u202e", "\u200b", "\ufeff", "é", "e\u0301", "名", "\U0001f600", "\r\n",
    "\t", "null", "true", "-1", "1e400", "=cmd|' /C calc'!A0", "' OR 1=1 --", "$1", "%s", "{{7*7}}", "../../etc/passwd",
    "<b>", "a@b.de", "a@b", "a" * 300 + "@b.de", "https://127.0.0.1/", "http://[::1", "file:///etc/passwd", "\\", '"',
    "2026-02-30T25:61:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "contacts", "x" * 256, "x" * 70_000,
)  # fmt: skip
_NUMBERS: Final = (
    0, -1, 1, 2, 255, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**40,
    0.1, -0.0, 1e308, 5e-324, 1.7976931348623157e308,
)  # fmt: skip
_SPLICES: Final = (
    b"\\u0000", b"\xff", b"\xc3", b"\xed\xa0\x80", b'"', b"'", b"\\", b"\\ud800", b"[", b"]", b"{", b"}", b",", b":",
    b",,", b"\n", b"\r", b"\0", b"1e400", b"NaN", b"-Infinity", b"1" + b"0" * 400, b"\xef\xbb\xbf", b"\xff\xfe", b"/*",
    b"[" * 2_000, b'{"a":' * 1_200, b'"id":"x",', b";", b"\t", b"|", b'a","\n',
)  # fmt: skip
_MEDIA: Final = (
    JSON, NDJSON, CSV, "application/ndjson", "application/jsonl", "text/csv; charset=utf-16",
    "text/csv; charset=utf-16le", "text/csv; charset=windows-1252", "text/csv; charset=utf-7",
    "application/json; charset=utf-8", "application/json;charset=latin-1", "application/json; charset",
    "text/plain", "application/xml", "multipart/form-data", "application/x-www-form-urlencoded", "*/*", "json",
    "", "\xff", "application/json, text/csv", XLSX,
)  # fmt: skip
_ENCODINGS: Final = ("gzip", "zstd", "identity", "br", "deflate", "gzip, gzip", "x-gzip", "GZIP", "", "\xff")
_QUERIES: Final = (
    "", "", "", "?atomic=true", "?dry_run=true", "?on_duplicate=last_wins", "?consistency=all_destinations",
    "?atomic=maybe",
    "?map=Name:first_name", "?map=:", "?map=a%3Ab:id&map=a:id", "?ignore=city", "?decimal=,", "?decimal=%2C",
    "?date_format=DD.MM.YYYY", "?sheet=1", "?sheet=%00",
    "?date_format=%FF", "?limit=0", "?cursor=%00", "?a=1&a=1", "?%00=%FF",
    "?" + "&".join(f"map=a{n}:id" for n in range(150)),
    "?x=" + "a" * 5_000, "?&&&=", "?atomic=true&atomic=false", "?token=x",
)  # fmt: skip
_HEADERS: Final = (
    ("prefer", "respond-async"), ("prefer", "wait=1, return=minimal"), ("prefer", "wait=1e9"), ("prefer", "\xff;;=,"),
    ("accept", "text/html"), ("accept", "application/json;q=0"), ("accept", "*/*;q=x"), ("accept", "\xff/\xfe"),
    ("x-request-id", "a" * 200), ("x-request-id", "\n"), ("traceparent", "00-" + "f" * 32 + "-" + "0" * 16 + "-01"),
    ("traceparent", "\xff"), ("tracestate", "a=" + "b" * 600), ("if-none-match", '"1"'), ("last-event-id", "9" * 30),
    ("idempotency-key", "\xff"), ("idempotency-key", '"'), ("idempotency-key", "k" * 256), ("idempotency-key", "again"),
    ("content-length", "7"), ("content-length", "x"), ("transfer-encoding", "chunked"), ("expect", "100-continue"),
    ("authorization", "Bearer"), ("authorization", "Basic Og=="), ("authorization", "Bearer trn_x"), ("cookie", "a=b"),
    ("origin", "https://evil.example"), ("host", "a b"), ("x-forwarded-for", "1.2.3.4, \xff"), ("range", "bytes=0-1"),
)  # fmt: skip


class Case(msgspec.Struct, frozen=True):
    """A request; the body arrives in pieces of so many bytes."""

    operation: str
    method: str
    target: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes
    piece: int
    size: int
    """Bytes of the body before it was compressed."""


def make_case(seed: int, number: int, things: Things, key: str, operator: str) -> Case:
    """`things`: of the tenant of `key`. One request in two is an import."""
    dice = random.Random(f"{seed}:{number}")
    slots = IMPORT if dice.random() < 0.5 else dice.choice(SLOTS)
    operation = slots.operation
    media = dice.choice((JSON, JSON, NDJSON, CSV)) if slots is IMPORT else JSON
    if slots is IMPORT and dice.random() < _WORKBOOKS:
        media = XLSX
    body = make_body(dice, slots, media, things)
    headers: dict[str, str] = {"content-type": media if dice.random() < 0.85 else dice.choice(_MEDIA)}
    headers["authorization"] = f"Bearer {operator if '/tenants' in operation.path else key}"
    if slots is IMPORT or dice.random() < 0.2:
        headers["idempotency-key"] = f"fuzz-{seed}-{number}"
    body, encoding, size = _compress(dice, body)
    if encoding:
        headers["content-encoding"] = encoding
    fields = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    if operation.id == "testDestination":
        fields.append((b"prefer", b"wait=0"))
    if dice.random() < 0.15:
        name, value = dice.choice(_HEADERS)
        if dice.random() < 0.7:
            fields = [one for one in fields if one[0] != name.encode()]
        fields.append((name.encode(), value.encode("latin-1")))
    fields.append((b"content-length", str(len(body)).encode()))
    named = {name: _name(dice, kind, things) for name, kind in slots.path.items()}
    target = operation.path.format_map(named) + (dice.choice(_QUERIES) if dice.random() < 0.3 else "")
    piece = dice.choice((1 << 16, 1 << 16, 1_000, 7 if len(body) < 2_000 else 4_096))
    return Case(operation.id, operation.method, target.encode(), fields, body, piece, size)


def _name(dice: random.Random, kind: str, things: Things) -> str:
    if kind == "type":
        return dice.choice(("contacts",) * 6 + ("companies",) * 3 + (things["type"],) * 3 + (ABSENT["type"],))
    roll = dice.random()
    return (
        things[kind]
        if roll < 0.8
        else ABSENT[kind]
        if roll < 0.9
        else dice.choice(("%00", "%FF", "0", "%2F..", "a" * 300))
    )


def make_body(dice: random.Random, slots: Slots, media: str, things: Things) -> bytes:
    """A mutated body; one in fifty is long, and made to be hard to read."""
    assert slots.make_body is not None
    if slots is IMPORT and media != XLSX and dice.random() < 0.02:
        body = dice.choice(_HOSTILE[media]).make(dice.choice((2_000, 20_000, 200_000)))
        return body if dice.random() < 0.5 else _flip(dice, body)
    value = (
        {"items": [_item(dice, n) for n in range(dice.randint(0, 4))]} if slots is IMPORT else slots.make_body(things)
    )
    for _ in range(dice.choice((0, 0, 1, 1, 2, 4))):
        value = _mutate(dice, value)
    body = _write(dice, value, media)
    for _ in range(dice.choice((0, 0, 0, 1, 3))):
        body = _flip(dice, body)
    if dice.random() < 0.03:
        body = dice.choice(
            (
                b"",
                b"\xef\xbb\xbf" + body,
                body.decode("utf-8", "replace").encode("utf-16"),
                body * 50 if len(body) < 20_000 else body,
                body[::-1],
            )
        )
    return body


def _item(dice: random.Random, number: int) -> dict[str, Any]:
    item: dict[str, Any] = {"id": f"c{dice.randrange(50)}", "email": f"c{number}@example.com"}
    extra: dict[str, Any] = {
        "first_name": "Ann",
        "last_name": "Lee",
        "phone": "+49 30 1",
        "company": "ACME",
        "name": "ACME",
        "attributes": {"city": "Berlin", "a": {"b": [1, "é", None]}},
        "if_version": 1,
        "source_version": 7,
        "deleted": True,
    }
    for name in dice.sample(sorted(extra), dice.randint(0, 3)):
        item[name] = extra[name]
    return item


def _odd(dice: random.Random) -> Any:
    match dice.randrange(9):
        case 0 | 1 | 2:
            return dice.choice(_TEXTS)
        case 3 | 4:
            return dice.choice(_NUMBERS)
        case 5:
            return dice.choice((None, True, False, [], {}))
        case 6:
            return [dice.choice(_TEXTS)] * dice.randint(1, 5)
        case 7:
            return {dice.choice(_TEXTS): dice.choice(_NUMBERS)}
        case _:
            value: Any = 1
            for _ in range(dice.choice((3, 40, 400, 2_000))):
                value = [value] if dice.random() < 0.5 else {"a": value}
            return value


def _mutate(dice: random.Random, value: Any) -> Any:
    """One place of a tree is changed; most often a deep one."""
    if isinstance(value, dict) and value and dice.random() < 0.85:
        name = dice.choice(list(value))
        match dice.randrange(8):
            case 0:
                return {k: v for k, v in value.items() if k != name}
            case 1:
                return value | {dice.choice(_TEXTS): _odd(dice)}
            case 2:
                return {(dice.choice(_TEXTS) if k == name else k): v for k, v in value.items()}
            case _:
                return value | {name: _mutate(dice, value[name])}
    if isinstance(value, list) and value and dice.random() < 0.85:
        at = dice.randrange(len(value))
        match dice.randrange(6):
            case 0:
                return value[:at] + value[at + 1 :]
            case 1:
                return value + [value[at]] * dice.choice((1, 3, 30))
            case _:
                return [*value[:at], _mutate(dice, value[at]), *value[at + 1 :]]
    return _odd(dice)


def _write(dice: random.Random, value: Any, media: str) -> bytes:
    if media == JSON:
        return _json(value)
    items = value.get("items", value) if isinstance(value, dict) else value
    items = items if isinstance(items, list) else [items]
    end = dice.choice((b"\n", b"\n", b"\r\n", b"\r"))
    if media == NDJSON:
        return end.join([*(_json(item) for item in items), b""])
    rows = [item if isinstance(item, dict) else {"id": item} for item in items]
    names = list(dict.fromkeys(["id", "email", *(str(name) for row in rows for name in row)]))
    cut = dice.choice((",", ",", ";", "\t", "|"))
    lines = [[names, *([_cell(row.get(name, "")) for name in names] for row in rows)][n] for n in range(len(rows) + 1)]
    if media == XLSX:
        return write_workbook(dice, lines, _flip)
    quoted = [cut.join(f'"{cell}"' if cut in cell or dice.random() < 0.1 else cell for cell in line) for line in lines]
    return end.join(line.encode("utf-8", "surrogatepass") for line in [*quoted, ""])


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else _json(value).decode("utf-8", "replace")


def _json(value: Any) -> bytes:
    """JSON of whatever Python holds, lone surrogates and huge numbers too; without recursion, as some are deep."""
    parts: list[str] = []
    stack: list[Any] = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, _Text):
            parts.append(one.text)
        elif isinstance(one, dict):
            members = [
                piece for name, member in one.items() for piece in (_Text(_string(str(name)) + ":"), member, _COMMA)
            ]
            stack += [_Text("}"), *reversed(members[:-1]), _Text("{")]
        elif isinstance(one, list):
            entries = [piece for entry in one for piece in (entry, _COMMA)]
            stack += [_Text("]"), *reversed(entries[:-1]), _Text("[")]
        elif isinstance(one, str):
            parts.append(_string(one))
        else:
            parts.append(
                {None: "null", True: "true", False: "false"}[one] if one is None or isinstance(one, bool) else repr(one)
            )
    return "".join(parts).encode("utf-8", "surrogatepass")


class _Text(msgspec.Struct, frozen=True):
    text: str


_COMMA: Final = _Text(",")


def _string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c >= " " and not "\ud800" <= c <= "\udfff" else f"\\u{ord(c):04x}" for c in escaped) + '"'


def _flip(dice: random.Random, body: bytes) -> bytes:
    """One byte or run of bytes is changed, cut out, doubled or torn open."""
    at = dice.randrange(len(body) + 1)
    match dice.randrange(5):
        case 0:
            return body[:at] + bytes([dice.randrange(256)]) + body[at + 1 :]
        case 1:
            return body[:at] + body[at + dice.randrange(20) :]
        case 2:
            return body[:at] + body[at : at + dice.randrange(60)] + body[at:]
        case 3:
            return body[:at]
        case _:
            return body[:at] + dice.choice(_SPLICES) + body[at:]


def _compress(dice: random.Random, body: bytes) -> tuple[bytes, str, int]:
    """The body as it is sent, its Content-Encoding, and its size before."""
    roll = dice.random()
    if roll < 0.75:
        return body, "", len(body)
    if roll < 0.78:
        return body, dice.choice(_ENCODINGS), len(body)
    if roll < 0.781:
        body = b" " * 30_000_000 + body  # what it inflates to is a thousand times as long
    name = dice.choice(("gzip", "zstd"))
    squeeze: Callable[[bytes], bytes] = (
        zstandard.compress if name == "zstd" else lambda data: zlib.compress(data, 1, 31)
    )
    packed = squeeze(body)
    match dice.randrange(12):
        case 0:
            packed = _flip(dice, packed)
        case 1:
            packed = packed[: dice.randrange(len(packed))]
        case 2:
            packed += dice.choice((packed, b"trailing", b"\0" * 9, squeeze(b"")))
        case 3:
            packed = squeeze(packed)
    return packed, name, max(len(body), len(packed))
