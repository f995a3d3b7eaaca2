"""The file to push: its format and encoding, the meaning of its columns, and the line of each row.

The service reads the file. Only its header is read here before it is sent, to show what the columns mean, and all of it
afterwards, by the same code as in the service, to name the lines of rows that failed.
"""

import codecs
import contextlib
import re
from collections.abc import Container, Iterator
from enum import StrEnum
from pathlib import PurePath
from typing import Any, Final

import msgspec

from app.cli.client.errors import UsageError
from app.cli.client.upload_body import CSV, NDJSON, XLSX, Body, FileBody, ItemsBody
from app.files.csv_cells import Cells
from app.files.csv_columns import SAMPLE, MissingFields, understand
from app.files.csv_mapping import ColumnNames, ColumnsError, Wording, names_of
from app.files.csv_reader import Record, Records
from app.files.encoding import BOMS, UTF_8, Decoder, describe_foreign
from app.files.json_document import MalformedBody
from app.files.json_reader import JsonItems
from app.files.ndjson import NdjsonLines
from app.files.tables.sheet_reader import SheetRecord, SheetRows
from app.files.workbook.process import Extraction
from app.files.workbook.protocol import Ask, WorkbookError
from app.resources.declaration import Resource
from app.vocabulary.outcomes_wire import ItemWarning

