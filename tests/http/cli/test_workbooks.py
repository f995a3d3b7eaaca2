"""`tranche push` of a workbook, against the service."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from app.cli.push import push_command
from tests.http.cli.test_types import shell
from tests.http.conftest import Api
from tests.workbooks import HEAD, make, person, raw, table


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


async def push(api: Api, path: Path, *words: str, code: int = 0) -> str:
    return await shell(api, push_command, str(path), *words, code=code)


async def test_a_workbook_is_pushed_and_its_failed_rows_come_back(api: Api, tmp_path: Path) -> None:
    book, failed = tmp_path / "people.xlsx", tmp_path / "failed.csv"
    errors = "".join(person(line, f'<c r="C{line}" t="e"><v>#REF!</v></c>') for line in (2, 5))
    book.write_bytes(raw(HEAD + errors + person(7) + person(8).replace("@", " at ")))
    told = await push(api, book, "--failed-out", str(failed), code=1)
    assert "rows 2, 5" in told
    assert "row 8" in told
    assert "holds the error #REF!" in told
    text = failed.read_text(encoding="utf-8-sig")
    rows = [*csv.DictReader(text.splitlines())]
    assert [(row["id"], row["company"]) for row in rows] == [("c2", "#REF!"), ("c5", "#REF!"), ("c8", "")]
    failed.write_text(text.replace("#REF!", "ACME").replace(" at ", "@"))
    report = json.loads(await push(api, failed, "--json"))
    assert report["succeeded"] == 3, report


async def test_the_sheet_is_chosen_and_previewed(api: Api, tmp_path: Path) -> None:
    def fill(book: object) -> None:
        for name in ("First", "Second"):
            sheet = book.add_worksheet(name)  # type: ignore[attr-defined]
            sheet.write_row(0, 0, ["Key", "E-Mail"])
            sheet.write_row(1, 0, [name, f"{name}@example.com"])

    book = tmp_path / "book.xlsx"
    book.write_bytes(make(fill))
    assert "Second@example.com" in await push(api, book, "--preview", "--sheet", "2", "--map", "Key=id")
    await push(api, book, "--sheet", "second", "--map", "Key=id")
    assert (await api.get("/v1/contacts/Second")).status == 200
    assert (await api.get("/v1/contacts/First")).status == 404
    assert "1. 'First', 2. 'Second'" in await push(api, book, "--sheet", "Third", code=2)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--delimiter", ";"), "--delimiter is for text"),
        (("--encoding", "utf-8"), "--encoding is for text"),
        (("--format", "csv"), "leave --format out"),
    ],
)
async def test_options_for_text_are_refused(api: Api, tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    book = tmp_path / "book.xlsx"
    book.write_bytes(table([["id", "email"]]))
    assert told in " ".join((await push(api, book, *words, code=2)).split())


async def test_a_sheet_is_only_in_a_workbook(api: Api, tmp_path: Path) -> None:
    text = tmp_path / "people.csv"
    text.write_text("id,email\n")
    assert "--sheet is for a workbook" in await push(api, text, "--sheet", "1", code=2)


async def test_a_thousand_rows_and_more_are_staged(api: Api, tmp_path: Path) -> None:
    book = tmp_path / "many.xlsx"
    rows = [["id", "email"], *[[f"c{n}", f"c{n}@example.com"] for n in range(1_500)]]
    book.write_bytes(table(rows))
    report = json.loads(await push(api, book, "--dry-run", "--json", "--no-wait", "--timeout", "1", code=3))
    assert [job["state"] for job in report["jobs"]] == ["queued"]
