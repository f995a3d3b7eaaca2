"""Header fields, queries and cursors: what may come over the wire is anything."""

from __future__ import annotations

import contextlib
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.files.pieces import Family
from app.errors import TrancheError
from app.http import cursors, headers
from app.http.errors import CursorInvalid, NotAcceptable, UnsupportedMediaType
from app.http.headers import JSON, NDJSON, Fields, Preferences

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


@given(st.binary(max_size=80))
def test_no_query_makes_anything_but_a_refusal(query: bytes) -> None:
    with contextlib.suppress(TrancheError):
        found = headers.read_query({"query_string": query}, ("limit", "atomic"))
        headers.read_flag(found, "atomic")
        headers.read_repeated({"query_string": query}, "map")
        assert 1 <= headers.read_limit(found, default=10, most=20) <= 20


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=255))
def test_a_quoted_key_is_its_text(key: str) -> None:
    quoted = '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert headers.read_key(fields("idempotency-key", quoted)) == (key, quoted)


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("wait=10", Preferences(10)),
        ("return=minimal, wait=5", Preferences(5, minimal=True)),
        (
            'respond-async, wait="7" ; foo=bar, return = minimal',
            Preferences(7, minimal=True, respond_async=True),
        ),
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
        with pytest.raises(NotAcceptable, match="is there as"):
            headers.choose_type(fields("accept", accept), (JSON, NDJSON))
    else:
        assert headers.choose_type(fields("accept", accept), (JSON, NDJSON)) == chosen


@given(st.uuids(), st.integers(0, 2**31 - 1))
def test_a_cursor_reads_back_for_its_own_list_alone(job_id: uuid.UUID, index: int) -> None:
    cursor = cursors.encode_item(job_id, index)
    assert cursors.decode_item(cursor, job_id) == index
    assert cursors.decode_job(cursors.encode_job(job_id)) == job_id
    with pytest.raises(CursorInvalid, match="not one that this list gave out"):
        cursors.decode_item(cursor, uuid.uuid4())
    with pytest.raises(CursorInvalid, match="not one that this list gave out"):
        cursors.decode_job(cursor)


@given(st.text(max_size=80))
def test_no_text_is_a_cursor_by_chance(text: str) -> None:
    with pytest.raises(CursorInvalid, match="not one that this list gave out"):
        cursors.decode_item(text, uuid.UUID(int=1))


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
            "'text/html' is not taken here; send application/json or application/x-ndjson or text/csv",
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
    assert caught.value.headers["Accept-Post"] == "application/json, application/x-ndjson, text/csv"
