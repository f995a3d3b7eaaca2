"""Failed items given back as CSV or NDJSON: pushed again, they are the same items."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.files.csv_columns import NOTES
from app.files.failed_rows_file import CsvWriter, NdjsonWriter, Note, Source, Stored, read_stored_keys
from app.files.readers import Contents, Family, Form, Kept
from app.resources.decoding import Noted, UnreadablePiece
from tests.types import NAMES
from tests.unit.files.reading import read_pieces

CELLS = st.text(st.sampled_from("'=+-@\t\r\n;|a1 ,\"\0") | st.characters(exclude_categories=["Cs"]), max_size=6)
KEYS = st.text(
    st.sampled_from("'=+-@\t;| ,\"") | st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6
)
NOTE = Note("INVALID_EMAIL", "=not an address", 0)


def read(body: bytes, **mapping: str) -> Contents:
    return read_pieces(body, Form(family=Family.CSV, mapping=mapping), max_items=100)


def write(kept: Kept | None, sources: list[Source | None], *keys: str) -> bytes:
    layout = CsvWriter(NAMES, kept, keys)
    return layout.encode_header() + layout.encode_rows((NOTE, source, "c1") for source in sources)


def table(body: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(body.decode(), newline="")))


def items(contents: Contents) -> list[Any]:
    return [
        msgspec.json.decode(p.item if isinstance(p, Noted) else p)
        for p in contents.pieces
        if not isinstance(p, UnreadablePiece)
    ]


def csv_of(*lines: list[str]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n", quoting=csv.QUOTE_ALL).writerows(lines)
    return out.getvalue().encode()


def test_reasons_stand_before_the_columns_as_they_were_named() -> None:
    sent = read(b"E-Mail Address,ID,First Name,city\r\nx@y.de,1,+Ann,Bonn\r\n", **{"E-Mail Address": "email"})
    assert write(sent.kept, [*sent.pieces]) == (
        b"error_code,error_detail,retry_after_seconds,email,ID,First Name,city\r\n"
        b"INVALID_EMAIL,'=not an address,0,x@y.de,1,'+Ann,Bonn\r\n"
    )


@given(st.lists(KEYS, max_size=3, unique=True), st.lists(st.tuples(CELLS, CELLS, CELLS, CELLS), min_size=1, max_size=3))
def test_pushed_as_it_is_it_holds_the_same_items(keys: list[str], rows: list[tuple[str, ...]]) -> None:
    """Without `map=`, although the first file needed it, and once more from the second file."""
    header = ["Customer Id", "email", "Id", *(f"k{key}" for key in keys)]
    mapping = {"Customer Id": "id"}
    sent = read(csv_of(header, *(["1", *row[: len(header) - 1]] for row in rows)), **mapping)
    first = write(sent.kept, [*sent.pieces])
    again = read(first)
    assert items(again) == items(sent)
    assert len(again.pieces) == len(sent.pieces)
    assert write(again.kept, [*again.pieces]) == first
    assert items(read(first, **mapping)) == items(sent)


@given(st.dictionaries(KEYS, CELLS, max_size=4))
def test_the_keys_of_json_items_come_back(attributes: dict[str, str]) -> None:
    attributes = {key: value.strip() for key, value in attributes.items()}  # a cell has no white space around it
    told = {key: value for key, value in attributes.items() if value}
    item = {"id": "1", "email": "-a@b.de", "attributes": told} if told else {"id": "1", "email": "-a@b.de"}
    body = write(None, [msgspec.json.encode(item)], *told)
    assert items(read(body)) == [item]


def test_a_key_that_is_named_like_something_else_stays_a_key() -> None:
    item = {"id": "1", "email": "a@b.de", "attributes": {"email": "x", "error_code": "y", "attributes.z": "z"}}
    body = write(None, [msgspec.json.encode(item)], *item["attributes"])  # type: ignore[misc]
    assert items(read(body)) == [item]


def test_json_that_a_csv_cannot_tell_becomes_text() -> None:
    """A number, a list, an object as JSON; null as an empty cell; an unknown member as one more column."""
    piece = (
        b'{"id":"1","email":5,"first_name":null,"source_version":7,'
        b'"attributes":{"a":1.50,"b":[1],"c":true},"nick":{"x":1}}'
    )
    assert table(write(None, [piece], "a", "b", "c", "nick"))[1][3:] == [
        *["1", "5", "", "", "", "", "", "7"],
        *["1.50", "[1]", "true", '{"x":1}'],
    ]


@pytest.mark.parametrize(
    "piece",
    [
        b"[1,2]",
        b'{"id":"1"',
        b'=cmd|"x"!A1',
        b"\xff\xfe",
        b'{"id":"1","email":"a@b.de","attributes":{"a\\u0000":1}}',
        b'{"id":"1","id":"2","email":"a@b.de"}',
        b'{"id":"1","email":"a@b.de","attributes":{"a": "x", "a" : "y"}}',
        UnreadablePiece([], text='"abc"def,=cmd()'),
        UnreadablePiece([]),
    ],
)
def test_what_has_no_columns_is_one_safe_cell_and_fails_again(piece: Source) -> None:
    body = write(None, [piece])
    (cells,) = table(body)[1:]
    assert len(cells) <= len(NOTES) + 1
    assert not cells[-1].startswith(("=", "+", "-", "@"))
    (again,) = read(body).pieces
    assert isinstance(again, UnreadablePiece)


def test_a_ragged_row_keeps_its_cells_through_every_round() -> None:
    sent = read(b"id,email,city\r\n1,a@b.de\r\n2,a@b.de,+x,=y,z\r\n")
    first = write(sent.kept, [*sent.pieces])
    assert [row[3:] for row in table(first)[1:]] == [["1", "a@b.de"], ["2", "a@b.de", "'+x", "'=y", "z"]]
    again = read(first)
    assert write(again.kept, [*again.pieces]) == first


def test_the_delimiter_is_never_mistaken() -> None:
    """A name full of semicolons, which would cut the header into more cells than its commas do."""
    sent = read(b'"id","email","a;b;c;d;e;f;g;h"\r\n1,a@b.de,x\r\n')
    again = read(write(sent.kept, [*sent.pieces]))
    assert items(again) == items(sent)
    assert items(again)[0]["attributes"] == {"a;b;c;d;e;f;g;h": "x"}


def test_as_many_columns_as_a_file_may_have_come_back() -> None:
    """The notes do not count."""
    header = ["id", "email", *(f"k{n}" for n in range(1998))]
    sent = read(csv_of(header, ["1", "a@b.de", *["v"] * 1998]))
    assert items(read(write(sent.kept, [*sent.pieces]))) == items(sent)


def test_an_item_of_which_nothing_was_kept_has_its_id() -> None:
    assert table(write(None, [None]))[1][3:] == ["c1", *[""] * 7]


def test_stored_values_that_are_no_text_are_left_as_they_are() -> None:
    assert read_stored_keys('{"a": "x", "b": 5, "c": null, "d": {"e": "f"}}') == {"a": "x"}


def lines(*sources: Source | None) -> bytes:
    return NdjsonWriter().encode_rows((NOTE, source, "c1") for source in sources)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(), VALUES, max_size=4), min_size=1, max_size=4), st.booleans())
def test_ndjson_gives_json_items_back_with_every_value(rows: list[dict[str, Any]], pretty: bool) -> None:
    body = json.dumps({"items": rows}, indent=1 if pretty else None).encode()
    sent = read_pieces(body, Form(), max_items=100)
    again = read_pieces(lines(*sent.pieces), Form(family=Family.NDJSON), max_items=100)
    assert [msgspec.json.decode(bytes(p)) for p in again.pieces] == [msgspec.json.decode(bytes(p)) for p in sent.pieces]


def test_ndjson_lines_come_back_byte_for_byte() -> None:
    body = b'{"id": "1",  "email":null}\n{broken\n{"id":"2","id":"3"}\n{"email":"\xff"}\n[1.50]\n'
    sent = read_pieces(body, Form(family=Family.NDJSON), max_items=100)
    assert lines(*sent.pieces) == body


def test_a_csv_row_that_is_no_item_keeps_its_cells_in_ndjson() -> None:
    sent = read(b'id,email\r\n1\r\n2,"x"y\r\n3,  c@d.de\r\n')
    assert lines(*sent.pieces, None).splitlines() == [
        b'["1"]',
        b'"2,\\"x\\"y"',
        b'{"id":"3","email":"c@d.de"}',
        b'{"id":"c1"}',
    ]


def test_a_stored_item_has_its_numbers_and_nested_attributes_in_ndjson() -> None:
    stored = Stored({"id": "1", "email": "a@b.de", "source_version": 7}, '{"a":1.5,"b":{"c":null}}')
    assert lines(stored) == (b'{"id":"1","email":"a@b.de","source_version":7,"attributes":{"a":1.5,"b":{"c":null}}}\n')
