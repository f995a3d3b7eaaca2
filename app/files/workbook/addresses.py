"""Where a cell is, as a spreadsheet shows it: `Sheet1!C7`."""

import re
from collections.abc import Mapping
from typing import Final

import msgspec

MAX_ROWS: Final = 1_048_576
MAX_COLUMNS: Final = 16_384
"""Of a sheet (Excel specifications and limits)."""

_REFERENCE: Final = re.compile(r"([A-Za-z]{1,3})([1-9][0-9]{0,6})", re.ASCII)
_BARE: Final = re.compile(r"[^\W\d]\w*")


def column_name(column: int) -> str:
    """Of a column, which counts from 0: A, B, …, Z, AA."""
    text = ""
    column += 1
    while column:
        column, rest = divmod(column - 1, 26)
        text = chr(65 + rest) + text
    return text


def parse_reference(text: str) -> tuple[int, int] | None:
    """Row and column of `C7`, from 0; None: there is no such cell."""
    found = _REFERENCE.fullmatch(text)
    if found is None:
        return None
    column = 0
    for sign in found[1].upper():
        column = column * 26 + ord(sign) - 64
    row = int(found[2])
    return (row - 1, column - 1) if column <= MAX_COLUMNS and row <= MAX_ROWS else None


def address(sheet: str, column: int, line: int) -> str:
    """`column` counts from 0, `line` from 1. A name of several words is quoted, as in a formula."""
    shown = sheet if _BARE.fullmatch(sheet) else "'" + sheet.replace("'", "''") + "'"
    return f"{shown}!{column_name(column)}{line}"


class Grid(msgspec.Struct, frozen=True):
    """Where the members of the items of one sheet are. `columns`: by JSON pointer into the item."""

    sheet: str
    columns: Mapping[str, int]

    def find(self, pointer: str, line: int) -> str | None:
        """The cell of what the pointer names or is within; None: no column has it."""
        while pointer:
            column = self.columns.get(pointer)
            if column is not None:
                return address(self.sheet, column, line)
            pointer = pointer.rpartition("/")[0]
        return None
