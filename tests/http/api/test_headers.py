"""Header fields, queries and cursors: what may come over the wire is anything."""

from __future__ import annotations

import contextlib
import uuid
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import Invalid, TrancheError
from app.files.readers import Family
from app.http import headers
from app.http.cursors import Cursor, Index, Number
from app.http.errors import CursorInvalid, NotAcceptable, UnsupportedMediaType
from app.http.headers import JSON, NDJSON, Fields, Preferences
from app.http.query_strings import compile_query
from app.vocabulary.states import ErrorCode

_FIELD = st.binary(max_size=60).filter(lambda b: not set(b) & {0, 10, 13})


def fields(name: str, *values: str) -> Fields:
    return Fields([(name.encode(), value.encode("latin-1")) for value in values])


@given(st.lists(_FIELD, max_size=3))
def test_no_header_makes_anything_but_a_refusal(values: list[bytes]) -> None:
    names = ("idempotency-key", "prefer", "accept", "content-type", "if-none-match")
    given_fields = Fields([(name.encode(), value) for name in names for value in values])
    readers: list[Any] = [
        headers.read_key,
        headers.choose_type,
        headers.require_json,
        headers.read_type,
        lambda f: headers.read_preferences(f, max_wait=30),
    ]
    for read in readers:
        with contextlib.suppress(TrancheError):
            read(given_fields)


class Query(msgspec.Struct):
    limit: Annotated[int, msgspec.Meta(ge=1, le=20)] = 10
    atomic: bool = False
    code: ErrorCode | None = None
    order: Literal["up", "down"] = "up"
    job_id: uuid.UUID | None = None
    name: str | None = None
    before: datetime | None = None
    map: list[str] = []


read_query = compile_query(Query)
_NAMES = st.sampled_from([b"limit=", b"atomic=", b"code=", b"order=", b"job_id=", b"name=", b"map=", b""])


@given(st.lists(st.tuples(_NAMES, st.binary(max_size=40)), max_size=4))
def test_no_query_makes_anything_but_a_refusal(pairs: list[tuple[bytes, bytes]]) -> None:
    query = b"&".join(name + value for name, value in pairs)
    with contextlib.suppress(TrancheError):
        assert 1 <= read_query({"query_string": query}).limit <= 20


def test_a_query_is_read_as_its_types_say() -> None:
    query = b"limit=20&atomic=1&code=INTERNAL&order=down&name=%C3%A9&map=a%3Ab&map=c"
    found = Query(20, True, ErrorCode.INTERNAL, "down", None, "é", None, ["a:b", "c"])
    assert read_query({"query_string": query}) == found
    assert read_query({"query_string": b""}) == Query()


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        (b"limit=21", 'limit="21" must be a whole number from 1 to 20.'),
        (b"limit=x", 'limit="x" must be a whole number from 1 to 20.'),
        (b"atomic=yes", 'atomic="yes" must be true or false.'),
        (b"order=in", 'order="in" must be one of: down, up.'),
        (b"job_id=1", 'job_id="1" must be a UUID.'),
        (b"before=now", 'before="now" must be an RFC 3339 timestamp, as 2026-01-15T09:30:00Z.'),
        (b"name=a&name=b", "The parameter name appears twice; send it once."),
        (b"x=1", 'There is no parameter "x"; there are: atomic, before, code, job_id, limit, map, name, order.'),
    ],
)
def test_a_query_is_refused_with_what_is_allowed(query: bytes, detail: str) -> None:
    with pytest.raises(Invalid) as refused:
        read_query({"query_string": query})
    assert refused.value.detail == detail


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=255))
def test_a_quoted_key_is_its_text(key: str) -> None:
    quoted = '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert headers.read_key(fields("idempotency-key", quoted)) == (key, quoted)


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("wait=10", Preferences(10)),
        ("return=minimal, wait=5", Preferences(5, minimal=True)),
        ('respond-async, wait="7" ; foo=bar, return = minimal', Preferences(7, minimal=True, respond_async=True)),
        ("WAIT=3, wait=9", Preferences(3)),
        ("wait=99999", Preferences(30)),
        ("wait=-1", Preferences()),
        ("wait=x, return=representation", Preferences()),
        (",,;=,", Preferences()),
    ],
)
def test_preferences_are_read_as_rfc_7240_says(sent: str, meant: Preferences) -> None:
    assert headers.read_preferences(fields("prefer", sent), max_wait=30) == meant
    assert headers.read_preferences(fields("prefer", *sent.split(", ")), max_wait=30) == meant


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("application/x-ndjson", NDJSON),
        ("application/json;q=0.5, application/x-ndjson", NDJSON),
        ("application/*", JSON),
        ("application/x-ndjson;q=0.1, */*;q=0.5", JSON),
        ("application/json;q=0, */*", NDJSON),
        ("text/html", None),
        ("*/*;q=0", None),
    ],
)
def test_the_best_offer_is_chosen(accept: str, chosen: str | None) -> None:
    if chosen is None:
        with pytest.raises(NotAcceptable, match="is available as"):
            headers.choose_type(fields("accept", accept), (JSON, NDJSON))
    else:
        assert headers.choose_type(fields("accept", accept), (JSON, NDJSON)) == chosen


