"""Cells of a CSV as values of declared types."""

from __future__ import annotations

from typing import Any

import pytest

from app.files.csv_cells import Cells
from app.resources.declaration import Field, Kind

NUMBER = Field(name="n", kind=Kind.NUMBER)
INTEGER = Field(name="n", kind=Kind.INTEGER)
BOOLEAN = Field(name="b", kind=Kind.BOOLEAN)
DATE = Field(name="d", kind=Kind.DATE)
TAGS = Field(name="t", many=5)
COUNTS = Field(name="t", kind=Kind.INTEGER, many=5)


def read(field: Field, cell: str, decimal: str = "", date_format: str = "") -> Any:
    convert = Cells(decimal, date_format).converter(field)
    return cell if convert is None else convert(cell)


@pytest.mark.parametrize(
    ("cell", "decimal", "value"),
    [
        ("12", "", 12),
        ("-1.5", "", -1.5),
        ("1e3", "", 1000.0),
        ("1,234", "", "1,234"),
        ("1.234,5", "", "1.234,5"),
        ("1.234,5", ",", 1234.5),
        ("1,5", ",", 1.5),
        ("1.234", ",", 1234),
        ("1.23", ",", "1.23"),
        ("1,234.5", ".", 1234.5),
        ("1,23", ".", "1,23"),
        ("abc", ",", "abc"),
        ("1 234,5", ",", 1234.5),
        ("١٢", "", "١٢"),
        ("nan", "", "nan"),
        ("Infinity", "", "Infinity"),
        ("9" * 30, "", "9" * 30),
    ],
)
def test_numbers(cell: str, decimal: str, value: Any) -> None:
    found = read(NUMBER, cell, decimal)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(("cell", "value"), [("yes", True), ("NEIN", False), ("1", True), ("maybe", "maybe"), ("", "")])
def test_booleans(cell: str, value: Any) -> None:
    assert read(BOOLEAN, cell) is value or read(BOOLEAN, cell) == value


@pytest.mark.parametrize(
    ("cell", "form", "value"),
    [
        ("2026-03-31", "", "2026-03-31"),
        ("31.03.2026", "DD.MM.YYYY", "2026-03-31"),
        ("1.3.2026", "DD.MM.YYYY", "2026-03-01"),
        ("03/31/2026", "MM/DD/YYYY", "2026-03-31"),
        ("31.02.2026", "DD.MM.YYYY", "31.02.2026"),
        ("31/03/2026", "DD.MM.YYYY", "31/03/2026"),
    ],
)
def test_dates(cell: str, form: str, value: str) -> None:
    assert read(DATE, cell, date_format=form) == value


@pytest.mark.parametrize(
    ("field", "cell", "value"),
    [
        (TAGS, "a;b", ["a", "b"]),
        (TAGS, '["a;b", "c"]', ["a;b", "c"]),
        (TAGS, "a", ["a"]),
        (COUNTS, "1;2", [1, 2]),
        (COUNTS, "1;x", [1, "x"]),
        (COUNTS, "[1,", "[1,"),
    ],
)
def test_lists(field: Field, cell: str, value: Any) -> None:
    assert read(field, cell) == value
