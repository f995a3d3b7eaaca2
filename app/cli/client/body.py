"""A file as the body of one request: its bytes as they stand where the service reads them, as UTF-8 elsewhere."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, Protocol

import zstandard

from app.cli.client.csv_file import CsvSource, detect_delimiter
from app.cli.client.errors import UsageError
from app.cli.client.json_file import JsonSource, NdjsonSource
from app.cli.client.rows import Row
from app.cli.client.text import Encoding, Line, read_head
from app.domain.files.ndjson import NdjsonLines
from app.domain.files.text import BOMS, UTF_8

MAX_JSON_ITEMS: Final = 10_000
"""The service's default; a JSON file with more items goes as NDJSON, which has no such limit."""
NDJSON_TYPE: Final = "application/x-ndjson"

_PIECE: Final = 262_144
_COMPRESS_FROM: Final = 1_000_000
_LEVEL: Final = 1
_MOST_RATIO: Final = 100.0
"""The service refuses what inflates to more than 250 times its size; such a file is small enough as it is."""
_LEAST_RATIO: Final = 1.2
_CHARSETS: Final = {
    "utf-16-le": "utf-16le",
    "utf-16-be": "utf-16be",
    "cp1252": "windows-1252",
    "iso8859-15": "iso-8859-15",
}
"""Codecs that read a file here exactly as the service does under this charset."""
_LINE_BREAKS: Final = re.compile(rb"[\r\n]+")


class Body(Protocol):
    """What is uploaded; it can be read from its beginning as often as needed."""

    content_type: str
    size: int
    """Bytes, as far as `position` counts."""
    position: int

    def pieces(self) -> Iterator[bytes]:
        """
        Raises:
            UsageError: the file is no text in its encoding, or has changed.
        """
        ...


class FileBody:
    """The pushed file. `transcoded` is the codec it is read in when it has to become UTF-8 on the way."""

    def __init__(self, path: str, content_type: str, transcoded: str | None = None) -> None:
        self.path = path
        self.content_type = content_type
        self.position = 0
        self._transcoded = transcoded
        self._before = os.stat(path)
        self.size = self._before.st_size

    def pieces(self) -> Iterator[bytes]:
        return self._read() if self._transcoded is None else self._transcode(self._transcoded)

    def _read(self) -> Iterator[bytes]:
        self.position = 0
        with open(self.path, "rb") as stream:
            while piece := stream.read(_PIECE):
                self.position += len(piece)
                yield piece
            after = os.fstat(stream.fileno())
        if (after.st_size, after.st_mtime_ns) != (self._before.st_size, self._before.st_mtime_ns):
            raise UsageError(f"{self.path} has changed while it was sent; nothing of it was imported")

    def _transcode(self, codec: str) -> Iterator[bytes]:
        machine = codecs.getincrementaldecoder(codec)(errors="strict")
        try:
            for piece in self._read():
                yield machine.decode(piece).encode()
            yield machine.decode(b"", True).encode()
        except UnicodeError as error:
            raise UsageError(
                f"{self.path} is not {codec} text ({error}); what does --encoding say?"
            ) from error


class ItemsBody:
    """Items that are there as JSON texts, as one JSON document or, when they are many, as NDJSON."""

    def __init__(self, items: list[bytes]) -> None:
        self._items = items
        self._document = len(items) <= MAX_JSON_ITEMS
        self.content_type = "application/json" if self._document else NDJSON_TYPE
        self.size = sum(map(len, items))
        self.position = 0

    def pieces(self) -> Iterator[bytes]:
        self.position = 0
        if self._document:
            yield b'{"items":['
        for first in range(0, len(self._items), 100):
            part = self._items[first : first + 100]
            self.position += sum(map(len, part))
            if self._document:
                yield (b"," if first else b"") + b",".join(part)
            else:
                yield b"".join(flatten(item) + b"\n" for item in part)
        if self._document:
            yield b"]}"


def flatten(item: bytes) -> bytes:
    """JSON as one line: a line break can only be white space between tokens, in a string it would be escaped."""
    return _LINE_BREAKS.sub(b" ", item)


class NdjsonFile(NdjsonSource):
    """An NDJSON file whose rows are counted as the service counts them: by its own machine, from the bytes sent."""

    def __init__(self, path: str, encoding: Encoding, body: Body) -> None:
        super().__init__(path, encoding)
        self._body = body

    def rows(self) -> Iterator[Row]:
        self.blank = self.position = 0
        machine = NdjsonLines()
        number = 0
        for piece in self._body.pieces():
            for line in machine.feed(piece):
                yield self._take(number, line.number, line.data)
                number += 1
            self.position = self._body.position
        for line in machine.finish():
            yield self._take(number, line.number, line.data)
            number += 1
        self.blank = machine.line - number

    def _take(self, number: int, line: int, data: bytes | None) -> Row:
        text = None if data is None else data.decode(errors="surrogateescape")
        return self._build(number, Line(line, text))


def open_body(
    source: CsvSource | NdjsonSource | JsonSource, delimiter: str | None
) -> tuple[CsvSource | NdjsonSource | JsonSource, Body]:
    """How a file is sent as a whole, and its rows as the service will count them.

    Raises:
        UsageError: `delimiter`, which the user told, is not the one that the service will find.
    """
    if isinstance(source, JsonSource):
        return source, ItemsBody(source.items())
    head = read_head(source.path)
    if isinstance(source, NdjsonSource):
        plain = source.encoding.name == "utf-8-sig"
        body = FileBody(source.path, NDJSON_TYPE, None if plain else source.encoding.name)
        return NdjsonFile(source.path, source.encoding, body), body
    if delimiter is not None and detect_delimiter(source.path, source.encoding) != source.delimiter:
        raise UsageError(
            f"--delimiter {delimiter!r} cannot be told in file mode: the server finds the delimiter in the header, and "
            "would find another one; use --mode batch"
        )
    charset = _name_charset(source.encoding.name, head)
    transcoded = source.encoding.name if charset is None else None
    suffix = "" if charset in (None, UTF_8) else f"; charset={charset}"
    return source, FileBody(source.path, f"text/csv{suffix}", transcoded)


def _name_charset(codec: str, head: bytes) -> str | None:
    """The charset under which the service reads a CSV as `codec` does; `None`: there is none."""
    mark = next((name for bom, name in BOMS if head.startswith(bom)), None)
    if codec == "utf-8-sig" and mark in (None, UTF_8):
        return UTF_8
    if mark is not None:
        return "utf-16" if codec == "utf-16" and mark.startswith("utf-16") else None
    return _CHARSETS.get(codec)


def is_worth_compressing(body: Body) -> bool:
    """By a sample of its beginning."""
    if body.size < _COMPRESS_FROM:
        return False
    sample = b"".join(islice(body.pieces(), _COMPRESS_FROM // _PIECE + 1))
    packed = zstandard.ZstdCompressor(level=_LEVEL).compress(sample)
    return _LEAST_RATIO < len(sample) / max(1, len(packed)) < _MOST_RATIO


def compress(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """One zstd frame (RFC 8878)."""
    machine = zstandard.ZstdCompressor(level=_LEVEL).compressobj()
    for piece in pieces:
        if packed := machine.compress(piece):
            yield packed
    yield machine.flush()