@given(st.uuids(), st.integers(0, 2**31 - 1))
def test_a_cursor_reads_back_for_its_own_list_alone(job_id: uuid.UUID, index: int) -> None:
    items = Cursor[tuple[uuid.UUID, int]]("items", tuple[uuid.UUID, Index])
    cursor = items.encode((job_id, index))
    assert items.decode(cursor) == (job_id, index)
    history = Cursor[tuple[uuid.UUID, int]]("history", tuple[uuid.UUID, Index])
    for other in (history, Cursor[uuid.UUID]("jobs", uuid.UUID), Cursor[uuid.UUID]("items", uuid.UUID)):
        with pytest.raises(CursorInvalid, match="not one that this list gave out"):
            other.decode(cursor)


@given(st.text(max_size=80))
def test_no_text_is_a_cursor_by_chance(text: str) -> None:
    with pytest.raises(CursorInvalid, match="not one that this list gave out"):
        Cursor[int]("audit", Number).decode(text)


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("", (Family.JSON, "utf-8")),
        ("Application/JSON; charset=UTF-8", (Family.JSON, "utf-8")),
        ("text/csv", (Family.CSV, "utf-8")),
        ('text/csv; header=present; charset="Windows-1252"', (Family.CSV, "cp1252")),
        ("TEXT/CSV;charset=utf-16", (Family.CSV, "utf-16")),
        ("application/x-ndjson", (Family.NDJSON, "utf-8")),
        ("application/ndjson; charset=us-ascii", (Family.NDJSON, "utf-8")),
        ("application/jsonl", (Family.NDJSON, "utf-8")),
    ],
)
def test_the_content_type_tells_how_to_read(sent: str, meant: tuple[Family, str]) -> None:
    assert headers.read_type(fields("content-type", sent)) == meant


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (
            "text/html",
            "'text/html' is not supported here; send application/json or application/x-ndjson or text/csv or ",
        ),
        ("text/csv; charset=klingon", "windows-1252"),
        ("text/csv; header=absent", "first line"),
        ("application/x-ndjson; charset=utf-16", "NDJSON is sent as UTF-8"),
        ("application/json; charset=windows-1252", "JSON is sent as UTF-8"),
    ],
)
def test_a_type_that_is_not_taken_is_refused_in_words(sent: str, words: str) -> None:
    with pytest.raises(UnsupportedMediaType, match=words) as caught:
        headers.read_type(fields("content-type", sent))
    assert caught.value.headers["Accept-Post"] == f"application/json, application/x-ndjson, text/csv, {headers.XLSX}"
