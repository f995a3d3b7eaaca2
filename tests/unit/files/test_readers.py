"""Files of the wild: whatever their bytes and however they arrive, every row is told apart, and costs itself alone."""

from __future__ import annotations

import csv
import io
import json
import time
import tracemalloc
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.files.csv_columns import HeaderError
from app.files.csv_mapping import MappingError
from app.files.csv_reader import MAX_LINE, Lines, Record, Records
from app.files.encoding import CHARSETS, Decoder, UndecodableText
from app.files.json_document import MalformedBody
from app.files.ndjson import NdjsonLines
from app.files.readers import WORDING, Family, Form, Reader, keep, open_reader
from app.files.staging_codec import decode_pieces, encode_pieces
from app.resources.decoding import Noted, Piece, UnreadablePiece
from tests.types import NAMES
from tests.unit.files.json_oracle import TooManyItems
from tests.unit.files.reading import read_pieces


def cut(data: Any, cuts: list[int]) -> list[Any]:
    ends = sorted({0, len(data), *(at % (len(data) + 1) for at in cuts)})
    return [data[a:b] for a, b in pairwise(ends)]


@given(st.lists(st.integers(1, 4), max_size=30))
def test_lines_are_stored_as_they_are(steps: list[int]) -> None:
    lines = [sum(steps[: n + 1]) for n in range(len(steps))]
    pieces, again, _ = decode_pieces(encode_pieces([b"{}"] * len(lines), lines))
    assert (len(pieces), [*again]) == (len(lines), lines)


def run(machine: Any, chunks: list[Any]) -> list[Any]:
    """Everything that comes out; the error, if one ends it."""
    found: list[Any] = []
    try:
        for chunk in chunks:
            found += machine.feed(chunk)
        found += machine.finish()
    except (MalformedBody, HeaderError) as error:
        return [type(error), error.detail]
    return found


def records(text: str, delimiter: str | None = ",") -> list[Record]:
    return run(Records(delimiter), [text])


def pieces(content: bytes | str, **form: Any) -> list[Piece]:
    body = content.encode() if isinstance(content, str) else content
    return read_pieces(body, Form(family=Family.CSV) if not form else Form(**form), max_items=1_000).pieces


def items(found: list[Piece]) -> list[Any]:
    return [
        json.loads(piece.item if isinstance(piece, Noted) else bytes(piece))
        for piece in found
        if not isinstance(piece, UnreadablePiece)
    ]


def faults(found: list[Piece]) -> list[tuple[str, str]]:
    return [(piece.errors[0].code, piece.errors[0].detail) for piece in found if isinstance(piece, UnreadablePiece)]


def refusal(content: bytes | str, **form: Any) -> str:
    with pytest.raises((HeaderError, MalformedBody)) as caught:
        pieces(content, **form)
    return str(caught.value)


# Where hostile and ordinary files differ from one another: few letters, many quotes and line ends.
_WILD = st.text(st.sampled_from('a";,\r\n\té\u2028\x0b\0'), max_size=60)
_CUTS = st.lists(st.integers(0, 500), max_size=8)


@given(_WILD, _CUTS, st.sampled_from([",", ";", None]))
def test_however_text_is_cut_the_same_records_come_out(text: str, cuts: list[int], delimiter: str | None) -> None:
    whole = records(text, delimiter)
    assert run(Records(delimiter), cut(text, cuts)) == whole
    assert run(Records(delimiter), list(text)) == whole


@given(st.binary(max_size=80) | _WILD.map(str.encode), _CUTS, st.sampled_from([Family.CSV, Family.NDJSON]))
def test_however_bytes_are_cut_the_same_pieces_come_out(data: bytes, cuts: list[int], family: Family) -> None:
    """And nothing but the named errors, and nothing that is no JSON, ever does."""
    for head in (b"", b"id,email,x\n", b'{"id":"1"}\n'):
        form = Form(family=family)
        whole = run(open_reader(form, NAMES), [head + data])
        assert run(open_reader(form, NAMES), cut(head + data, cuts)) == whole
        assert run(open_reader(form, NAMES), [bytes([byte]) for byte in head + data]) == whole
        if family is Family.CSV and not (whole and isinstance(whole[0], type)):
            items(whole)


