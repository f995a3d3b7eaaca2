"""What the process that reads a workbook is asked, and the lines of JSON that it answers with.

The first line is a `Sheet`, each further one a `Row`; or the only line is a `Refusal`.
"""

from enum import StrEnum
from typing import Final

import msgspec


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """How a workbook is to be read. Limits are in bytes."""

    sheet: str = ""
    """Its name, or its number from 1; empty: the first visible one with contents."""
    most_bytes: int
    """Of all its parts, uncompressed."""
    remedy: str = ""
    """What to do about a larger one, beside saving it as CSV."""
    most_inflation: float
    """Times its size that it and its rows may inflate to, if that is much: cells may share one long text."""
    memory: int
    at_once: int | None = None
    """Uncompressed; a larger one is not to be read now."""
    typed: bool = False
    """Whether rows have to say which of their cells are numbers or dates."""


class Why(StrEnum):
    """Kinds of refusals."""

    UNREADABLE = "unreadable"
    TOO_LARGE = "too_large"
    NO_SHEET = "no_sheet"
    LATER = "later"
    """It exceeds `at_once`."""


class Refusal(msgspec.Struct, frozen=True, tag="refusal"):
    why: Why
    detail: str = ""


class Sheet(msgspec.Struct, frozen=True, tag="sheet"):
    """`column`: the first one that has a value, from 0."""

    name: str
    column: int = 0


class Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A row with a value. `line` counts from 1, places of cells from 0, at the sheet's first column."""

    line: int
    cells: list[str]
    """Without empty ones at the end."""
    faults: dict[int, str] = {}
    """The error that a cell holds, by its place; "": a formula that was not computed. `WHOLE_ROW`: the row itself."""
    typed: list[int] = []
    """The cells that are numbers or dates, where that was asked."""


WHOLE_ROW: Final = -1
"""The place of a fault that no cell can be named for: `TOO_LONG`, or a date or duration that is out of range."""
TOO_LONG: Final = "too long"
MAX_ROW: Final = 1_048_576
"""Characters of a row, as of a line of a CSV."""


class WorkbookError(Exception):
    """Nothing of a workbook can be read; `detail` says why, and what to do."""

    def __init__(self, why: Why, detail: str = "") -> None:
        super().__init__(detail)
        self.why = why
        self.detail = detail


encode: Final = msgspec.json.Encoder().encode
decode_first: Final = msgspec.json.Decoder(Sheet | Refusal).decode
decode_row: Final = msgspec.json.Decoder(Row).decode

NO_MEMORY: Final = 4
DAMAGED: Final = 5
TOO_MANY: Final = 6
"""Exit codes of the process, where it could not say more."""