_HEAD: Final = 65_536
_WORKBOOK_HEAD: Final = b"PK\x03\x04"
_BY_SUFFIX: Final = {".csv": "csv", ".tsv": "csv", ".tab": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson"}
_CHARSETS: Final = {
    UTF_8: "",
    "utf-16-le": "utf-16le",
    "utf-16-be": "utf-16be",
    "cp1252": "windows-1252",
    "iso8859-15": "iso-8859-15",
}
"""Codecs that the service reads a CSV in, by the charset in the content type."""
_NO_LIMIT: Final = 1 << 50
"""Bytes: the server has its limits, and says so."""
_WORKBOOK_MEMORY: Final = 4_000_000_000
_DELIMITERS: Final = {"tab": "\t", "\\t": "\t"}
_CHARSET: Final = re.compile(r"charset=([\w-]+)")
_WORDING: Final = Wording("--map", "=", lambda column, field: f'--map "{column}={field}"', "--ignore")


class Format(StrEnum):
    CSV = "csv"
    NDJSON = "ndjson"
    JSON = "json"
    XLSX = "xlsx"


class FileOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the user wants the file read; `None`: found out here."""

    format: Format | None = None
    encoding: str | None = None
    delimiter: str | None = None
    mapping: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    decimal: str | None = None
    date_format: str | None = None
    sheet: str | None = None


class Survey(msgspec.Struct):
    rows: int = 0
    blank: int = 0
    """Rows without any content, which the service leaves out."""
    lines: dict[int, int] = {}
    """The line that a row begins in, from 1; of a JSON document, the place of the item."""
    warnings: dict[tuple[str, str], list[int]] = {}
    """Lines of rows that are imported with a warning, by its code and the place in the item."""
    unit: str = "line"
    """What the lines are, in a word."""


class SourceFile:
    """A file whose format and encoding are known."""

    unit = "line"

    def __init__(self, path: str, name: str, codec: str, written: str, body: Body) -> None:
        self.path = path
        self.name = name
        self.written = written
        """The encoding of a file for the same command line."""
        self.body = body
        self.params: list[tuple[str, str]] = []
        """What the service has to know of the columns."""
        self._codec = codec

    def survey(self, wanted: Container[int]) -> Survey:
        """Read the file as the service does; `lines` has the `wanted` rows only."""
        found = Survey(unit=self.unit)
        for line, warnings in self._sound_rows(found):
            if found.rows in wanted:
                found.lines[found.rows] = line
            for warning in warnings:
                found.warnings.setdefault((warning.code, warning.pointer), []).append(line)
            found.rows += 1
        return found

    def lines(self) -> Iterator[int]:
        """The line of each row, in order."""
        return (line for line, _ in self._sound_rows(Survey()))

    def _sound_rows(self, found: Survey) -> Iterator[tuple[int, list[ItemWarning]]]:
        # A file that the service has taken is sound, unless it has changed since.
        with contextlib.suppress(UsageError, MalformedBody):
            yield from self._rows(found)

    def _rows(self, found: Survey) -> Iterator[tuple[int, list[ItemWarning]]]:
        if isinstance(self.body, ItemsBody):
            yield from ((place, []) for place in range(1, len(self.body.items) + 1))
            return
        reader = NdjsonLines()
        for piece in self.body.pieces():
            for line in reader.feed(piece):
                yield line.number, []
        for line in reader.finish():
            yield line.number, []
        found.blank = reader.line - found.rows


class CsvFile(SourceFile):
    """A CSV file whose header is understood.

    Raises:
        UsageError: the header or an option cannot be used.
    """

    def __init__(
        self, path: str, name: str, codec: str, written: str, body: Body, options: FileOptions, names: ColumnNames
    ) -> None:
        super().__init__(path, name, codec, written, body)
        self.known = names
        """The fields of its type."""
        records = Records()
        try:
            mapping = names.parse_mapping(options.mapping, _WORDING, options.ignored)
            for column, field in mapping.items():
                if ":" in field:
                    raise UsageError(f"--map {column}={field}: the name of a field has no colon")
            header, self.sample = self._read_head(records)
            cells = Cells(options.decimal or "", options.date_format or "")
            self.columns = understand(names, header, mapping, _WORDING, cells)
        except MissingFields as error:
            raise UsageError(error.advise(self.sample).detail) from error
        except ColumnsError as error:
            raise UsageError(error.detail) from error
        for column, field in mapping.items():
            self.params.append(("map", f"{column}:{field}") if field else ("ignore", column))
        given = {"decimal": options.decimal, "date_format": options.date_format}
        self.params += [(name, value) for name, value in given.items() if value]
        self.delimiter = records.delimiter or ","
        self._check_delimiter(options)

    def _check_delimiter(self, options: FileOptions) -> None:
        wanted = _DELIMITERS.get(options.delimiter or "", options.delimiter)
        if wanted is not None and wanted != self.delimiter:
            raise UsageError(
                f"--delimiter {options.delimiter!r}: the server finds {self.delimiter!r} in the header; a first line "
                f"sep={wanted} in the file says otherwise"
            )

    def _read_head(self, records: Records) -> tuple[list[str], list[list[str]]]:
        """The names of the columns, and the cells of the first rows."""
        found: list[Record] = []
        try:
            for record in self._records(records):
                found.append(record)
                if len(found) > SAMPLE:
                    break
        except MalformedBody as error:
            if not found:
                raise UsageError(f"{self.name}: {in_options(error.detail)}") from error
        if not found:
            raise UsageError(f"{self.name} is empty: a CSV file begins with a line of column names")
        first, *rows = found
        if first.cells is None:
            raise UsageError(f"{self.name}, line {first.line}: {first.problem}")
        if any("\0" in cell for cell in first.cells):
            raise UsageError(
                f"{self.name}, line {first.line}: NUL bytes in the header; for UTF-16 without a byte order mark "
                "say --encoding utf-16-le"
            )
        return first.cells, [row.cells for row in rows if row.cells and any(row.cells)]

    def _records(self, records: Records) -> Iterator[Record]:
        decoder = Decoder(self._codec)
        with open(self.path, "rb") as stream:
            while piece := stream.read(_HEAD):
                yield from records.feed(decoder.feed(piece))
            yield from records.feed(decoder.finish())
            yield from records.finish()

    def _rows(self, found: Survey) -> Iterator[tuple[int, list[ItemWarning]]]:
        records = self._records(Records())
        next(records, None)
        for record in records:
            cells = record.cells
            if cells is None or (any(cells) and self.columns.fault(cells)):
                yield record.line, []
            elif any(cells):
                yield record.line, self.columns.read(cells)[1]
            else:
                found.blank += 1


class SheetFile(CsvFile):
    """A sheet of a workbook whose header is understood; raises as `CsvFile`."""

    unit = "row"

    def __init__(self, path: str, name: str, options: FileOptions, names: ColumnNames) -> None:
        self._ask = Ask(
            sheet=options.sheet or "", most_bytes=_NO_LIMIT, most_inflation=float(_NO_LIMIT), memory=_WORKBOOK_MEMORY
        )
        # Spreadsheet programs need a mark to take a CSV for UTF-8.
        super().__init__(path, name, UTF_8, "utf-8-sig", FileBody(path, XLSX), options, names)
        if options.sheet:
            self.params.append(("sheet", options.sheet))

    def _check_delimiter(self, options: FileOptions) -> None:
        for option, value in (("--delimiter", options.delimiter), ("--encoding", options.encoding)):
            if value:
                raise UsageError(f"{option} is for text; {self.name} is read as a workbook")

    def _records(self, records: Records) -> Iterator[Record]:
        rows, width = SheetRows(), 0
        try:
            with open(self.path, "rb") as stream, Extraction(stream, self._ask) as extraction:
                while block := extraction.read():
                    for row in rows.feed(block):
                        assert isinstance(row, SheetRecord)
                        cells = row.cells or []
                        width = width or len(cells)
                        if row.faults:
                            yield Record(row.line, None, problem="a cell holds an error, or was not computed")
                        else:
                            yield Record(row.line, [*cells, *[""] * (width - len(cells))])
        except WorkbookError as error:
            detail = error.detail.replace("the body", self.name, 1).replace("sheet=", "--sheet ")
            raise UsageError(detail if self.name in detail else f"{self.name}: {detail}") from error


def open_file(path: str, options: FileOptions, resource: Resource, *, name: str | None = None) -> SourceFile:
    """`name` is what the user called the file, where `path` is a temporary copy.

    Raises:
        UsageError: the file or an option cannot be used, with what to do about it.
    """
    shown = "standard input" if name == "-" else name or path
    head = _read_head(path)
    if options.format is Format.XLSX or (options.format is None and head.startswith(_WORKBOOK_HEAD)):
        return SheetFile(path, shown, options, names_of(resource))
    if foreign := describe_foreign(head, "unpack it (gunzip, unzstd) and push that", "leave --format out for an XLSX"):
        raise UsageError(f"{shown} {foreign}")
    codec, written, marked = _find_encoding(head, options.encoding)
    kind = options.format or find_format(name or path, head.decode(codec, errors="replace").lstrip("\ufeff"))
    plain = codec == UTF_8
    if options.sheet:
        raise UsageError(f"--sheet is for a workbook; {shown} is read as {kind}")
    if kind is Format.CSV:
        charset = "" if marked else _CHARSETS.get(codec)
        content_type = f"{CSV}; charset={charset}" if charset else CSV
        body: Body = FileBody(path, content_type, codec if charset is None else None)
        return CsvFile(path, shown, UTF_8 if marked else codec, written, body, options, names_of(resource))
    for option, value in (
        ("--map", options.mapping),
        ("--ignore", options.ignored),
        ("--delimiter", options.delimiter),
        ("--decimal", options.decimal),
        ("--date-format", options.date_format),
    ):
        if value:
            raise UsageError(f"{option} is for CSV and workbooks; {shown} is read as {kind} (--format says otherwise)")
    if kind is Format.NDJSON:
        body = FileBody(path, NDJSON, None if plain else codec)
    else:
        body = ItemsBody(_split_document(b"".join(FileBody(path, "", None if plain else codec).pieces()), shown))
    return SourceFile(path, shown, codec, written, body)


def find_format(path: str, text: str) -> Format:
    """The format of a file by its name, else by the first characters of its text.

    A `.json` file may hold one item a line, which its first line shows.
    """
    suffix = PurePath(path).suffix.lower()
    if suffix in _BY_SUFFIX:
        return Format(_BY_SUFFIX[suffix])
    begin = text.lstrip()
    if begin.startswith("["):
        return Format.JSON
    if not begin.startswith("{"):
        return Format.JSON if suffix == ".json" else Format.CSV
    try:
        first: Any = msgspec.json.decode(begin.partition("\n")[0].encode(errors="replace"))
    except (msgspec.DecodeError, RecursionError):
        return Format.JSON
    # An item has no list of objects beside its fields; a document whose items have another name has nothing else.
    wrapped = len(first) == 1 and isinstance(next(iter(first.values())), list)
    return Format.JSON if isinstance(first.get("items"), list) or wrapped else Format.NDJSON


def _read_head(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read(_HEAD)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error


def _find_encoding(head: bytes, wanted: str | None) -> tuple[str, str, bool]:
    """The codec of a file, the one of a file for the same command line, and whether a byte order mark names it.

    A mark outranks what the user says (WHATWG Encoding Standard, "BOM sniff"), as it does in the service.

    Raises:
        UsageError: there is no such text encoding.
    """
    for bom, name in BOMS:
        if head.startswith(bom):
            # A mark asks for a mark: programs that need it to see UTF-8 will read the failed rows as well.
            return (UTF_8 if name == UTF_8 else name[: len("utf-16")]), "utf-8-sig", True
    try:
        codec = codecs.lookup(wanted or UTF_8).name
        "a".encode(codec)
    except (LookupError, UnicodeError) as error:
        raise UsageError(f"--encoding {wanted}: no such text encoding; examples: utf-8, windows-1252") from error
    return codec, codec, False


def _split_document(document: bytes, name: str) -> list[bytes]:
    if document.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"[":
        document = b'{"items":' + document.removeprefix(codecs.BOM_UTF8) + b"}"
    machine = JsonItems(longest=len(document))
    try:
        return [item for item in [*machine.feed(document), *machine.finish()] if isinstance(item, bytes)]
    except MalformedBody as error:
        raise UsageError(
            f'{name}: {error.detail}; a JSON file is {{"items": [...]}} or an array of items, and one item a line is '
            "--format ndjson"
        ) from error


def in_options(detail: str) -> str:
    """The service names the remedy in HTTP's words; here it is an option."""
    charset = _CHARSET.search(detail)
    return f"{detail} (with this command: --encoding {charset[1]})" if charset else detail