@given(st.binary(max_size=60), st.sampled_from(sorted(set(CHARSETS.values()))), _CUTS)
def test_however_bytes_are_cut_the_same_text_or_fault_comes_out(data: bytes, charset: str, cuts: list[int]) -> None:
    def decode(chunks: list[bytes]) -> Any:
        decoder = Decoder(charset)
        try:
            return "".join([*map(decoder.feed, chunks), decoder.finish()])
        except UndecodableText as error:
            return error.detail, error.offset, error.line
        except MalformedBody as error:  # it begins like a PDF or an archive
            return error.detail

    assert decode(cut(data, cuts)) == decode([data])
    assert decode([bytes([byte]) for byte in data]) == decode([data])


_CELL = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)


@given(
    rows=st.lists(st.lists(_CELL, min_size=2, max_size=4), max_size=6),
    delimiter=st.sampled_from(",;\t|"),
    newline=st.sampled_from(["\n", "\r\n", "\r"]),
    sparing=st.booleans(),
    cuts=_CUTS,
)
def test_what_python_writes_is_read_back(
    rows: list[list[str]], delimiter: str, newline: str, sparing: bool, cuts: list[int]
) -> None:
    out = io.StringIO()
    # Python quotes a line break only where it is part of its own.
    newline, quoting = ("\r\n", csv.QUOTE_MINIMAL) if sparing else (newline, csv.QUOTE_ALL)
    csv.writer(out, delimiter=delimiter, lineterminator=newline, quoting=quoting).writerows(rows)
    found = run(Records(delimiter), cut(out.getvalue(), cuts))
    assert [record.cells for record in found] == rows


def test_lines_are_counted_within_quotes_too() -> None:
    found = records('a,b\r\n"1\r\n2\r3\n4",x\r\r\ny,z')
    assert [(r.line, r.cells) for r in found] == [(1, ["a", "b"]), (2, ["1\r\n2\r3\n4", "x"]), (7, ["y", "z"])]


def test_only_line_breaks_break_lines() -> None:
    assert [r.cells for r in records("a\u2028b\x0bc\x85d,e\n")] == [["a\u2028b\x0bc\x85d", "e"]]


def test_an_open_quote_costs_its_own_line_only() -> None:
    good = "".join(f"{i},x\n" for i in range(50_000))
    found = records(f'0,"open\n{good}')
    assert (found[0].line, found[0].problem) == (1, "a quote is opened in this line and never closed")
    assert [record.cells for record in found[1:]] == [[str(i), "x"] for i in range(50_000)]


