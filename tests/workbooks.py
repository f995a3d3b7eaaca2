"""Workbooks as programs write them, and as none does."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import xlsxwriter

TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
XLSX = {"Content-Type": TYPE}
SHEET = "xl/worksheets/sheet1.xml"
_NAMESPACE = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"

Fill = Callable[[Any], None]


def make(fill: Fill, **options: Any) -> bytes:
    """`fill` gets an empty workbook of xlsxwriter."""
    out = io.BytesIO()
    book = xlsxwriter.Workbook(out, {"in_memory": True, **options})
    fill(book)
    book.set_properties({"created": datetime(2026, 1, 1, tzinfo=UTC)})
    book.close()
    return out.getvalue()


def table(rows: Sequence[Sequence[Any]], name: str = "Sheet1", **options: Any) -> bytes:
    """One sheet of plain values."""

    def fill(book: Any) -> None:
        sheet = book.add_worksheet(name)
        for number, row in enumerate(rows):
            for place, value in enumerate(row):
                if value is not None:
                    (sheet.write_string if isinstance(value, str) else sheet.write)(number, place, value)

    return make(fill, **options)


def patch(body: bytes, changes: dict[str, bytes | None]) -> bytes:
    """The same package with other parts; None leaves one out. It is the same whenever it is made."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(body)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        parts = {name: old.read(name) for name in old.namelist()} | changes
        for name, data in parts.items():
            if data is not None:
                new.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def raw(rows: str, before: str = "") -> bytes:
    """A workbook whose only sheet has this XML in its `sheetData`."""
    xml = f'<?xml version="1.0"?>{before}<worksheet xmlns="{_NAMESPACE}"><sheetData>{rows}</sheetData></worksheet>'
    return patch(table([["x"]]), {SHEET: xml.encode()})


def inline(reference: str, text: str) -> str:
    return f'<c r="{reference}" t="inlineStr"><is><t>{text}</t></is></c>'


HEAD = '<row r="1">' + inline("A1", "id") + inline("B1", "email") + inline("C1", "company") + "</row>"


def person(line: int, more: str = "") -> str:
    """A row of XML below `HEAD`."""
    return f'<row r="{line}">{inline(f"A{line}", f"c{line}")}{inline(f"B{line}", f"c{line}@example.com")}{more}</row>'
