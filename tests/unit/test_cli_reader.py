"""What a file becomes on its way to the server, and what a user is told when it cannot."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.cli.client.errors import UsageError
from app.cli.client.reader import Format, ReadOptions, find_format, open_source
from app.cli.client.rows import Row


def read(tmp_path: Path, content: bytes | str, name: str = "in.csv", **options: object) -> list[Row]:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(open_source(str(path), ReadOptions(**options)).rows())  # type: ignore[arg-type]


def items(rows: list[Row]) -> list[dict[str, object]]:
    return [json.loads(row.item) for row in rows if not row.problem]


def problems(rows: list[Row]) -> list[tuple[int, str]]:
    return [(row.line, row.problem) for row in rows if row.problem]


def refusal(tmp_path: Path, content: bytes | str, name: str = "in.csv", **options: object) -> str:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, content, name, **options)
    return caught.value.detail


def test_column_names_are_known_whatever_their_dress(tmp_path: Path) -> None:
    rows = read(tmp_path, "ID,E-Mail,First Name,LAST_NAME,Phone 1,If Version\n1,a@b.example,Ann,Bee,555,3\n")
    assert items(rows) == [
        {
            "id": "1",
            "email": "a@b.example",
            "first_name": "Ann",
            "last_name": "Bee",
            "if_version": 3,
            "attributes": {"Phone 1": "555"},
        }
    ]


def test_map_renames_and_outranks_names(tmp_path: Path) -> None:
    rows = read(
        tmp_path,
        "Key,Id,Mail,Phone 1\nk,7,a@b.example,5\n",
        mapping=("Key=id", "mail=email", "Phone 1=phone"),
    )
    assert items(rows) == [{"id": "k", "email": "a@b.example", "phone": "5", "attributes": {"Id": "7"}}]


def test_empty_cells_leave_the_field_alone(tmp_path: Path) -> None:
    assert items(read(tmp_path, "id,email,phone,City\n1,a@b.example,,\n")) == [
        {"id": "1", "email": "a@b.example"}
    ]


def test_a_version_that_is_no_number_is_left_to_the_server(tmp_path: Path) -> None:
    rows = read(tmp_path, "id,email,if_version\n1,a@b.example,1\n2,a@b.example,soon\n3,a@b.example,1.0\n")
    assert [item["if_version"] for item in items(rows)] == [1, "soon", "1.0"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_encoding_and_delimiter_are_found(tmp_path: Path, encoding: str, delimiter: str) -> None:
    text = 'id,email,company\r\n1,a@b.example,"Zoë\r\n& Co"\r\n'.replace(",", delimiter)
    assert items(read(tmp_path, text.encode(encoding))) == [
        {"id": "1", "email": "a@b.example", "company": "Zoë\r\n& Co"}
    ]


def test_a_broken_row_costs_only_itself_and_names_its_line(tmp_path: Path) -> None:
    content = (
        b"id,email,company\n"
        b'1,a@b.example,"two\nlines"\n'
        b"2,a@b.example\n"
        b"3,a@b.example,x,y\n"
        b"4,a@b.example,caf\xe9\n"
        b"5,a\x00@b.example,x\n"
        b'6,a@b.example,"x"y\n'
        b"\n,,\n"
        b"7,a@b.example,x\n"
    )
    rows = read(tmp_path, content)
    assert [item["id"] for item in items(rows)] == ["1", "7"]
    told = dict(problems(rows))
    assert list(told) == [4, 5, 6, 7, 8]
    assert told[4] == "the row has 2 cells, the header 3"
    assert "4 cells, the header 3" in told[5]
    assert "0xE9" in told[6]
    assert "--encoding windows-1252" in told[6]
    assert "NUL" in told[7]
    assert "'email'" in told[7]
    assert "not valid CSV" in told[8]
    assert [row.number for row in rows] == list(range(7))


def test_an_open_quote_does_not_swallow_the_rest_of_the_file(tmp_path: Path) -> None:
    good = "".join(f"{i},a@b.example,x\n" for i in range(20_000))
    rows = read(tmp_path, f'id,email,company\n0,a@b.example,"open\n{good}')
    assert problems(rows) == [(2, "a quote is opened in this line and never closed")]
    assert len(items(rows)) == 20_000


def test_a_line_without_end_is_refused_alone(tmp_path: Path) -> None:
    rows = read(tmp_path, "id,email\n1," + "x" * 3_000_000 + "\n2,a@b.example\n")
    assert [item["id"] for item in items(rows)] == ["2"]
    assert [line for line, _ in problems(rows)] == [2]


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        ("Customer Id,Email\n", {}, ["no column 'id'", '--map "Customer Id=id"']),
        ("id,Mail\n", {}, ["no column 'email'", '--map "Mail=email"']),
        ("a,b\n", {}, ["no column 'id'", "a, b"]),
        ("id,email,id\n", {}, ["'id'", "more than once"]),
        ("id,email,,x\n", {}, ["column 3 of 4 has no name"]),
        ("id,email,E-Mail\n", {}, ["'email' and 'E-Mail'", "--map"]),
        ("id,email\n", {"mapping": ("Custmer=id",)}, ["'Custmer'", "does not have"]),
        ("Customer,email\n", {"mapping": ("Custmer=id",)}, ["did you mean 'Customer'"]),
        ("id,email\n", {"mapping": ("id",)}, ["Column=field"]),
        ("id,email\n", {"encoding": "klingon"}, ["no such text encoding"]),
        ("id,email\n", {"encoding": "base64"}, ["no such text encoding"]),
        ("id,email\n", {"delimiter": "::"}, ["one character"]),
        (b"id,email,caf\xe9\n", {}, ["line 1", "--encoding windows-1252"]),
        ("id,email\n".encode("utf-16-le"), {}, ["--encoding utf-16-le"]),
        ("", {}, ["is empty"]),
        ("\n\n", {}, ["is empty"]),
    ],
)
def test_an_unusable_header_tells_the_remedy(
    tmp_path: Path, content: bytes | str, options: dict[str, object], words: list[str]
) -> None:
    told = refusal(tmp_path, content, **options)
    assert all(word in told for word in words), told


def test_an_encoding_that_is_told_is_used(tmp_path: Path) -> None:
    rows = read(tmp_path, "id,email,company\n1,a@b.example,Café\n".encode("cp1252"), encoding="windows-1252")
    assert items(rows)[0]["company"] == "Café"


def test_the_notes_of_an_earlier_push_are_skipped(tmp_path: Path) -> None:
    head = "error_code,error_detail,retry_after_seconds,id,email\n"
    rows = read(tmp_path, head + "INVALID_EMAIL,no,0,1,a@b.example\n,,,2,a@b.example\n")
    assert items(rows) == [{"id": "1", "email": "a@b.example"}, {"id": "2", "email": "a@b.example"}]


def test_ndjson_lines_fail_alone(tmp_path: Path) -> None:
    content = (
        b'{"id":"1","email":"a"}\r\n\n{"id":\n[1]\n{"id":"\xff"}\n' + b"[" * 5000 + b'\n{"id":"2","id":"3"}'
    )
    rows = read(tmp_path, content, "in.ndjson")
    assert [row.item for row in rows if not row.problem] == [
        b'{"id":"1","email":"a"}',
        b'{"id":"2","id":"3"}',
    ]
    assert [line for line, _ in problems(rows)] == [3, 4, 5, 6]


@pytest.mark.parametrize("content", ['{"items":[{"id":"1"}, {"id":"2"},3]}', '[{"id":"1"},\n{"id":"2"},3]'])
def test_json_documents_and_arrays(tmp_path: Path, content: str) -> None:
    rows = read(tmp_path, content, "in.json")
    assert [row.key for row in rows] == ["1", "2", ""]
    assert problems(rows) == [(3, "not a JSON object")]


def test_json_that_is_none_is_refused(tmp_path: Path) -> None:
    assert "--format ndjson" in refusal(tmp_path, '[{"id":1}', "in.json")
    assert "--map is for CSV" in refusal(tmp_path, "[]", "in.json", mapping=("a=b",))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("x.tsv", "", Format.CSV),
        ("x.jsonl", "", Format.NDJSON),
        ("x.json", '{"id":"1"}\n{"id":"2"}\n', Format.NDJSON),
        ("x.json", '{"items":[]}', Format.JSON),
        ("x.json", '{\n "items": []}', Format.JSON),
        ("x", " [1]", Format.JSON),
        ("x", '{"id":"1"}', Format.NDJSON),
        ("x.dat", "id,email", Format.CSV),
    ],
)
def test_the_format_is_told_by_name_then_content(name: str, text: str, expected: Format) -> None:
    assert find_format(name, text) is expected


cells = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(cells.filter(bool), cells, cells), max_size=8),
    delimiter=st.sampled_from(",;\t|"),
    newline=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_whatever_a_cell_holds_arrives(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str, str]],
    delimiter: str,
    newline: str,
    encoding: str,
) -> None:
    """Any text in any cell, written by any correct CSV writer, is what the server gets."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator=newline, quoting=csv.QUOTE_ALL)
    writer.writerow(["id", "email", "Note"])
    writer.writerows(rows)
    path = tmp_path_factory.mktemp("csv") / "in.csv"
    path.write_bytes(out.getvalue().encode(encoding))
    expected = [
        ({"id": key} if key else {})
        | ({"email": email} if email else {})
        | ({"attributes": {"Note": note}} if note else {})
        for key, email, note in ([cell.strip() for cell in row] for row in rows)
    ]
    assert items(list(open_source(str(path), ReadOptions()).rows())) == expected


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=300), name=st.sampled_from(["a.csv", "a.ndjson", "a.json", "a"]))
def test_no_bytes_break_the_reader(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str
) -> None:
    """Any file is either refused in words or read to its end, and what is sent is JSON."""
    path = tmp_path_factory.mktemp("any") / name
    path.write_bytes((b"id,email\n" if name == "a.csv" else b"") + content)
    try:
        rows = list(open_source(str(path), ReadOptions()).rows())
    except UsageError:
        return
    for row in rows:
        assert bool(row.problem) != bool(row.item)
        if row.item:
            assert isinstance(json.loads(row.item), dict)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "big.csv"
    with path.open("w") as out:
        out.write("id,email,company\n")
        for i in range(60_000):
            out.write(f"{i},user{i}@b.example,{'x' * 60}\n")
    source = open_source(str(path), ReadOptions())
    tracemalloc.start()
    try:
        assert sum(1 for _ in source.rows()) == 60_000
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
