"""Tables of text as pieces: the first row that is not blank names the columns, and each other one is an item."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Final
from urllib.parse import quote

import msgspec
from msgspec import UNSET, UnsetType

from app.files.csv_cells import Cells
from app.files.csv_columns import SAMPLE, Columns, HeaderError, MissingFields, understand
from app.files.csv_mapping import ColumnNames, Wording
from app.files.csv_reader import Record, Records
from app.files.encoding import UTF_8, Decoder, UndecodableText
from app.files.workbook.addresses import Grid
from app.resources.decoding import Noted, Piece, UnreadablePiece
from app.vocabulary.outcomes_wire import FieldError
from app.vocabulary.states import ErrorCode


def _show(column: str, field: str) -> str:
    return f"?map={quote(column, safe='')}:{quote(field, safe='')}"


WORDING: Final = Wording("map=", ":", _show)


class Family(StrEnum):
    JSON = "json"
    CSV = "csv"
    NDJSON = "ndjson"
    XLSX = "xlsx"


TABLES: Final = frozenset({Family.CSV, Family.XLSX})
"""What has columns."""


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """How a body is written. `charset` is a codec of `text.CHARSETS`; `mapping` renames columns of a table; `sheet` is
    the one of a workbook that is meant; the rest: see `app.files.csv_cells.Cells`."""

    family: Family = Family.JSON
    charset: str = UTF_8
    mapping: dict[str, str] = {}
    decimal: str | UnsetType = UNSET
    date_format: str | UnsetType = UNSET
    sheet: str | UnsetType = UNSET

    @property
    def cells(self) -> Cells:
        return Cells(self.decimal or "", self.date_format or "")


class Portion(msgspec.Struct, frozen=True):
    """Pieces that follow one another, and the line that each begins in, from 1; JSON has no lines."""

    pieces: list[Piece]
    lines: list[int] = []


class Reader(ABC):
    """Bytes → pieces, in the order of the file.

    Raises:
        MalformedBody, HeaderError: the file cannot be used as a whole; the machine is done then.
    """

    grid: Grid | None = None
    """Of a workbook, once its header was read."""

    @property
    @abstractmethod
    def line(self) -> int:
        """Lines read so far, blank ones too."""

    @abstractmethod
    def read(self, data: bytes | None) -> Iterator[Portion]:
        """What comes of these bytes, or of the end (None), in steps of some milliseconds; to be asked for to its end.

        Between two steps others may have their turn.
        """

    def feed(self, data: bytes) -> list[Piece]:
        return [piece for step in self.read(data) for piece in step.pieces]

    def finish(self) -> list[Piece]:
        return [piece for step in self.read(None) for piece in step.pieces]


class TableReader(Reader):
    """The first record that is not blank is the header; rows without any content are left out."""

    def __init__(self, form: Form, names: ColumnNames) -> None:
        self._form = form
        self._names = names
        self._lacking: MissingFields | None = None
        """The header cannot be used: a few rows are read on for a good advice."""
        self._sample: list[list[str]] = []
        self.columns: Columns | None = None
        """Once the header was read."""

    def _make(self, steps: Iterable[list[Record]]) -> Iterator[Portion]:
        for records in steps:
            if not records:
                yield Portion([])  # there may be work without any record
                continue
            if self._lacking is None and self.columns is None:
                self._begin(records.pop(0))
            columns = self.columns
            if columns is None:
                yield Portion([])
                self._sample += [record.cells for record in records if record.cells and any(record.cells)]
                if len(self._sample) >= SAMPLE:
                    self._refuse()
                continue
            filled = [record for record in records if self._is_filled(record)]
            yield Portion([self._make_piece(columns, record) for record in filled], [record.line for record in filled])

    def _refuse(self) -> None:
        """
        Raises:
            HeaderError: the columns cannot be used.
        """
        if self._lacking is not None:
            raise self._lacking.advise(self._sample)

    def _begin(self, record: Record) -> None:
        """Take the header.
        Raises `HeaderError`: it cannot be used, whatever the rows are."""
        self._check_header(record)
        assert record.cells is not None
        try:
            self.columns = understand(self._names, record.cells, self._form.mapping, WORDING, self._form.cells)
        except MissingFields as lacking:
            self._lacking = lacking

    @abstractmethod
    def _check_header(self, record: Record) -> None:
        """Raises `HeaderError`: the names in it cannot be read."""

    def _is_filled(self, record: Record) -> bool:
        return record.cells is None or any(record.cells)

    @abstractmethod
    def _make_piece(self, columns: Columns, record: Record) -> Piece: ...


class CsvReader(TableReader):
    def __init__(self, form: Form, names: ColumnNames) -> None:
        super().__init__(form, names)
        self._decoder = Decoder(form.charset)
        self._records = Records()

    @property
    def line(self) -> int:
        return self._records.line

    def read(self, data: bytes | None) -> Iterator[Portion]:
        try:
            text = self._decoder.finish() if data is None else self._decoder.feed(data)
        except UndecodableText as error:
            # A bad header before the bad byte is told first, wherever the chunks were cut.
            yield from self._make(self._records.read(error.before, at_once=True))
            self._refuse()
            raise
        yield from self._make(self._records.read(text))
        if data is None:
            yield from self._make(self._records.read(None))
            self._refuse()
            if self.columns is None:
                raise HeaderError("the file is empty: a CSV file begins with a line of column names")

    def _check_header(self, record: Record) -> None:
        if record.cells is None:
            raise HeaderError(f"line {record.line}, which should name the columns: {record.problem}")
        if any("\0" in cell for cell in record.cells):
            raise HeaderError(
                f"line {record.line}, which should name the columns, has NUL bytes; if the file is UTF-16 without a "
                "byte order mark, send it with charset=utf-16le in the content type"
            )

    def _make_piece(self, columns: Columns, record: Record) -> Piece:
        cells = record.cells
        if cells is None:
            return unreadable(record.line, record.problem, too_large=record.too_long, text=record.text)
        fault = columns.fault(cells)
        if fault is not None:
            return unreadable(record.line, fault, cells=cells)
        return make_item(columns, cells)


def make_item(columns: Columns, cells: list[str]) -> Piece:
    """The piece of a row that fits the header."""
    item, warnings = columns.read(cells)
    return Noted(encode_item(item), warnings) if warnings else encode_item(item)


encode_item: Final = msgspec.json.Encoder().encode


def unreadable(
    line: int, problem: str, *, too_large: bool = False, cells: list[str] | None = None, text: str = ""
) -> UnreadablePiece:
    code = ErrorCode.ITEM_TOO_LARGE if too_large else ErrorCode.INVALID_FIELD
    return UnreadablePiece([FieldError(code, "", f"line {line}: {problem}")], cells=cells, text=text)
