"""What a file to push is found to be, and what a user is told when it cannot be pushed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.cli.client.errors import UsageError
from app.cli.client.source_file import CsvFile, FileOptions, Format, SourceFile, find_format, open_file
from tests.types import CONTACTS


def read(tmp_path: Path, content: bytes | str, name: str = "in.csv", **options: Any) -> SourceFile:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return open_file(str(path), FileOptions(**options), CONTACTS)


def meanings(source: SourceFile) -> list[str]:
    assert isinstance(source, CsvFile)
    return [meaning for _, meaning in source.columns.describe()]


def refusal(tmp_path: Path, content: bytes | str, name: str = "in.csv", **options: Any) -> str:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, content, name, **options)
    return caught.value.detail


def test_map_and_ignore_are_told_to_the_server_and_outrank_names(tmp_path: Path) -> None:
    source = read(
        tmp_path,
        "Key,Id,Mail,Phone 1,Intern\nk,7,a@b.example,5,x\n",
        mapping=("Key=id", "mail=email", "Phone 1=phone"),
        ignored=("Intern",),
    )
    assert meanings(source) == ["id", "attribute Id", "email", "phone", "ignored"]
    assert source.params == [("map", "Key:id"), ("map", "mail:email"), ("map", "Phone 1:phone"), ("ignore", "Intern")]


def test_the_notes_of_an_earlier_push_are_skipped(tmp_path: Path) -> None:
    head = "error_code,error_detail,retry_after_seconds,id,email\n"
    assert meanings(read(tmp_path, head)) == ["ignored"] * 3 + ["id", "email"]


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
        ("id,email,x\n", {"mapping": ("x=a:b",)}, ["colon"]),
        ("id,email\n", {"encoding": "klingon"}, ["no such text encoding"]),
        ("id,email\n", {"encoding": "base64"}, ["no such text encoding"]),
        ("id,email\n", {"delimiter": "::"}, ["'::'", "finds ','"]),
        ("id\x1femail\nc1,\x1fa@b.example\n", {"mapping": ("id\x1femail=id+email",), "delimiter": "\x1f"}, ["sep="]),
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


def test_json_that_is_none_is_refused(tmp_path: Path) -> None:
    assert "--format ndjson" in refusal(tmp_path, '[{"id":1}', "in.json")
    assert "--map is for CSV" in refusal(tmp_path, "[]", "in.json", mapping=("a=b",))


def test_one_bad_item_of_a_document_harms_no_other(tmp_path: Path) -> None:
    bomb = "[" * 5000 + "]" * 5000
    source = read(tmp_path, f'{{"items":[{{"id":"1"}},{bomb},{{"id":1.}},\n{{"id":"2"}}]}}', "in.json")
    assert b"".join(source.body.pieces()).splitlines() == [b'{"id":"1"}', bomb.encode(), b'{"id":1.}', b'{"id":"2"}']
    assert list(source.lines()) == [1, 2, 3, 4]


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


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=300), name=st.sampled_from(["a.csv", "a.ndjson", "a.json", "a"]))
def test_no_bytes_break_the_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str) -> None:
    """Any file is either refused in words or has a body, whose rows have lines."""
    path = tmp_path_factory.mktemp("any") / name
    path.write_bytes((b"id,email\n" if name == "a.csv" else b"") + content)
    try:
        source = open_file(str(path), FileOptions(), CONTACTS)
    except UsageError:
        return
    assert b"".join(source.body.pieces()) is not None
    found = source.survey(range(1000))
    assert len(found.lines) == found.rows
    assert list(found.lines.values()) == sorted(found.lines.values())
