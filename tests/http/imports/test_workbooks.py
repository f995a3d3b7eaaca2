"""Workbooks: one sheet is read as the CSV of it would be, and errors name cells."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import uuid
import zipfile
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import msgspec
import pytest

from app.kit.postgres.database import Database
from app.settings import Settings
from tests.db.conftest import Desk
from tests.db.staging import process
from tests.http.conftest import Answer, Api, aiohttp_session, serve
from tests.http.imports.test_staging import taken
from tests.workbooks import HEAD, SHEET, TYPE, XLSX, inline, make, patch, person, raw, table

_MARCH = datetime.datetime(2026, 3, 31)  # noqa: DTZ001 - spreadsheets know no time zones
HEADER = ["Customer Id", "First Name", "E-Mail", "City"]


async def push(api: Api, body: bytes, query: str = "", *, key: str | None = None, **more: str) -> Answer:
    headers = XLSX | {name.replace("_", "-"): value for name, value in more.items()}
    return await api.push(body, query=query, key=key, headers=headers)


async def attributes(api: Api, body: bytes, query: str = "") -> dict[str, Any]:
    """Of the contact c1, as the workbook has them."""
    answer = await push(api, body, query)
    assert (answer.status, answer.json().get("summary", {}).get("succeeded")) == (207, 1), answer.body
    found: dict[str, Any] = (await api.get("/v1/contacts/c1")).json()["attributes"]
    return found


def refusal(answer: Answer) -> tuple[int, str, str]:
    problem = answer.json()
    return answer.status, problem["code"], problem["detail"]


async def test_a_sheet_is_read_like_its_csv(api: Api) -> None:
    body = table([HEADER, ["0017", "Zoë", "zoe@example.com", "Köln"], [], ["0018", "", "nobody", "Bonn"]])
    answer = await push(api, body, "?map=Customer%20Id:id")
    assert answer.status == 207, answer.body
    good, bad = answer.json()["items"]
    assert (good["id"], good["result"], good["line"]) == ("0017", "created", 2)
    assert (bad["id"], bad["error_code"], bad["line"]) == ("0018", "INVALID_EMAIL", 4)
    assert [(e["pointer"], e["cell"]) for e in bad["errors"]] == [("/email", "Sheet1!C4")]
    contact = (await api.get("/v1/contacts/0017")).json()
    assert (contact["first_name"], contact["attributes"]) == ("Zoë", {"City": "Köln"})


async def test_values_are_written_plainly(api: Api) -> None:
    values: list[tuple[str, Any, str | None, str]] = [
        ("whole", 1.0, None, "1"),
        ("large", 1e15, None, "1000000000000000"),
        ("sum", 0.1 + 0.2, None, "0.3"),
        ("tenth", 0.1, None, "0.1"),
        ("small", -0.00025, None, "-0.00025"),
        ("huge", 1.5e300, None, "1.5e+300"),
        ("shown with zeros", 1234, "00000", "1234"),
        ("text with zeros", "01234", None, "01234"),
        ("percent", 0.25, "0%", "0.25"),
        ("money", 1234.5, '#,##0.00 "€"', "1234.5"),
        ("date", datetime.date(2026, 3, 31), "dd.mm.yyyy", "2026-03-31"),
        (
            "moment",
            _MARCH + datetime.timedelta(hours=12, minutes=30, seconds=15),
            "dd.mm.yyyy hh:mm:ss",
            "2026-03-31T12:30:15",
        ),
        ("time", datetime.time(9, 5), "hh:mm", "09:05:00"),
        ("duration", datetime.timedelta(hours=36, minutes=5), "[h]:mm:ss", "36:05:00"),
        ("yes", True, None, "true"),
        ("no", False, None, "false"),
    ]

    def fill(book: Any) -> None:
        sheet = book.add_worksheet()
        sheet.write_row(0, 0, ["id", "email", *[name for name, *_ in values], "rich", "formula", "text of a formula"])
        sheet.write_row(1, 0, ["c1", "c1@example.com"])
        for place, (_, value, form, _) in enumerate(values, 2):
            write = sheet.write_string if isinstance(value, str) else sheet.write
            write(1, place, value, book.add_format({"num_format": form} if form else {}))
        sheet.write_rich_string(1, len(values) + 2, "one ", book.add_format({"bold": True}), "bold", " word")
        sheet.write_formula(1, len(values) + 3, "=1+1", None, 2)
        sheet.write_formula(1, len(values) + 4, '="00"&7', None, "007")

    found = await attributes(api, make(fill))
    expected = {name: text for name, _, _, text in values}
    assert found == expected | {"rich": "one bold word", "formula": "2", "text of a formula": "007"}


async def test_both_epochs(api: Api) -> None:
    def fill(book: Any) -> None:
        sheet = book.add_worksheet()
        sheet.write_row(0, 0, ["id", "email", "since"])
        sheet.write_row(1, 0, ["c1", "c1@example.com"])
        sheet.write_datetime(1, 2, _MARCH, book.add_format({"num_format": "yyyy-mm-dd"}))

    assert (await attributes(api, make(fill)))["since"] == "2026-03-31"
    assert (await attributes(api, make(fill, date_1904=True)))["since"] == "2026-03-31"


async def test_numbers_and_dates_of_the_sheet_are_not_read_by_the_options_for_text(api: Api) -> None:
    """1.234 with `decimal=,` is one and a bit where it is a number, and more than a thousand where it is text."""
    rows = [["id", "name", "employees", "annual_revenue"], ["a", "A", 12, 1.234], ["b", "B", "1.200", "1.234,5"]]
    sent = XLSX | {"Idempotency-Key": "decimal"}
    answer = await api.request("POST", "/v1/companies:bulk?decimal=,", headers=sent, data=table(rows))
    assert answer.json()["summary"]["succeeded"] == 2, answer.body
    found = [(await api.get(f"/v1/companies/{name}")).json() for name in "ab"]
    assert [(one["employees"], one["annual_revenue"]) for one in found] == [(12, 1.234), (1200, 1234.5)]


async def test_a_cell_that_holds_an_error_fails_its_item_alone(api: Api) -> None:
    rows = (
        HEAD
        + person(2, '<c r="C2" t="e"><v>#REF!</v></c>')
        + person(3, '<c r="C3"><f>X1</f><v/></c>')
        + person(4, '<c r="C4" t="str"><f>X1</f><v></v></c>')
        + person(5)
        + '<row r="6"><c r="A6" t="e"><f>NA()</f><v>#N/A</v></c></row>'
    )
    answer = await push(api, raw(rows))
    assert answer.status == 207, answer.body
    items = answer.json()["items"]
    assert [(i["id"], i["status"], i["line"]) for i in items] == [
        ("c2", "failed", 2), ("c3", "failed", 3), ("c4", "ok", 4), ("c5", "ok", 5), (None, "failed", 6),
    ]  # fmt: skip
    errors = [item["errors"][0] for item in items if item["status"] == "failed"]
    assert [(e["code"], e["pointer"], e["cell"]) for e in errors] == [
        ("INVALID_FIELD", "/company", "Sheet1!C2"),
        ("INVALID_FIELD", "/company", "Sheet1!C3"),
        ("INVALID_FIELD", "/id", "Sheet1!A6"),
    ]
    assert "Sheet1!C2 holds the error #REF!" in errors[0]["detail"]
    assert "not computed" in errors[1]["detail"]
    assert (await push(api, raw(rows), "?ignore=company")).json()["summary"]["succeeded"] == 4


async def test_failed_rows_come_back_as_csv_and_can_be_pushed_again(api: Api) -> None:
    rows = HEAD + person(2, '<c r="C2" t="e"><v>#REF!</v></c>') + person(3) + person(4).replace("@", " at ")
    job = (await push(api, raw(rows), key="fails")).json()["job_id"]
    answer = await api.get(f"/v1/jobs/{job}/items?sent=true&status=failed", {"Accept": "text/csv"})
    found = [*csv.DictReader(io.StringIO(answer.body.decode()))]
    assert [(row["id"], row["company"]) for row in found] == [("c2", "#REF!"), ("c4", "")]
    assert "Sheet1!C2" in found[0]["error_detail"]
    fixed = answer.body.replace(b"#REF!", b"ACME").replace(b" at ", b"@")
    again = await api.push(fixed, headers={"Content-Type": "text/csv"})
    assert again.json()["summary"]["succeeded"] == 2, again.body


def several(book: Any) -> None:
    book.add_worksheet("Cover")
    for name, hidden in (("Old", True), ("New people", False), ("More", False)):
        sheet = book.add_worksheet(name)
        sheet.write_row(2, 1, ["id", "email"])
        sheet.write_row(3, 1, [name, "none" if name == "More" else "a@example.com"])
        if hidden:
            sheet.hide()


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("", "New people"),
        ("?sheet=old", "Old"),
        ("?sheet=2", "Old"),
        ("?sheet=3", "New people"),
        ("?sheet=New%20people", "New people"),
    ],
)
async def test_the_first_visible_sheet_with_contents_or_the_one_that_is_named(api: Api, query: str, name: str) -> None:
    answer = await push(api, make(several), query)
    assert [item["id"] for item in answer.json()["items"]] == [name], answer.body


async def test_a_table_may_begin_anywhere(api: Api) -> None:
    item = (await push(api, make(several), "?sheet=More")).json()["items"][0]
    assert (item["line"], item["errors"][0]["cell"]) == (4, "More!C4")


async def test_an_unknown_sheet_names_those_that_there_are(api: Api) -> None:
    status, code, detail = refusal(await push(api, make(several), "?sheet=Customers"))
    assert (status, code) == (400, "INVALID_PARAMETER")
    assert "1. 'Cover', 2. 'Old' (hidden), 3. 'New people', 4. 'More'" in detail
    assert "'Cover' is empty" in refusal(await push(api, make(several), "?sheet=Cover"))[2]


async def test_addresses_quote_a_name_of_several_words(api: Api) -> None:
    answer = await push(api, table([["id", "email"], ["1", "x"]], "Bob's list"))
    assert answer.json()["items"][0]["errors"][0]["cell"] == "'Bob''s list'!B2"


def odd_header(*names: str | None) -> bytes:
    return table([names, ["c1", "c1@example.com", "x", "y"]])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (odd_header("id", "email", None, "city"), "Sheet1!C1 is empty"),
        (odd_header("id", "email", "a", "a"), "names 'a' more than once"),
        (odd_header("number", "mail"), "no column"),
        (raw('<row r="1">' + inline("A1", "id") + '<c r="B1" t="e"><v>#NAME?</v></c></row>'), "Sheet1!B1"),
    ],
)
async def test_an_unusable_header_is_refused(api: Api, body: bytes, words: str) -> None:
    status, code, detail = refusal(await push(api, body))
    assert (status, code) == (400, "INVALID_HEADER")
    assert words in detail


async def test_a_value_beside_the_table_fails_its_row(api: Api) -> None:
    rows = [["id", "email", None], ["c1", "c1@example.com", None], ["c2", "c2@example.com", None, "a remark"]]
    good, bad = (await push(api, table(rows))).json()["items"]
    assert (good["status"], bad["status"]) == ("ok", "failed")
    assert "Sheet1!D3 has a value" in bad["errors"][0]["detail"]


async def test_merged_cells_have_one_value(api: Api) -> None:
    def fill(book: Any) -> None:
        sheet = book.add_worksheet()
        sheet.write_row(0, 0, ["id", "email", "a", "b"])
        sheet.write_row(1, 0, ["c1", "c1@example.com"])
        sheet.merge_range(1, 2, 1, 3, "both")

    assert await attributes(api, make(fill)) == {"a": "both"}


async def test_cells_without_references_and_dates_out_of_range(api: Api) -> None:
    styles = make(lambda book: book.add_worksheet().write(0, 0, 1, book.add_format({"num_format": "[h]:mm"})))
    cell = '<c t="inlineStr"><is><t>{}</t></is></c>'
    rows = "".join(
        "<row>" + "".join(map(cell.format, row)) + more + "</row>"
        for row, more in [
            (("id", "email", "hours"), ""),
            (("c1", "c1@example.com"), '<c s="1"><v>0.5</v></c>'),
            (("c2", "c2@example.com"), '<c s="1"><v>10000000000</v></c>'),
            (("c3", "c3@example.com"), '<c t="e"><v>#NUM!</v></c>'),
        ]
    )
    with zipfile.ZipFile(io.BytesIO(raw(rows))) as package:
        body = patch(styles, {SHEET: package.read(SHEET)})
    items = (await push(api, body)).json()["items"]
    assert [(item["status"], item["line"]) for item in items] == [("ok", 2), ("failed", 3), ("failed", 4)]
    assert "Sheet1!A3" in items[1]["errors"][0]["detail"]
    assert items[2]["errors"][0]["cell"] == "Sheet1!C4"


async def test_the_same_key_needs_the_same_body_and_sheet(api: Api) -> None:
    body = make(several)
    first = await push(api, body, key="books")
    again = await push(api, body, key="books")
    assert (again.body, again.headers["Idempotency-Replayed"]) == (first.body, "true")
    assert refusal(await push(api, body, "?sheet=Old", key="books"))[:2] == (422, "IDEMPOTENCY_KEY_REUSED")
    assert refusal(await push(api, b"PK\x03\x04", key="books"))[:2] == (422, "IDEMPOTENCY_KEY_REUSED")


@pytest.mark.parametrize(
    ("query", "headers", "words"),
    [
        ("?sheet=1", {"Content-Type": "text/csv"}, "sheet= is for a workbook"),
        ("?delimiter=;", {}, "delimiter"),
        ("", {"Content-Type": f"{TYPE}; charset=utf-8"}, "no charset"),
    ],
)
async def test_options_that_make_no_sense(api: Api, query: str, headers: dict[str, str], words: str) -> None:
    answer = await api.push(table([["id", "email"], ["1", "a@b.de"]]), query=query, headers=XLSX | headers)
    assert answer.status in (400, 415)
    assert words in answer.json()["detail"]


@pytest.fixture
async def tiny(settings: Settings, api_key: str) -> AsyncIterator[Api]:
    """A service that answers two items at once, and takes little."""
    tight = msgspec.structs.replace(
        settings, max_sync_items=2, import_chunk_items=3, max_workbook_bytes=300_000, workbook_memory=120_000_000
    )
    async with serve(tight) as url, aiohttp_session() as session:
        yield Api(session, url, api_key)


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    database = Database(settings, application_name="tests")
    yield database
    await database.close()


@pytest.mark.parametrize("query", ["", "?atomic=true"])
async def test_a_stored_workbook_names_cells(
    tiny: Api, settings: Settings, database: Database, db: asyncpg.Connection[Any], query: str
) -> None:
    """Also for items that got their outcome from another one, in another chunk."""
    people = [[f"c{n}", f"c{n}@example.com", "same"] for n in range(8)]
    rows = [["id", "email", "company"], *people, [], ["bad", "nobody", ""], people[0], ["c1", "c1@example.com", "else"]]
    job_id = taken(await push(tiny, table(rows), query))
    tenant_id = await db.fetchval("SELECT tenant_id FROM jobs WHERE job_id = $1", uuid.UUID(job_id))
    await process(Desk(settings, database, tenant_id), uuid.UUID(job_id))
    items = (await tiny.get(f"/v1/jobs/{job_id}/items")).json()["items"]
    assert [(item["id"], item["line"]) for item in items] == [
        *((f"c{n}", n + 2) for n in range(8)), ("bad", 11), ("c0", 12), ("c1", 13),
    ]  # fmt: skip
    cells = {
        (item["id"], error["code"]): error["cell"]
        for item in items
        for error in item.get("errors", [])
        if "cell" in error
    }
    assert cells.items() >= {("bad", "INVALID_EMAIL"): "Sheet1!B11", ("c1", "DUPLICATE_IN_BATCH"): "Sheet1!A13"}.items()


async def test_a_large_workbook_that_cannot_be_used_leaves_its_key_free(tiny: Api) -> None:
    rows = [["id", "mail"], *[[f"c{n}", "x"] for n in range(5)]]
    for _ in range(2):
        answer = await push(tiny, table(rows), key="free", Prefer="respond-async")
        assert refusal(answer)[:2] == (400, "INVALID_HEADER")
    body = table([["id", "email"], *rows[1:]])
    assert (await push(tiny, body, key="free")).status == 202
    assert (await push(tiny, body, key="free")).headers["Idempotency-Replayed"] == "true"


async def test_a_bomb_is_refused_before_it_is_inflated(tiny: Api) -> None:
    body = patch(table([["id"]]), {"xl/media/big": bytes(10_000_000)})
    assert len(body) < 30_000
    status, code, detail = refusal(await push(tiny, body))
    assert (status, code) == (413, "REQUEST_TOO_LARGE")
    assert "at most 300,000 are read; save the sheet as CSV" in detail
    assert "TRANCHE_MAX_WORKBOOK_BYTES" in detail


async def test_a_bomb_that_lies_about_its_size_ends_alone(tiny: Api) -> None:
    body = bytearray(patch(table([["id"]]), {"xl/sharedStrings.xml": b"<a>" + b" " * 40_000_000}))
    name = b"xl/sharedStrings.xml"
    for start in (body.index(name) - 30, body.rindex(name) - 46):
        at = start + (22 if body[start : start + 4] == b"PK\x03\x04" else 24)
        body[at : at + 4] = (1_000).to_bytes(4, "little")
    status, code, detail = refusal(await push(tiny, bytes(body)))
    assert (status, code) == (400, "MALFORMED_REQUEST"), detail


async def test_two_cells_far_apart_are_refused(tiny: Api) -> None:
    """The library would take half a terabyte for the rectangle between them."""
    far = raw('<row r="1">' + inline("A1", "id") + '</row><row r="1048576">' + inline("XFD1048576", "x") + "</row>")
    status, code, detail = refusal(await push(tiny, far))
    assert (status, code) == (413, "REQUEST_TOO_LARGE")
    assert "from A1 to XFD1048576" in detail
    with zipfile.ZipFile(io.BytesIO(far)) as package:
        sheet = package.read(SHEET)
    hidden = patch(far, {SHEET: sheet.replace(b'r="', b'r\n="')})  # in a way that no program writes
    assert refusal(await push(tiny, hidden))[:2] == (413, "REQUEST_TOO_LARGE")


async def test_cells_that_share_a_long_text_are_bounded(api: Api, tiny: Api) -> None:
    """A cell of 20 bytes may stand for 30,000 characters."""
    strings = "<sst xmlns='http://schemas.openxmlformats.org/spreadsheetml/2006/main'><si><t>{}</t></si></sst>"
    text = {"xl/sharedStrings.xml": strings.format("x" * 30_000).encode()}
    long = "".join(f'<c r="{column}2" t="s"><v>0</v></c>' for column in map(chr, range(67, 91)))
    wide = "".join(f'<c r="A{column}2" t="s"><v>0</v></c>' for column in map(chr, range(65, 91)))
    answer = await push(api, patch(raw(HEAD + f'<row r="2">{long}{wide}</row>' + person(3)), text))
    first, second = answer.json()["items"]
    assert (first["error_code"], first["line"], second["status"]) == ("ITEM_TOO_LARGE", 2, "ok")
    many = "".join(person(line, f'<c r="C{line}" t="s"><v>0</v></c>') for line in range(2, 1_000))
    status, code, detail = refusal(await push(tiny, patch(raw(HEAD + many), text), Prefer="respond-async"))
    assert (status, code) == (413, "REQUEST_TOO_LARGE")
    assert "times as large as the workbook" in detail


async def test_no_entity_is_expanded(api: Api) -> None:
    entities = '<!DOCTYPE a [<!ENTITY lol "lol"><!ENTITY x SYSTEM "file:///etc/passwd">]>'
    for name in ("lol", "x"):
        body = raw(HEAD + person(2, inline("C2", f"&{name};")), entities)
        assert refusal(await push(api, body))[:2] == (400, "MALFORMED_REQUEST")
    strings = patch(
        table([["id", "email"], ["c1", "c1@example.com"]]),
        {"xl/sharedStrings.xml": f"<?xml version='1.0'?>{entities}<sst><si><t>&x;</t></si></sst>".encode()},
    )
    assert refusal(await push(api, strings))[:2] == (400, "MALFORMED_REQUEST")


def archive(**parts: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as package:
        for name, data in parts.items():
            package.writestr(name.replace("__", "."), data)
    return out.getvalue()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "is empty"),
        (b"id,email\n1,a@b.de\n", "is text, not a workbook: send a CSV with Content-Type: text/csv"),
        ("id;email\n".encode("utf-16"), "is text"),
        (b"<html><table>", "is HTML or XML"),
        (b"%PDF-1.7", "is a PDF"),
        (b"\x1f\x8b\x08\0", "Content-Encoding: gzip"),
        (b"\xd0\xcf\x11\xe0" + bytes(600) + "Workbook".encode("utf-16-le"), "old Excel workbook (XLS)"),
        (b"\xd0\xcf\x11\xe0" + bytes(600) + "EncryptedPackage".encode("utf-16-le"), "protected with a password"),
        (archive(**{"xl/workbook__bin": b""}), "binary Excel workbook (XLSB)"),
        (archive(**{"word/document__xml": b""}), "Word document"),
        (archive(mimetype=b"application/vnd.oasis.opendocument.spreadsheet"), "a spreadsheet of OpenDocument"),
        (archive(a__csv=b"id,email"), "holds no workbook"),
        (table([["id"]])[:-200], "damaged or cut off"),
        (table([["id"]])[:2_000], "damaged or cut off"),
        (patch(table([["id"]]), {SHEET: b"<worksheet><sheetData><row"}), "damaged"),
        (patch(table([["id"]]), {SHEET: None}), "damaged"),
        (patch(table([["id"]]), {"xl/workbook.xml": b"<workbook/>"}), "no visible sheet"),
        (raw("<row><c r='ZZZZ1'><v>1</v></c></row>"), "no cell 'ZZZZ1'"),
        (raw("<row r='99999999'><c><v>1</v></c></row>"), "no row"),
        (raw("<row><c t='s'><v>77</v></c></row>"), "damaged"),
        (table([]), "no visible sheet with contents"),
    ],
)
async def test_what_is_no_workbook_is_named(api: Api, body: bytes, words: str) -> None:
    status, _, detail = refusal(await push(api, body))
    assert status == 400
    assert words in detail, detail


async def test_a_workbook_sent_as_csv_is_told_its_type(api: Api) -> None:
    answer = await api.push(table([["id"]]), headers={"Content-Type": "text/csv"})
    status, _, detail = refusal(answer)
    assert status == 400
    assert TYPE in detail
    assert "windows-1252" not in detail


async def test_content_encoding(api: Api) -> None:
    body = gzip.compress(table([["id", "email"], ["c1", "c1@example.com"]]))
    assert (await push(api, body, Content_Encoding="gzip")).json()["summary"]["succeeded"] == 1
