"""What of a sheet must be known before its cells are read: how far they reach, and which of them have no value.

The library that reads the cells holds the rectangle from the first to the last one in memory, shows an error like an
empty cell, and a formula that was never computed as well.
"""

import re
from typing import Final

from app.files.workbook.addresses import MAX_COLUMNS, MAX_ROWS, column_name, parse_reference
from app.files.workbook.package import SAVE, Package, Tab, open_parser, unreadable
from app.files.workbook.protocol import Why, WorkbookError

CELL: Final = 32
"""Bytes of memory that a cell of the rectangle takes beside its text."""
_LONGEST: Final = 40
_OVERLAP: Final = 64
"""Bytes of a piece that are looked at with the next one again: no pattern is longer."""
_VALUES: Final = (b"<v>", b"<is>")
_UNUSUAL: Final = (b't="e"', b"<f>", b"<f ", b"<f/", b":c ", b":v>", b"='", b" =", b"= ", b"<!DOC")
"""What asks for a thorough look: an error, a formula, or tags that are not written as most programs do."""
_COLUMN: Final = re.compile(rb' r="([A-Z]{1,3})[0-9]')
_ROW: Final = re.compile(rb'<row r="([0-9]{1,7})"')


class Scan:
    """A look at the XML of a sheet: a quick one, and where that is not enough, a thorough one.

    Raises:
        WorkbookError: the XML is damaged, or the cells reach too far for `memory` bytes.
    """

    def __init__(self, package: Package, tab: Tab, memory: int) -> None:
        self.faults: dict[int, dict[int, str]] = {}
        """The errors that cells hold, or "" for a formula without a value, by row and column from 0."""
        self.filled = False
        """Whether any cell has a value."""
        self._top = self._left = 1 << 30
        self._bottom = self._right = -1
        self._tab = tab
        self._row = self._column = -1
        self._kind = ""
        self._formula = False
        self._text = ""
        self._local: dict[str, str] = {}
        if self._glance(package, memory):
            return
        self._parser = parser = open_parser()
        parser.StartElementHandler = self._start
        package.parse(parser, tab.part)
        self.filled = self._right >= 0
        if self.filled and (self._bottom - self._top + 1) * (self._right - self._left + 1) * CELL > memory:
            raise WorkbookError(
                Why.TOO_LARGE,
                f"the cells of the sheet {tab.name!r} reach from {column_name(self._left)}{self._top + 1} to "
                f"{column_name(self._right)}{self._bottom + 1}, too far apart to be read as a table: delete what is "
                "in the cells far from it, or save the table as CSV and send that",
            )

    def _glance(self, package: Package, memory: int) -> bool:
        """Whether nothing of the sheet is remarkable: a tenth of the time that it takes to parse it."""
        rest = b""
        columns: set[bytes] = {b"A"}
        rows = bottom = 0
        for piece in package.read(self._tab.part):
            text = rest + piece
            if any(sign in text for sign in _UNUSUAL):
                return False
            self.filled = self.filled or any(sign in text for sign in _VALUES)
            columns.update(_COLUMN.findall(text))
            found = _ROW.findall(text)
            rows += len(found)
            bottom = max(bottom, rows, *map(int, found))
            rest = text[-_OVERLAP:]
        right = max(parse_reference(f"{name.decode()}1") or (0, MAX_COLUMNS) for name in columns)[1]
        return self.filled and bottom <= MAX_ROWS and bottom * (right + 1) * CELL <= memory

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if ":" in name:
            name = self._local.setdefault(name, name.rpartition(":")[2])
        if name == "c":
            self._begin_cell(attributes)
        elif name in ("v", "is"):
            self._reach()
        elif name == "row":
            self._begin_row(attributes.get("r"))
        elif name == "f":
            self._reach()
            self._formula = True
            self._watch()

    def _begin_row(self, given: str | None) -> None:
        row = self._row + 1 if given is None else _number(given)
        if parse_reference(f"A{row + 1}") is None:
            raise unreadable(f"the workbook is damaged: the sheet {self._tab.name!r} has no row {row + 1}; {SAVE}")
        self._row, self._column = row, -1

    def _begin_cell(self, attributes: dict[str, str]) -> None:
        given = attributes.get("r")
        place = (self._row, self._column + 1) if given is None else parse_reference(given)
        if place is None or place[0] < 0 or place[1] >= MAX_COLUMNS:
            raise unreadable(
                f"the workbook is damaged: the sheet {self._tab.name!r} has no cell {(given or '')[:20]!r}; {SAVE}"
            )
        self._row, self._column = place
        self._formula = False
        self._kind = attributes.get("t", "")
        if self._kind == "e":
            self._watch()

    def _reach(self) -> None:
        row, column = self._row, self._column
        self._top, self._bottom = min(self._top, row), max(self._bottom, row)
        self._left, self._right = min(self._left, column), max(self._right, column)

    def _watch(self) -> None:
        """Hear the text of the cell, until it ends."""
        self._text = ""
        self._parser.CharacterDataHandler = self._hear
        self._parser.EndElementHandler = self._end

    def _hear(self, text: str) -> None:
        self._text += text[: _LONGEST - len(self._text)]

    def _end(self, name: str) -> None:
        name = name.rpartition(":")[2]
        if name == "f":
            self._text = ""
        elif name == "c":
            self._parser.CharacterDataHandler = self._parser.EndElementHandler = None
            text = self._text.strip()
            if self._kind == "e":
                self._note(text or "#VALUE!")
            elif self._formula and not text and self._kind != "str":
                self._note("")

    def _note(self, error: str) -> None:
        self.faults.setdefault(self._row, {})[self._column] = error


def _number(text: str) -> int:
    return int(text[:8]) - 1 if text.isascii() and text.isdigit() else -2
