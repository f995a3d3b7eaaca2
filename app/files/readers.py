"""A file's bytes → the pieces that a batch (`app.imports.batch`) takes: JSON items, and rows that cannot become any.

Pieces are gathered into chunks, each of which is later written in one transaction.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator
from enum import StrEnum
from itertools import chain, zip_longest
from typing import Final
from urllib.parse import quote

import msgspec
from msgspec import UNSET, UnsetType

from app.files.csv_cells import Cells
from app.files.csv_columns import SAMPLE, Columns, HeaderError, MissingFields, understand
from app.files.csv_mapping import ColumnNames, Wording
from app.files.csv_reader import Record, Records
from app.files.encoding import UTF_8, Decoder, UndecodableText
from app.files.json_document import split_quickly
from app.files.json_reader import MAX_ITEM, JsonItems, LongItem
from app.files.ndjson import MAX_LINE, NdjsonLines
from app.resources.decoding import Noted, Piece, UnreadablePiece
from app.vocabulary.outcomes_wire import FieldError
from app.vocabulary.states import ErrorCode

_CHUNK: Final = 65_536
LINES_PER_ITEM: Final = 64
"""A body with more lines than this for each allowed item is refused: blank ones take time as well."""


def _show(column: str, field: str) -> str:
    return f"?map={quote(column, safe='')}:{quote(field, safe='')}"


WORDING: Final = Wording("map=", ":", _show)


class Family(StrEnum):
    JSON = "json"
    CSV = "csv"
    NDJSON = "ndjson"


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """How a body is written. `charset` is a codec of `text.CHARSETS`; `mapping` renames columns of a CSV; the rest: see
    `app.files.csv_cells.Cells`."""

    family: Family = Family.JSON
    charset: str = UTF_8
    mapping: dict[str, str] = {}
    decimal: str | UnsetType = UNSET
    date_format: str | UnsetType = UNSET

    @property
    def cells(self) -> Cells:
        return Cells(self.decimal or "", self.date_format or "")


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a file's form with its job, so that rows can be given back as they were written."""

    family: Family
    mapping: dict[str, str] = {}
    header: list[str] | None = None
    """Of a CSV."""


class Portion(msgspec.Struct, frozen=True):
    """Pieces that follow one another, and the line that each begins in, from 1; JSON has no lines."""

    pieces: list[Piece]
    lines: list[int] = []


class Reader(ABC):
    """Bytes → pieces, in the order of the file.

    Raises:
        MalformedBody, HeaderError: the file cannot be used as a whole; the machine is done then.
    """

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


class CsvReader(Reader):
    """The first record that is not blank is the header; rows without any content are left out."""

    def __init__(self, form: Form, names: ColumnNames) -> None:
        self._decoder = Decoder(form.charset)
        self._records = Records()
        self._form = form
        self._names = names
        self._lacking: MissingFields | None = None
        """The header cannot be used: a few rows are read on for a good advice."""
        self._sample: list[list[str]] = []
        self.columns: Columns | None = None
        """Once the header was read."""

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

    def _make(self, steps: Iterable[list[Record]]) -> Iterator[Portion]:
        for records in steps:
            if not records:
                yield Portion([])  # there may be work without any record
                continue
            if self._lacking is None and self.columns is None:
                self._understand(records.pop(0))
            columns = self.columns
            if columns is None:
                yield Portion([])
                self._sample += [record.cells for record in records if record.cells and any(record.cells)]
                if len(self._sample) >= SAMPLE:
                    self._refuse()
                continue
            filled = [record for record in records if record.cells is None or any(record.cells)]
            yield Portion([_make_piece(columns, record) for record in filled], [record.line for record in filled])

    def _refuse(self) -> None:
        """
        Raises:
            HeaderError: the columns cannot be used.
        """
        if self._lacking is not None:
            raise self._lacking.advise(self._sample)

    def _understand(self, record: Record) -> None:
        if record.cells is None:
            raise HeaderError(f"line {record.line}, which should name the columns: {record.problem}")
        if any("\0" in cell for cell in record.cells):
            raise HeaderError(
                f"line {record.line}, which should name the columns, has NUL bytes; if the file is UTF-16 without a "
                "byte order mark, send it with charset=utf-16le in the content type"
            )
        try:
            self.columns = understand(self._names, record.cells, self._form.mapping, WORDING, self._form.cells)
        except MissingFields as lacking:
            self._lacking = lacking


def _make_piece(columns: Columns, record: Record) -> Piece:
    cells = record.cells
    if cells is None:
        return _unreadable(record.line, record.problem, too_large=record.too_long, text=record.text)
    fault = columns.fault(cells)
    if fault is not None:
        return _unreadable(record.line, fault, cells=cells)
    item, warnings = columns.read(cells)
    return Noted(_encode(item), warnings) if warnings else _encode(item)


_encode = msgspec.json.Encoder().encode


def _unreadable(
    line: int, problem: str, *, too_large: bool = False, cells: list[str] | None = None, text: str = ""
) -> UnreadablePiece:
    code = ErrorCode.ITEM_TOO_LARGE if too_large else ErrorCode.INVALID_FIELD
    return UnreadablePiece([FieldError(code, "", f"line {line}: {problem}")], cells=cells, text=text)


