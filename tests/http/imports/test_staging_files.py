"""Files of the wild, streamed: what is true of a small one is true of one that arrives in many pieces."""

from __future__ import annotations

import io
import itertools
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import msgspec
import pytest

from app.resources.decoding import UnreadablePiece
from app.settings import Settings
from tests.http.conftest import Answer, Api, aiohttp_session, person, serve
from tests.http.imports.test_staging import CSV, NDJSON, read_staged, rows, taken

HEADER = "Customer Id;First Name;E-Mail;City;;\r\n"
MAP = "?map=Customer%20Id:id"
MANY = 400
_numbers = itertools.count(1)


@pytest.fixture
async def narrow(settings: Settings, api_key: str) -> AsyncIterator[Api]:
    """A service that answers almost nothing at once, stores chunks of 33, and has time for bodies in tiny pieces."""
    tight = msgspec.structs.replace(settings, max_sync_bytes=1_500, import_chunk_items=33, body_timeout=600.0)
    async with serve(tight) as url, aiohttp_session() as session:
        yield Api(session, url, api_key)


def export(count: int, newline: str = "\r\n") -> str:
    """As a spreadsheet writes it: delimiters too many, quoted line breaks, empty rows."""
    out = io.StringIO()
    out.write(HEADER.replace("\r\n", newline))
    for n in range(count):
        city = f'"Köln{newline}""am Rhein"""' if n % 3 else "Bonn"
        out.write(f"c{n};Zoë {n};c{n}@example.com;{city};;{newline}")
        if n % 50 == 7:
            out.write(f";;;;;{newline}{newline}")
    return out.getvalue()


async def stream(api: Api, body: bytes, query: str, headers: dict[str, str], size: int = 37) -> Answer:
    """In pieces that respect nothing."""

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    sent = headers | {"Idempotency-Key": f"stream-{next(_numbers)}"}
    return await api.request("POST", f"/v1/contacts:bulk{query}", headers=sent, data=pieces())


async def items(db: asyncpg.Connection[Any], answer: Answer) -> list[dict[str, Any]]:
    found = await read_staged(db, taken(answer))
    assert not any(isinstance(piece, UnreadablePiece) for piece in found)
    return [msgspec.json.decode(piece) for piece in found if not isinstance(piece, UnreadablePiece)]


@pytest.mark.parametrize(
    ("codec", "charset"),
    [
        ("utf-8", ""),
        ("utf-8-sig", ""),
        ("utf-16", ""),
        ("utf-16-le", "; charset=utf-16le"),
        ("cp1252", "; charset=windows-1252"),
    ],
)
@pytest.mark.parametrize("newline", ["\r\n", "\n", "\r"])
async def test_encodings_and_line_ends(
    narrow: Api, db: asyncpg.Connection[Any], codec: str, charset: str, newline: str
) -> None:
    headers = {"Content-Type": "text/csv" + charset}
    small = await narrow.push(export(6, newline).encode(codec), query=MAP, headers=headers)
    assert small.json()["summary"] == {"total": 6, "succeeded": 6, "failed": 0, "retry": 0}
    contact = (await narrow.get("/v1/contacts/c1")).json()
    city = f'Köln{newline}"am Rhein"'
    assert (contact["first_name"], contact["attributes"]) == ("Zoë 1", {"City": city})
    body = export(MANY, newline).encode(codec)
    large = await items(db, await stream(narrow, body, MAP, headers, size=997))
    assert [item["id"] for item in large] == [f"c{n}" for n in range(MANY)]
    assert large[1] == {"id": "c1", "email": "c1@example.com", "first_name": "Zoë 1", "attributes": {"City": city}}


async def test_pieces_of_any_size_make_the_same_file(narrow: Api, db: asyncpg.Connection[Any]) -> None:
    body = export(60).encode("utf-16")
    first = await stream(narrow, body, MAP, CSV, size=len(body))
    for size in (1, 7, 4_096):
        assert await items(db, await stream(narrow, body, MAP, CSV, size=size)) == await items(db, first)


@pytest.mark.parametrize("count", [0, MANY])
async def test_windows_1252_is_refused_until_it_is_named(narrow: Api, db: asyncpg.Connection[Any], count: int) -> None:
    body = (rows(count).decode() + "x,é@example.com\n").encode("cp1252")
    refused = await narrow.push(body, headers=CSV, key="k")
    assert (refused.status, refused.json()["code"]) == (400, "MALFORMED_REQUEST")
    for words in ("0xE9", f"line {count + 2}", "charset=windows-1252"):
        assert words in refused.json()["detail"]
    taken_now = await narrow.push(body, headers={"Content-Type": "text/csv; charset=windows-1252"}, key="k")
    assert taken_now.status == (202 if count else 207)


