"""The body of an upload: a file's bytes as they are where the service reads them, as UTF-8 elsewhere."""

import codecs
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

import zstandard

from app.cli.client.errors import UsageError
from app.files.encoding import WORKBOOK

CSV: Final = "text/csv"
NDJSON: Final = "application/x-ndjson"
XLSX: Final = WORKBOOK

_PIECE: Final = 262_144
_COMPRESS_FROM: Final = 1_000_000
_LEVEL: Final = 1
_MOST_RATIO: Final = 100.0
"""The service refuses what inflates to more than 250 times its size; such a file is small enough as it is."""
_LEAST_RATIO: Final = 1.2
_LINE_BREAKS: Final = re.compile(rb"[\r\n]+")


class FileBody:
    """A file, which can be read from its beginning as often as needed. `codec` is given where it has to become UTF-8 on
    the way."""

    def __init__(self, path: str, content_type: str, codec: str | None = None) -> None:
        self.path = path
        self.content_type = content_type
        self.position = 0
        self._codec = codec
        self._before = os.stat(path)
        self.size = self._before.st_size
        """Bytes, as far as `position` counts."""

    def pieces(self) -> Iterator[bytes]:
        """
        Raises:
            UsageError: the file is no text in its encoding, or has changed.
        """
        return self._read() if self._codec is None else self._transcode(self._codec)

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
        decoder = codecs.getincrementaldecoder(codec)(errors="strict")
        try:
            for piece in self._read():
                yield decoder.decode(piece).encode()
            yield decoder.decode(b"", True).encode()
        except UnicodeError as error:
            raise UsageError(f"{self.path} is not {codec} text ({error}); check its --encoding") from error


class ItemsBody:
    """The items of a JSON document as NDJSON, which may have any number of them."""

    content_type = NDJSON

    def __init__(self, items: Sequence[bytes]) -> None:
        self.items = items
        self.size = sum(map(len, items))
        self.position = 0

    def pieces(self) -> Iterator[bytes]:
        self.position = 0
        for first in range(0, len(self.items), 100):
            part = self.items[first : first + 100]
            self.position += sum(map(len, part))
            # A line break can only be white space between tokens: inside a JSON string it is escaped.
            yield b"".join(_LINE_BREAKS.sub(b" ", item) + b"\n" for item in part)


Body = FileBody | ItemsBody
"""What is uploaded."""


def is_worth_compressing(body: Body) -> bool:
    """By a sample of its beginning."""
    if body.size < _COMPRESS_FROM:
        return False
    sample = b"".join(islice(body.pieces(), _COMPRESS_FROM // _PIECE + 1))
    packed = zstandard.ZstdCompressor(level=_LEVEL).compress(sample)
    return _LEAST_RATIO < len(sample) / max(1, len(packed)) < _MOST_RATIO


def compress(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """One zstd frame (RFC 8878)."""
    compressor = zstandard.ZstdCompressor(level=_LEVEL).compressobj()
    for piece in pieces:
        if packed := compressor.compress(piece):
            yield packed
    yield compressor.flush()
