"""Which kind of file it is, and the source that reads it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import PurePath
from typing import Any, Final

import msgspec

from app.cli.client.columns import parse_mapping
from app.cli.client.csv_file import DELIMITERS, CsvSource
from app.cli.client.errors import UsageError
from app.cli.client.json_file import JsonSource, NdjsonSource
from app.cli.client.text import find_encoding, read_head


class Format(StrEnum):
    CSV = "csv"
    NDJSON = "ndjson"
    JSON = "json"


_BY_SUFFIX: Final = {
    ".csv": Format.CSV,
    ".tsv": Format.CSV,
    ".tab": Format.CSV,
    ".ndjson": Format.NDJSON,
    ".jsonl": Format.NDJSON,
}


_FOREIGN: Final = (
    (b"PK\x03\x04", "is a workbook or a ZIP archive; save the sheet as CSV and push that"),
    (b"\xd0\xcf\x11\xe0", "is an old Excel workbook; save the sheet as CSV and push that"),
    (b"\x1f\x8b", "is compressed; push what gunzip makes of it"),
    (b"\x28\xb5\x2f\xfd", "is compressed; push what unzstd makes of it"),
)
"""How files begin that people push by mistake, and what to tell them."""


class ReadOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the user wants the file read; `None` is for us to find out."""

    format: Format | None = None
    encoding: str | None = None
    delimiter: str | None = None
    mapping: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


def find_format(path: str, text: str) -> Format:
    """The format of a file by its name, else by the first characters of its text.

    A `.json` file may hold one item a line, and is told by its first line.
    """
    named = _BY_SUFFIX.get(PurePath(path).suffix.lower())
    if named is not None:
        return named
    begin = text.lstrip()
    if begin.startswith("["):
        return Format.JSON
    if not begin.startswith("{"):
        return Format.JSON if PurePath(path).suffix.lower() == ".json" else Format.CSV
    try:
        first: Any = msgspec.json.decode(begin.partition("\n")[0].encode(errors="replace"))
    except (msgspec.DecodeError, RecursionError):
        return Format.JSON
    # An item has no list of objects beside its fields; a document whose items have another name has nothing else.
    wrapped = len(first) == 1 and isinstance(next(iter(first.values())), list)
    return Format.JSON if isinstance(first.get("items"), list) or wrapped else Format.NDJSON


def open_source(
    path: str, options: ReadOptions, *, name: str | None = None
) -> CsvSource | NdjsonSource | JsonSource:
    """The file as a source of rows; `name` is what the user called it, where `path` is a temporary copy.

    Raises:
        UsageError: the file or an option cannot be used, with what to do about it.
    """
    shown = "standard input" if name == "-" else name or path
    head = read_head(path)
    for begin, advice in _FOREIGN:
        if head.startswith(begin):
            raise UsageError(f"{shown} {advice}")
    encoding = find_encoding(head, options.encoding)
    kind = options.format or find_format(name or path, head.decode(encoding.name, errors="replace"))
    if kind is not Format.CSV:
        for option, value in (
            ("--map", options.mapping),
            ("--ignore", options.ignored),
            ("--delimiter", options.delimiter),
        ):
            if value:
                raise UsageError(f"{option} is for CSV; {shown} is read as {kind} (--format says otherwise)")
        return NdjsonSource(path, encoding) if kind is Format.NDJSON else JsonSource(path, encoding)
    delimiter = options.delimiter
    if delimiter is not None:
        if delimiter not in DELIMITERS and len(delimiter) != 1:
            raise UsageError(f"--delimiter {delimiter!r}: one character, or `tab`")
        delimiter = DELIMITERS.get(delimiter, delimiter)
        if delimiter in '"\r\n':
            raise UsageError(f"--delimiter {delimiter!r} cannot separate cells")
    return CsvSource(path, encoding, delimiter, parse_mapping(options.mapping, options.ignored))