@pytest.mark.parametrize("line", ['"', 'a,"b\n', '"a""b\n', '""a"\n', '"\n' * 5 + "x\n", '","",\n'])
def test_quotes_cannot_make_it_slow(line: str) -> None:
    """Two hundred thousand characters, in chunks as small as a line: quadratic work would take minutes."""
    text = line * (200_000 // len(line))
    machine = Records(",")
    began = time.process_time()
    for start in range(0, len(text), 50):
        machine.feed(text[start : start + 50])
    machine.finish()
    assert time.process_time() - began < 5


@pytest.mark.parametrize("size", [1_000, 65_536])
@pytest.mark.parametrize("ending", ["\n", "\r", "\r\n", ""])
def test_a_line_without_end_is_refused_alone(size: int, ending: str) -> None:
    fitting, long = "y" * MAX_LINE, "x" * (MAX_LINE + 1)
    text = f"a\n{fitting}{ending or chr(10)}{long}{ending}"
    machine = Lines()
    found = [line for start in range(0, len(text), size) for line in machine.feed(text[start : start + size])]
    found += machine.finish()
    assert [line and line[0] for line in found] == ["a", "y", None]
    assert machine.number == 3
    wide = [r for r in records("a,b\n" + "x" * 3_000_000 + "\n1,2\n") if r.line > 1]
    assert [(r.line, r.cells, r.too_long) for r in wide] == [(2, None, True), (3, ["1", "2"], False)]


def test_memory_stays_that_of_a_record() -> None:
    """A file without line ends, one that never closes a quote, and one of NDJSON: 40 MB each."""
    chunk = b"x" * 65_536
    tracemalloc.start()
    try:
        for form, head in (
            (Form(family=Family.CSV), b"id,email\n"),
            (Form(family=Family.CSV), b'id,email\n1,"'),
            (Form(family=Family.NDJSON), b"[["),
        ):
            reader = open_reader(form, NAMES)
            found = reader.feed(head)
            for _ in range(600):
                found += reader.feed(chunk)
            found += reader.finish()
            assert [code for code, _ in faults(found)] == ["ITEM_TOO_LARGE"]
        assert tracemalloc.get_traced_memory()[1] < 15_000_000
    finally:
        tracemalloc.stop()


def test_a_row_becomes_an_item() -> None:
    content = (
        "Customer Id,E-Mail,First Name,LAST_NAME,City,if-version,Source Version\n"
        "c1,a@b.example,Ann,Bee,Köln,3,1763687117000000000\n"
        'c2,b@b.example,,,"x, ""y""\nz",soon,1.5\n'
        ",,,,,,\n"
        "c3,c@b.example,,,,-1,99999999999999999999\n"
    )
    assert items(pieces(content, family=Family.CSV, mapping={"Customer Id": "id"})) == [
        {
            "id": "c1",
            "email": "a@b.example",
            "first_name": "Ann",
            "last_name": "Bee",
            "if_version": 3,
            "source_version": 1763687117000000000,
            "attributes": {"City": "Köln"},
        },
        {
            "id": "c2",
            "email": "b@b.example",
            "if_version": "soon",
            "source_version": "1.5",
            "attributes": {"City": 'x, "y"\nz'},
        },
        {"id": "c3", "email": "c@b.example", "if_version": -1, "source_version": "99999999999999999999"},
    ]


def test_a_broken_row_costs_only_itself_and_names_its_line() -> None:
    content = (
        'id,email,x\n1,a@b.example,"two\nlines"\n2,a@b.example\n3,a@b.example,x,y\n4,a@b.example,"x"y\n'
        f"5,a@b.example,{'x' * 200_000}\n6,a@b.example,x\n"
    )
    found = pieces(content)
    assert [item["id"] for item in items(found)] == ["1", "6"]
    told = faults(found)
    assert [code for code, _ in told] == [*["INVALID_FIELD"] * 3, "ITEM_TOO_LARGE"]
    for (_, detail), words in zip(
        told,
        (
            "line 4: the row has 2 cells, the header 3",
            "line 5: the row has 4 cells, the header 3",
            "line 6: not valid CSV",
            "line 7: a cell has more than 131,072",
        ),
        strict=True,
    ):
        assert detail.startswith(words)
    assert [isinstance(piece, UnreadablePiece) for piece in found] == [False, True, True, True, True, False]


TEXT = "id;email;company\r\n1;a@b.example;Zoë € Köln\r\n"


@pytest.mark.parametrize(
    ("data", "charset"),
    [
        (TEXT.encode(), "utf-8"),
        (TEXT.encode("utf-8-sig"), "utf-8"),
        (TEXT.encode("utf-16"), "utf-8"),
        (b"\xfe\xff" + TEXT.encode("utf-16-be"), "utf-16"),
        (TEXT.encode("utf-32"), "utf-8"),
        (TEXT.encode("utf-16-le"), "utf-16le"),
        (TEXT.encode("cp1252"), "windows-1252"),
        (TEXT.encode("cp1252"), "iso-8859-1"),
        (TEXT.encode("utf-8-sig"), "windows-1252"),
    ],
)
def test_encoding_and_delimiter_are_found(data: bytes, charset: str) -> None:
    expected = [{"id": "1", "email": "a@b.example", "company": "Zoë € Köln"}]
    assert items(pieces(data, family=Family.CSV, charset=CHARSETS[charset])) == expected


@pytest.mark.parametrize(
    ("header", "delimiter"),
    [
        ("id;email;Name, first", ";"),
        ('id,email,"a;b;c;d"', ","),
        ('id\temail\t"a, b, c ""d"""', "\t"),
        ('id|"e\nf"|g', "|"),
        ("id", ","),
        ('"id,email', ","),
        ("\n\r\n\rid;email", ";"),
    ],
)
def test_the_delimiter_is_the_one_that_cuts_best(header: str, delimiter: str) -> None:
    machine = Records()
    machine.feed(f"{header}\n1\n")
    machine.finish()
    assert machine.delimiter == delimiter


def test_text_that_is_none_is_refused_with_place_and_remedy() -> None:
    data = b"id,email,x\r\n1,\xc3\xa9,\r\n2,a,caf\xe9,\n"
    with pytest.raises(UndecodableText) as caught:
        pieces(data)
    assert (caught.value.offset, caught.value.line) == (data.index(b"\xe9,"), 3)
    for words in ("0xE9", f"offset {caught.value.offset}", "line 3", "'é'", "charset=windows-1252"):
        assert words in caught.value.detail
    assert "windows-1252" not in refusal(b"id,email\n\x81")
    assert "Windows-1252" in refusal(b"id,email\n\x81", family=Family.CSV, charset="cp1252")
    assert "charset=utf-16le" in refusal("id,email\n".encode("utf-16-le"))
    assert "charset=utf-16le" in refusal(b"id,email\n", family=Family.CSV, charset="utf-16")
    assert "UTF-16" in refusal("id,email\n".encode("utf-16")[:-1])


@pytest.mark.parametrize(
    ("header", "mapping", "words"),
    [
        ("Customer Id,Email", {}, ["no column 'id'", "'Customer Id'", "?map=Customer%20Id:id"]),
        ("id,Mail", {}, ["no column 'email'", "?map=Mail:email"]),
        ("a,b", {}, ["no column 'id'", "a, b", "no column 'email'"]),
        ("id,email,id", {}, ["'id'", "more than once"]),
        ("id,,email", {}, ["column 2 of 3 has no name"]),
        ("id,email,E-Mail", {}, ["'email' and 'E-Mail'", "?map=E-Mail:other%20email"]),
        ("Customer,email", {"Custmer": "id"}, ["'Custmer'", "did you mean 'Customer'"]),
        ("id,email," + "x" * 256, {}, ["column 3", "256 characters"]),
        ("id,email" + ",x" * 2_000, {}, ["2002 columns"]),
        ("", {}, ["is empty"]),
        ("\n\n\r", {}, ["is empty"]),
        ('id,"email', {}, ["line 1", "never closed"]),
        ('\n"id"x,email', {}, ["line 2", "not valid CSV"]),
    ],
)
def test_an_unusable_header_tells_the_remedy(header: str, mapping: dict[str, str], words: list[str]) -> None:
    told = refusal(f"{header}\n" if header else "", family=Family.CSV, mapping=mapping)
    assert all(word in told for word in words), told
    assert len(told) < 1_000


def test_the_last_colon_separates() -> None:
    assert NAMES.parse_mapping(["Key: new:id", "Mail: email "], WORDING) == {"Key: new": "id", "Mail": "email"}
    for pairs in (["id"], [":id"], ["id:"], [" : "], ["a:id", "a:phone"], ["a:frist_name"]):
        with pytest.raises(MappingError):
            NAMES.parse_mapping(pairs, WORDING)


def test_ndjson_lines_stand_for_themselves() -> None:
    content = b'\xef\xbb\xbf{"id":"1"}\r\n\n \t\r\n\xff\n[1]\n{"a":"\r"}\n{"id":"2"}'
    lines: list[Any] = run(NdjsonLines(), [content])
    assert [(line.number, line.data) for line in lines] == [
        (1, b'{"id":"1"}'),
        (4, b"\xff"),
        (5, b"[1]"),
        (6, b'{"a":"\r"}'),
        (7, b'{"id":"2"}'),
    ]
    assert "UTF-16" in refusal('{"id":"1"}'.encode("utf-16"), family=Family.NDJSON)
    assert "UTF-16" in refusal('{"id":"1"}'.encode("utf-16-be"), family=Family.NDJSON)
    assert pieces(b"", family=Family.NDJSON) == []


def test_ndjson_lines_are_bounded() -> None:
    long = b"x" * (MAX_LINE + 1)
    for chunks in ([long + b"\n1"], [long, b"\r\n1"], [long[:-1], b"x", b"\n", b"1"]):
        found: list[Any] = run(NdjsonLines(), chunks)
        assert [(line.number, line.data) for line in found] == [(1, None), (2, b"1")]
    fitting: list[Any] = run(NdjsonLines(), [long[:-1], b"\r", b"\n"])
    assert len(fitting[0].data) == MAX_LINE


@pytest.mark.parametrize(
    ("form", "body"),
    [
        (Form(family=Family.CSV), b"id,email\n" + b"1,a\n" * 11),
        (Form(family=Family.CSV), b"id,email\n" + b",\n" * 300_000),
        (Form(family=Family.CSV), b"\n" * 300_000),
        (Form(family=Family.NDJSON), b"1\n" * 11),
        (Form(family=Family.NDJSON), b"\n" * 300_000),
    ],
)
def test_too_many_rows_or_lines_are_noticed_early(form: Form, body: bytes) -> None:
    with pytest.raises(TooManyItems):
        read_pieces(body, form, max_items=10)


def test_as_many_rows_as_allowed_are_taken() -> None:
    body = b"id,email\n" + b"1,a\n\n" * 10
    assert len(read_pieces(body, Form(family=Family.CSV), max_items=10).pieces) == 10


def test_a_reader_tells_how_far_it_is() -> None:
    for form in (Form(family=Family.CSV), Form(family=Family.NDJSON)):
        reader: Reader = open_reader(form, NAMES)
        reader.feed(b"id,email\n\n1,2\n3")
        assert reader.line == 3
        reader.finish()
        assert reader.line == 4


def test_a_delimiter_too_many_at_the_end_of_the_header_is_borne() -> None:
    found = pieces("id,email,city,, \n1,a@b.example,x,,\n2,b@b.example,y\n3,c@b.example,z,\n4,d@b.example,,,!\n5,e@b\n")
    assert [item["id"] for item in items(found)] == ["1", "2", "3"]
    assert items(found)[0]["attributes"] == {"city": "x"}
    assert [detail[:29] for _, detail in faults(found)] == [
        "line 5: the row has 5 cells, ",
        "line 6: the row has 2 cells, ",
    ]
    reader = open_reader(Form(family=Family.CSV), NAMES)
    reader.feed(b"id,email,city,,\n")
    reader.finish()
    assert keep(Form(family=Family.CSV), reader).header == ["id", "email", "city"]


def test_white_space_around_a_column_name_is_not_part_of_it() -> None:
    found = items(pieces("id, email , City\n1,a@b.example, Bonn\n"))
    assert found == [{"id": "1", "email": "a@b.example", "attributes": {"City": "Bonn"}}]
    assert "would both fill 'City'" in refusal("id,email,City, City\n", family=Family.CSV)
