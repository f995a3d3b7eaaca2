"""The rows of a sheet, as `app.files.workbook.process` hands them over → pieces, by the rules of a CSV."""

from collections.abc import Iterator

import msgspec

from app.files.csv_cells import Cells
from app.files.csv_columns import Columns, HeaderError, understand
from app.files.csv_mapping import ColumnNames
from app.files.csv_reader import Record
from app.files.tables.table_reader import WORDING, Form, Portion, TableReader, encode_item, make_item
from app.files.workbook.addresses import Grid, address
from app.files.workbook.protocol import MAX_ROW, TOO_LONG, WHOLE_ROW, Row, Sheet, decode_first, decode_row
from app.resources.decoding import Noted, Piece, UnreadablePiece
from app.resources.rules import pointer
from app.vocabulary.outcomes_wire import FieldError
from app.vocabulary.states import ErrorCode


class SheetRecord(Record, frozen=True, gc=False):
    """A row of a sheet: see `app.files.workbook.protocol.Row`."""

    faults: dict[int, str] = {}  # noqa: RUF012 - msgspec copies it
    typed: list[int] = []  # noqa: RUF012


class SheetRows:
    """Bytes → rows."""

    def __init__(self) -> None:
        self.sheet: Sheet | None = None
        """Once the first line was read."""
        self._rest = b""

    def feed(self, data: bytes) -> list[Record]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if self.sheet is None and lines:
            first = decode_first(lines.pop(0))
            assert isinstance(first, Sheet)
            self.sheet = first
        return [_as_record(decode_row(line)) for line in lines]


def _as_record(row: Row) -> Record:
    return SheetRecord(row.line, row.cells, faults=row.faults, typed=row.typed)


class SheetReader(TableReader):
    """Errors name cells by their addresses."""

    def __init__(self, form: Form, names: ColumnNames) -> None:
        super().__init__(form, names)
        self._rows = SheetRows()
        self._line = 0
        self._usual: Columns | None = None
        """The columns for cells that are numbers or dates, where the form says how text has them."""

    @property
    def line(self) -> int:
        return self._line

    def read(self, data: bytes | None) -> Iterator[Portion]:
        if data is None:
            self._refuse()
            if self.columns is None:
                raise HeaderError("the sheet is empty: its first row names the columns")
            return
        records = self._rows.feed(data)
        if records:
            self._line = records[-1].line
        yield from self._make([records])

    def _check_header(self, record: Record) -> None:
        assert isinstance(record, SheetRecord)
        assert record.cells is not None
        if WHOLE_ROW in record.faults:
            raise HeaderError(
                f"the row of {self._address(0, record.line)}, which should name the columns, "
                f"{_explain_row(record.faults[WHOLE_ROW])}"
            )
        for place, error in record.faults.items():
            raise HeaderError(f"{self._address(place, record.line)}, which should name a column, {_explain(error)}")
        for place, name in enumerate(record.cells):
            if not name.strip():
                raise HeaderError(
                    f"{self._address(place, record.line)} is empty, but columns beside it have names; give it one"
                )
            if "\0" in name:
                raise HeaderError(f"{self._address(place, record.line)}, which should name a column, has a NUL")

    def _begin(self, record: Record) -> None:
        super()._begin(record)
        columns, sheet, form = self.columns, self._rows.sheet, self._form
        if columns is None or sheet is None:
            return
        self.grid = Grid(sheet.name, {at: sheet.column + place for place, at in _pointers(columns)})
        if record.cells is not None and (form.decimal or form.date_format):
            self._usual = understand(self._names, record.cells, form.mapping, WORDING, Cells())

    def _is_filled(self, record: Record) -> bool:
        return True

    def _make_piece(self, columns: Columns, record: Record) -> Piece:
        assert isinstance(record, SheetRecord)
        width = len(columns.header)
        cells = [*(record.cells or ()), *[""] * (width - len(record.cells or ()))]
        errors = [*self._find_faults(columns, record, len(cells))]
        if errors:
            item = columns.read(cells[:width])[0]
            record_id = None if any(error.pointer in ("", "/id") for error in errors) else item.get("id")
            return UnreadablePiece(errors, record_id=record_id, cells=cells)
        piece = make_item(columns, cells)
        if self._usual is not None and record.typed:
            piece = self._restore(piece, columns, self._usual.read(cells)[0], record.typed)
        return piece

    def _find_faults(self, columns: Columns, record: SheetRecord, size: int) -> Iterator[FieldError]:
        code, line, width = ErrorCode.INVALID_FIELD, record.line, len(columns.header)
        if WHOLE_ROW in record.faults:
            fault = record.faults[WHOLE_ROW]
            yield FieldError(
                ErrorCode.ITEM_TOO_LARGE if fault == TOO_LONG else code,
                "",
                f"the row of {self._address(0, line)} {_explain_row(fault)}",
            )
        elif size > width:
            yield FieldError(
                code, "", f"{self._address(size - 1, line)} has a value, but its column has no name in the header"
            )
        places = {place: at for place, at in _pointers(columns) if place in record.faults}
        for place, at in places.items():
            yield FieldError(code, at, f"{self._address(place, line)} {_explain(record.faults[place])}")

    def _restore(self, piece: Piece, columns: Columns, usual: dict[str, object], typed: list[int]) -> Piece:
        """The piece with the fields that are numbers or dates in the sheet: they are not written in any way."""
        item = msgspec.json.decode(piece.item if isinstance(piece, Noted) else piece)  # type: ignore[arg-type]
        for place in typed:
            field = columns.targets[place] if place < len(columns.targets) else None
            if field is not None and place not in columns.attributes and field in usual:
                item[field] = usual[field]
        made = encode_item(item)
        return Noted(made, piece.warnings) if isinstance(piece, Noted) else made

    def _address(self, place: int, line: int) -> str:
        sheet = self._rows.sheet
        assert sheet is not None
        return address(sheet.name, sheet.column + place, line)


def _pointers(columns: Columns) -> Iterator[tuple[int, str]]:
    """Each column that counts, and the member of the item that it is."""
    for place, target in enumerate(columns.targets):
        if target is not None:
            yield place, pointer("attributes", target) if place in columns.attributes else pointer(target)
    if columns.both is not None:
        yield columns.both, pointer(columns.mail)


def _explain_row(fault: str) -> str:
    if fault == TOO_LONG:
        return f"is longer than {MAX_ROW:,} characters"
    return "has a date or duration that is out of range"


def _explain(error: str) -> str:
    if error:
        return f"holds the error {error}; correct it in the workbook"
    return "has a formula that was not computed; open the workbook in a spreadsheet program and save it"
