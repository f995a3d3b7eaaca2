"""CSV files as rows. A row that cannot be understood fails alone; reading goes on with the next line."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import islice
from typing import Final

import msgspec

from app.cli.client.columns import NOTES, Columns, understand
from app.cli.client.errors import UsageError
from app.cli.client.rows import Row
from app.cli.client.text import Encoding, describe_marks, is_marked, open_text
from app.domain.files.columns import SAMPLE
from app.domain.files.csv_rows import Record, Records

DELIMITERS: Final = {",": ",", ";": ";", "|": "|", "tab": "\t", "\\t": "\t", "\t": "\t"}
_CHUNK: Final = 65_536
_POSITION_EVERY: Final = 100
"""Rows; asking a stream where it stands costs as much as reading a row."""
_ENCODER: Final = msgspec.json.Encoder()


class _Records:
    """The records of a stream, read a chunk at a time."""

    def __init__(self, stream: io.BufferedReader, encoding: Encoding, delimiter: str | None) -> None:
        self._stream = stream
        self._text = open_text(stream, encoding)
        self._machine = Records(delimiter)

    @property
    def delimiter(self) -> str:
        return self._machine.delimiter or ","

    @property
    def position(self) -> int:
        return self._stream.tell()

    def __iter__(self) -> Iterator[Record]:
        while chunk := self._text.read(_CHUNK):
            yield from self._machine.feed(chunk)
        yield from self._machine.finish()


def detect_delimiter(path: str, encoding: Encoding) -> str:
    """The delimiter that a file's header tells, as the service finds it."""
    with open(path, "rb") as stream:
        records = _Records(stream, encoding, None)
        next(iter(records), None)
        return records.delimiter


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
        self.warnings: dict[tuple[str, str], list[int]] = {}
        """Lines of the last pass by what was noticed and where."""
        header, self.delimiter = self._read_header(delimiter)
        self.columns: Columns = understand(header, mapping, self.sample)

    def _read_header(self, delimiter: str | None) -> tuple[list[str], str]:
        with open(self.path, "rb") as stream:
            records = _Records(stream, self.encoding, delimiter)
            first = iter(records)
            record = next(first, None)
            rows = (later.cells for later in islice(first, SAMPLE) if later.cells and any(later.cells))
            self.sample: list[list[str]] = [*rows]
            """The first rows."""
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
        return record.cells, records.delimiter

    def rows(self) -> Iterator[Row]:
        """Every row but the header and those whose cells are all empty."""
        self.blank = self.position = 0
        self.warnings.clear()
        number = 0
        with open(self.path, "rb") as stream:
            source = _Records(stream, self.encoding, self.delimiter)
            records = iter(source)
            next(records, None)
            for record in records:
                if not number % _POSITION_EVERY:
                    self.position = source.position
                if record.cells is not None and not any(record.cells):
                    self.blank += 1
                    continue
                yield self._build(number, record)
                number += 1
            self.position = source.position

    def _build(self, number: int, record: Record) -> Row:
        cells, columns = record.cells, self.columns
        if cells is None:
            return Row(number, record.line, problem=record.problem, original=record.text)
        fault = columns.fault(cells)
        if fault is not None:
            return Row(number, record.line, problem=fault, original=self._own(cells))
        item, warnings = columns.read(cells)
        for warning in warnings:
            self.warnings.setdefault((warning.code, warning.pointer), []).append(record.line)
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
        notes = self.columns.notes
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