class NdjsonReader(Reader):
    """One item a line; blank lines are left out."""

    def __init__(self) -> None:
        self._lines = NdjsonLines()

    @property
    def line(self) -> int:
        return self._lines.line

    def read(self, data: bytes | None) -> Iterator[Portion]:
        lines = self._lines.finish() if data is None else self._lines.feed(data)
        long = f"the line is longer than {MAX_LINE:,} bytes"
        pieces: list[Piece] = [
            _unreadable(line.number, long, too_large=True) if line.data is None else line.data for line in lines
        ]
        yield Portion(pieces, [line.number for line in lines])


class JsonReader(Reader):
    """The items of `{"items": […]}`."""

    line = 1  # line breaks mean nothing here

    def __init__(self) -> None:
        self._items = JsonItems()

    def read(self, data: bytes | None) -> Iterator[Portion]:
        items = self._items.finish() if data is None else self._items.feed(data)
        yield Portion([_refuse_long(item) if isinstance(item, LongItem) else item for item in items])


def _refuse_long(item: LongItem) -> UnreadablePiece:
    detail = f"the item that begins at byte {item.offset} of the body is longer than {MAX_ITEM:,} bytes"
    return UnreadablePiece([FieldError(ErrorCode.ITEM_TOO_LARGE, "", detail)])


def open_reader(form: Form, names: ColumnNames) -> Reader:
    """The machine for a body that arrives piece by piece."""
    if form.family is Family.CSV:
        return CsvReader(form, names)
    return NdjsonReader() if form.family is Family.NDJSON else JsonReader()


class Contents(msgspec.Struct, frozen=True):
    pieces: list[Piece]
    kept: Kept
    lines: list[int] = []
    """As in `Portion`."""


def read_quickly(body: bytes, form: Form, *, max_items: int) -> Contents | None:
    """The items of a body of sound JSON: some nanoseconds a byte, as its fingerprint. None: to be read by steps."""
    if form.family is not Family.JSON:
        return None
    items = split_quickly(body, max_items=max_items)
    return None if items is None else Contents([*items], Kept(family=form.family))


def read_by_steps(
    body: bytes, form: Form, names: ColumnNames, *, max_items: int
) -> Generator[None, None, Contents | None]:
    """The items of a body that is there as a whole, returned at the end; others may have their turn between two steps.

    None: it has more than `max_items`, or very many lines.

    Raises:
        MalformedBody: nothing of it can be taken.
        HeaderError: the columns of a CSV cannot be used.
    """
    reader = open_reader(form, names)
    pieces: list[Piece] = []
    lines: list[int] = []
    chunks = (body[start : start + _CHUNK] for start in range(0, len(body), _CHUNK))
    for chunk in chain(chunks, (None,)):
        for found in reader.read(chunk):
            pieces += found.pieces
            lines += found.lines
            if len(pieces) > max_items:
                return None
            yield
        yield
        if reader.line > LINES_PER_ITEM * max_items + 1:
            return None
    return Contents(pieces, keep(form, reader), lines)


def keep(form: Form, reader: Reader) -> Kept:
    """What is worth keeping of a file, once its reader has seen all of it."""
    columns = reader.columns if isinstance(reader, CsvReader) else None
    return Kept(family=form.family, mapping=form.mapping, header=columns.header if columns else None)


class Chunk(msgspec.Struct, frozen=True):
    """Some pieces of a file that follow one another; the first is the `first_index`-th, from 0."""

    first_index: int
    pieces: list[Piece]
    lines: list[int] = []
    """As in `Portion`."""


class Chunker:
    """Cuts at `items` pieces or `size` bytes of them, whichever comes first; a larger piece is a chunk of its own."""

    def __init__(self, *, items: int, size: int) -> None:
        self._most_items = items
        self._most_bytes = size
        self._pieces: list[Piece] = []
        self._lines: list[int] = []
        self._bytes = 0
        self._first = 0

    @property
    def count(self) -> int:
        """Pieces so far."""
        return self._first + len(self._pieces)

    def feed(self, portion: Portion) -> Iterator[Chunk]:
        """The chunks that are full; the pieces are taken while they are asked for."""
        for piece, line in zip_longest(portion.pieces, portion.lines):
            size = measure(piece)
            if self._pieces and (len(self._pieces) >= self._most_items or self._bytes + size > self._most_bytes):
                yield self._cut()
            self._pieces.append(piece)
            self._bytes += size
            if line is not None:
                self._lines.append(line)

    def finish(self) -> Chunk | None:
        """What is left, if anything."""
        return self._cut() if self._pieces else None

    def _cut(self) -> Chunk:
        chunk = Chunk(self._first, self._pieces, self._lines)
        self._first += len(self._pieces)
        self._pieces, self._lines, self._bytes = [], [], 0
        return chunk


def measure(piece: Piece) -> int:
    """Bytes, about: for limits of what is held."""
    if isinstance(piece, UnreadablePiece):
        return len(piece.text) + sum(map(len, piece.cells or ())) + 100
    return len(piece.item) + 100 if isinstance(piece, Noted) else len(piece)
