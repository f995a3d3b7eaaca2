"""A file's bytes → the pieces that a batch (`app.imports.batch`) takes: JSON items, and rows that cannot become any.

Pieces are gathered into chunks, each of which is later written in one transaction.
"""

from collections.abc import Generator, Iterator
from itertools import chain, zip_longest
from typing import Final

import msgspec

from app.files.csv_mapping import ColumnNames
from app.files.json_document import split_quickly
from app.files.json_reader import MAX_ITEM, JsonItems, LongItem
from app.files.ndjson import MAX_LINE, NdjsonLines
from app.files.tables.sheet_reader import SheetReader
from app.files.tables.table_reader import WORDING, CsvReader, Family, Form, Portion, Reader, TableReader, unreadable
from app.files.workbook.addresses import Grid
from app.resources.decoding import Noted, Piece, UnreadablePiece
from app.vocabulary.outcomes_wire import FieldError
from app.vocabulary.states import ErrorCode

__all__ = [
    "LINES_PER_ITEM",
    "WORDING",
    "Chunk",
    "Chunker",
    "Contents",
    "CsvReader",
    "Family",
    "Form",
    "Kept",
    "Portion",
    "Reader",
    "keep",
    "measure",
    "open_reader",
    "read_by_steps",
    "read_quickly",
]

_CHUNK: Final = 65_536
LINES_PER_ITEM: Final = 64
"""A body with more lines than this for each allowed item is refused: blank ones take time as well."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a file's form with its job, so that rows can be given back as they were written."""

    family: Family
    mapping: dict[str, str] = {}
    header: list[str] | None = None
    """Of a table."""


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
            unreadable(line.number, long, too_large=True) if line.data is None else line.data for line in lines
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
    """The machine for a body that arrives piece by piece; of a workbook, what `app.files.workbook.process` makes."""
    if form.family is Family.CSV:
        return CsvReader(form, names)
    if form.family is Family.XLSX:
        return SheetReader(form, names)
    return NdjsonReader() if form.family is Family.NDJSON else JsonReader()


class Contents(msgspec.Struct, frozen=True):
    pieces: list[Piece]
    kept: Kept
    lines: list[int] = []
    """As in `Portion`."""
    grid: Grid | None = None
    """Of a workbook."""


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
    return Contents(pieces, keep(form, reader), lines, reader.grid)


def keep(form: Form, reader: Reader) -> Kept:
    """What is worth keeping of a file, once its reader has seen all of it."""
    columns = reader.columns if isinstance(reader, TableReader) else None
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