@pytest.mark.parametrize("count", [0, MANY])
async def test_a_header_that_cannot_be_used_is_refused_before_there_is_a_job(
    narrow: Api, db: asyncpg.Connection[Any], count: int
) -> None:
    more = rows(count).partition(b"\n")[2]
    for header, query, words in (
        (b"Customer Id,Email\n", "", ["'Customer Id'", "?map=Customer%20Id:id"]),
        (b"id,email,id\n", "", ["'id' more than once"]),
        (b"id,,email\n", "", ["column 2 of 3 has no name"]),
        (b"id,email,E-Mail\n", "", ["'email' and 'E-Mail'"]),
        (b"id,email\n", "?map=Kunde:id", ["'Kunde'"]),
        (b"id,email" + b",x" * 2_000 + b"\n", "", ["2002 columns"]),
        (b"i\0d\0,\0e\0\n", "", ["NUL", "utf-16le"]),
        (b'id,"email\n', "", ["never closed"]),
    ):
        answer = await narrow.push(header + more, query=query, headers=CSV)
        assert (answer.status, answer.json()["code"]) == (400, "INVALID_HEADER"), (header, answer.body)
        assert all(word in answer.json()["detail"] for word in words), answer.json()["detail"]
    assert await db.fetchval("SELECT count(*) FROM jobs") == 0


@pytest.mark.parametrize("count", [0, MANY])
async def test_a_broken_row_fails_alone(narrow: Api, db: asyncpg.Connection[Any], count: int) -> None:
    """Its cells, or its text, are kept so that they can be given back."""
    body = rows(count) + (
        b"ragged\n"
        b"r2,r2@example.com,more\n"
        b'"quoted"x,q@example.com\n'
        b'o,"open\n'
        b"nul\0,n@example.com\n"
        b"padded, p@example.com\n"
        b"last,last@example.com\n"
    )
    answer = await narrow.push(body, headers=CSV)
    if not count:
        assert [item["status"] for item in answer.json()["items"]] == ["failed"] * 5 + ["ok"] * 2
        assert answer.json()["items"][5]["warnings"][0]["code"] == "TRIMMED"
        return
    found = await read_staged(db, taken(answer))
    assert len(found) == count + 7
    told = [piece for piece in found if isinstance(piece, UnreadablePiece)]
    assert [(piece.cells, piece.text) for piece in told] == [
        (["ragged"], ""),
        (["r2", "r2@example.com", "more"], ""),
        (None, '"quoted"x,q@example.com'),
        (None, 'o,"open'),
    ]
    assert [piece.errors[0].detail.partition(":")[0] for piece in told] == [f"line {count + 2 + n}" for n in range(4)]
    assert found[-1] == b'{"id":"last","email":"last@example.com"}'


async def test_a_line_without_end_fails_alone(narrow: Api, db: asyncpg.Connection[Any]) -> None:
    long = b"x" * 1_100_000
    for body, headers, index in (
        (rows(MANY) + long + b"\nlast,last@example.com\n", CSV, MANY),
        (long + b"\n" + msgspec.json.encode(person(1)), NDJSON, 0),
    ):
        found = await read_staged(db, taken(await narrow.push(body, headers=headers)))
        assert len(found) == index + 2
        piece = found[index]
        assert isinstance(piece, UnreadablePiece)
        assert piece.errors[0].code == "ITEM_TOO_LARGE"
    body = msgspec.json.encode({"items": [person(1), person(2, company="x" * 1_100_000), person(3)]})
    found = await read_staged(db, taken(await narrow.push(body)))
    assert [isinstance(piece, UnreadablePiece) for piece in found] == [False, True, False]


async def test_ndjson_lines_are_stored_as_they_are(narrow: Api, db: asyncpg.Connection[Any]) -> None:
    lines = [msgspec.json.encode(person(n)) for n in range(MANY)]
    lines[7:7] = [b'{"id":"\xff"}', b"[[", b"", b'{"id":7}', b'{"id":"\\u0000"}']
    body = b"\xef\xbb\xbf" + b"\r\n".join(lines)
    job_id = taken(await stream(narrow, body, "", NDJSON, size=1_001))
    assert await read_staged(db, job_id) == [line for line in lines if line]
    hashes = await db.fetchval("SELECT id_hashes FROM staged_chunks WHERE job_id = $1 AND first_index = 0", job_id)
    assert [value is None for value in hashes[:13]] == [False] * 7 + [True] * 4 + [False] * 2
    assert hashes[0] == await db.fetchval("SELECT hashtextextended('c0', 0)")
    wide = await narrow.push(b"".join(lines[:99]).decode("latin-1").encode("utf-16"), headers=NDJSON)
    assert (wide.status, wide.json()["code"]) == (400, "MALFORMED_REQUEST")
