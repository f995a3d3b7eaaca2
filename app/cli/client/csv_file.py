"""CSV files as rows. A row that cannot be understood fails alone; reading goes on with the next line."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from typing import Final

import msgspec

from app.cli.client.columns import NOTES, Columns, understand
from app.cli.client.errors import UsageError
from app.cli.client.rows import Row
from app.cli.client.text import MAX_LINE, Encoding, Line, Lines, describe_marks, is_marked

DELIMITERS: Final = {",": ",", ";": ";", "|": "|", "tab": "\t", "\\t": "\t", "\t": "\t"}
_POSITION_EVERY: Final = 100
"""Rows; asking a stream where it stands costs as much as reading a row."""
_ENCODER: Final = msgspec.json.Encoder()


class _Feed:
    """Lines for `csv.reader`, remembering those of the record being read so that they can be given back."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self._back: deque[Line] = deque()
        self.taken: list[Line] = []

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        line = self._back.popleft() if self._back else next(self._lines)
        self.taken.append(line)
        if line.text is None:
            raise csv.Error(f"the line is longer than {MAX_LINE:,} characters")
        return line.text

    def give_back(self) -> None:
        """Return all lines of the record but its first, so that one open quote costs one line only."""
        self._back.extendleft(reversed(self.taken[1:]))


class _Record(msgspec.Struct, frozen=True):
    line: int
    cells: list[str] | None
    text: str
    problem: str = ""


def _records(lines: Lines, delimiter: str) -> Iterator[_Record]:
    feed = _Feed(iter(lines))
    # strict: `"abc"def` is an error instead of a silently different value.
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    while True:
        feed.taken.clear()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            first = feed.taken[0]
            yield _Record(first.number, None, (first.text or "").rstrip("\r\n"), _explain(error, feed.taken))
            feed.give_back()
        else:
            if cells:
                yield _Record(feed.taken[0].number, cells, "")


def _explain(error: csv.Error, taken: list[Line]) -> str:
    text = str(error)
    several = len(taken) > 1
    if "field larger" in text and not several:
        return f"a cell has more than {csv.field_size_limit():,} characters"
    if "unexpected end of data" in text or (several and ("field larger" in text or "longer than" in text)):
        return "a quote is opened in this line and never closed"
    return f"not valid CSV: {text}"


class CsvSource:
    """A CSV file whose header is understood.

    Raises:
        UsageError: the header cannot be used; see `columns.understand`.
    """

    def __init__(self, path: str, encoding: Encoding, delimiter: str | None, mapping: dict[str, str]) -> None:
        self.path = path
        self.encoding = encoding
        self.blank = 0
        self.position = 0
        self.delimiter = delimiter or self._sniff_delimiter()
        header = self._read_header(self.delimiter)
        self.columns: Columns = understand(header, mapping)

    def _read_header(self, delimiter: str) -> list[str]:
        with open(self.path, "rb") as stream:
            record = next(_records(Lines(stream, self.encoding), delimiter), None)
        if record is None:
            raise UsageError(f"{self.path} is empty: a CSV file begins with a line of column names")
        if record.cells is None:
            raise UsageError(f"{self.path}, line {record.line}: {record.problem}")
        text = "".join(record.cells)
        if is_marked(text):
            raise UsageError(f"{self.path}, line {record.line}: {describe_marks(text, self.encoding.name)}")
        if "\0" in text:
            raise UsageError(
                f"{self.path}, line {record.line}: NUL bytes in the header; for UTF-16 without a byte order mark "
                "say --encoding utf-16-le"
            )
        return record.cells

    def _sniff_delimiter(self) -> str:
        """The candidate that cuts the header into most columns; a comma where none cuts."""
        best, most = ",", 1
        for candidate in (",", ";", "\t", "|"):
            try:
                count = len(self._read_header(candidate))
            except UsageError:
                continue
            if count > most:
                best, most = candidate, count
        return best

    def rows(self) -> Iterator[Row]:
        """Every row but the header and those whose cells are all empty."""
        self.blank = self.position = 0
        number = 0
        with open(self.path, "rb") as stream:
            lines = Lines(stream, self.encoding)
            records = _records(lines, self.delimiter)
            next(records, None)
            for record in records:
                if not number % _POSITION_EVERY:
                    self.position = lines.position
                if record.cells is not None and not any(record.cells):
                    self.blank += 1
                    continue
                yield self._build(number, record)
                number += 1
            self.position = lines.position

    def _build(self, number: int, record: _Record) -> Row:
        cells, columns = record.cells, self.columns
        if cells is None:
            return Row(number, record.line, problem=record.problem, original=record.text)
        width = len(columns.header)
        if len(cells) != width:
            problem = f"the row has {len(cells)} cells, the header {width}"
            if len(cells) > width:
                problem += "; is a value with the delimiter in it not quoted?"
            return Row(number, record.line, problem=problem, original=self._own(cells))
        item = columns.build(cells)
        own = self._own(cells)
        try:
            encoded = _ENCODER.encode(item)
        except UnicodeEncodeError:
            problem = describe_marks("".join(cells), self.encoding.name)
            return Row(number, record.line, problem=problem, original=own)
        if b"\\u0000" in encoded and (
            name := next((h for h, c in zip(columns.header, cells, strict=True) if "\0" in c), None)
        ):
            return Row(number, record.line, problem=f"a NUL byte in the column {name!r}", original=own)
        return Row(number, record.line, encoded, item.get("id", ""), original=own)

    def _own(self, cells: list[str]) -> list[str]:
        """The cells without the notes of an earlier `--failed-out`; surplus cells stay at the end."""
        if not self.columns.has_notes:
            return cells
        width = len(self.columns.header)
        notes = {i for i in range(width) if self.columns.targets[i] is None}
        return [cell for i, cell in enumerate(cells) if i not in notes]

    @property
    def own_header(self) -> list[str]:
        return self._own(self.columns.header)

    def check_notes(self) -> None:
        """Refuse a file whose own columns would stand twice in the file of failed rows.

        Raises:
            UsageError: see above.
        """
        clash = [name for name in self.own_header if name in NOTES]
        if clash:
            raise UsageError(
                f"--failed-out adds a column {clash[0]!r}, which the file has already; rename it in the file"
            )
