"""A file's bytes → the pieces that `app.domain.items.Items` takes: JSON items, and rows that cannot become any."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Final, Protocol
from urllib.parse import quote

import msgspec

from app.domain.envelope import TooManyItems, split_json
from app.domain.files.columns import Columns, HeaderError, Wording, understand
from app.domain.files.csv_rows import Record, Records
from app.domain.files.json_items import MAX_ITEM, JsonItem, JsonItems
from app.domain.files.ndjson import MAX_LINE, NdjsonLines
from app.domain.files.text import UTF_8, Decoder, UndecodableText
from app.domain.outcomes import ErrorCode
from app.domain.rows import Piece, Unfit
from app.domain.rules import FieldError

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
    """How a body is written. `charset` is a codec of `text.CHARSETS`; `mapping` renames columns of a CSV."""

    family: Family = Family.JSON
    charset: str = UTF_8
    mapping: dict[str, str] = {}


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a file's form with its job, so that rows can be given back as they were written."""

    family: Family
    mapping: dict[str, str] = {}
    header: list[str] | None = None
    """Of a CSV."""


class Reader(Protocol):
    """Bytes → pieces, in the order of the file.

    Raises:
        MalformedBody, HeaderError: the file cannot be used as a whole; the machine is done then.
    """

    @property
    def line(self) -> int:
        """Lines read so far, blank ones too."""

    def feed(self, data: bytes) -> list[Piece]: ...

    def finish(self) -> list[Piece]: ...


class CsvReader:
    """The first record that is not blank is the header; rows without any content are left out."""

    def __init__(self, form: Form) -> None:
        self._decoder = Decoder(form.charset)
        self._records = Records()
        self._mapping = form.mapping
        self.columns: Columns | None = None
        """Once the header was read."""

    @property
    def line(self) -> int:
        return self._records.line

    def feed(self, data: bytes) -> list[Piece]:
        return self._make(self._decode(lambda: self._decoder.feed(data)))

    def finish(self) -> list[Piece]:
        pieces = self._make([*self._decode(self._decoder.finish), *self._records.finish()])
        if self.columns is None:
            raise HeaderError("the file is empty: a CSV file begins with a line of column names")
        return pieces

    def _decode(self, decode: Callable[[], str]) -> list[Record]:
        try:
            return self._records.feed(decode())
        except UndecodableText as error:
            # A bad header before the bad byte is told first, wherever the chunks were cut.
            self._make(self._records.feed(error.before, at_once=True))
            raise

    def _make(self, records: list[Record]) -> list[Piece]:
        if not records:
            return []
        if self.columns is None:
            self.columns = self._understand(records.pop(0))
        columns = self.columns
        return [
            _make_piece(columns, record) for record in records if record.cells is None or any(record.cells)
        ]

    def _understand(self, record: Record) -> Columns:
        if record.cells is None:
            raise HeaderError(f"line {record.line}, which should name the columns: {record.problem}")
        if any("\0" in cell for cell in record.cells):
            raise HeaderError(
                f"line {record.line}, which should name the columns, has NUL bytes; if the file is UTF-16 without a "
                "byte order mark, send it with charset=utf-16le in the content type"
            )
        return understand(record.cells, self._mapping, WORDING)


def _make_piece(columns: Columns, record: Record) -> Piece:
    cells = record.cells
    if cells is None:
        return _unfit(record.line, record.problem, too_large=record.too_long, text=record.text)
    fault = columns.fault(cells)
    return _encode(columns.build(cells)) if fault is None else _unfit(record.line, fault, cells=cells)


_encode = msgspec.json.Encoder().encode


def _unfit(
    line: int, problem: str, *, too_large: bool = False, cells: list[str] | None = None, text: str = ""
) -> Unfit:
    code = ErrorCode.ITEM_TOO_LARGE if too_large else ErrorCode.INVALID_FIELD
    return Unfit([FieldError(code, "", f"line {line}: {problem}")], cells=cells, text=text)


class NdjsonReader:
    """One item a line; blank lines are left out."""

    def __init__(self) -> None:
        self._lines = NdjsonLines()

    @property
    def line(self) -> int:
        return self._lines.line

    def feed(self, data: bytes) -> list[Piece]:
        return [_take(line.number, line.data) for line in self._lines.feed(data)]

    def finish(self) -> list[Piece]:
        return [_take(line.number, line.data) for line in self._lines.finish()]


def _take(number: int, data: bytes | None) -> Piece:
    if data is None:
        return _unfit(number, f"the line is longer than {MAX_LINE:,} bytes", too_large=True)
    return data


class JsonReader:
    """The items of `{"items": […]}`."""

    line = 1
    """Line breaks mean nothing here."""

    def __init__(self) -> None:
        self._items = JsonItems()

    def feed(self, data: bytes) -> list[Piece]:
        return [_take_item(item) for item in self._items.feed(data)]

    def finish(self) -> list[Piece]:
        return [_take_item(item) for item in self._items.finish()]


def _take_item(item: JsonItem) -> Piece:
    if item.data is not None:
        return item.data
    detail = f"the item that begins at byte {item.offset} of the body is longer than {MAX_ITEM:,} bytes"
    return Unfit([FieldError(ErrorCode.ITEM_TOO_LARGE, "", detail)])


def open_reader(form: Form) -> Reader:
    """The machine for a body that arrives piece by piece."""
    if form.family is Family.CSV:
        return CsvReader(form)
    return NdjsonReader() if form.family is Family.NDJSON else JsonReader()


class Contents(msgspec.Struct, frozen=True):
    """A body, read."""

    pieces: list[Piece]
    kept: Kept


def read_pieces(body: bytes, form: Form, *, max_items: int) -> Contents:
    """The items of a body that is there as a whole.

    Raises:
        MalformedBody: nothing of it can be taken.
        HeaderError: the columns of a CSV cannot be used.
        TooManyItems: more than `max_items` items.
    """
    if form.family is Family.JSON:
        return Contents([*split_json(body, max_items=max_items)], Kept(family=form.family))
    reader = open_reader(form)
    pieces: list[Piece] = []
    for start in range(0, len(body), _CHUNK):
        pieces += reader.feed(body[start : start + _CHUNK])
        if len(pieces) > max_items or reader.line > LINES_PER_ITEM * max_items + 1:
            raise _too_many(max_items)
    pieces += reader.finish()
    if len(pieces) > max_items:
        raise _too_many(max_items)
    return Contents(pieces, keep(form, reader))


def keep(form: Form, reader: Reader) -> Kept:
    """What is worth keeping of a file, once its reader has seen all of it."""
    columns = reader.columns if isinstance(reader, CsvReader) else None
    return Kept(family=form.family, mapping=form.mapping, header=columns.header if columns else None)


def _too_many(max_items: int) -> TooManyItems:
    return TooManyItems(
        f"the body has more than {max_items} rows, or too many lines; send it in several requests"
    )
