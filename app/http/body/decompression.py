"""Compressed bytes → pieces of what they hold, small ones, so that a bomb is noticed while it goes off."""

import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

import zstandard

from app.errors import MalformedRequest

ENCODINGS: Final = ("gzip", "zstd")
PIECE: Final = 16_384
"""Bytes of a piece, at the most: what is done with one takes a millisecond, and tens of them at the worst."""
_GZIP: Final = 31
_ZSTD_SLICE: Final = 256
"""Compressed bytes fed at a time: a block of 4 can become 128 KB, so a slice makes 8 MB at the most."""
_ZSTD_HEADER: Final = 18
"""Bytes of a frame's header, at the most."""
_GZIP_SLICE: Final = 4_096
_SLICES: Final = 256
"""After which others should have their turn, whatever came of them."""
_ZSTD_WINDOW: Final = 8 * 1024 * 1024  # RFC 8878 recommends decoders to support this much


class Inflater(Protocol):
    """Pieces may be empty: others should have their turn before the next one.
    Raises `MalformedRequest`: the data is corrupt, or, from `finish`, cut off."""

    def feed(self, data: bytes) -> Iterator[bytes]: ...

    def finish(self) -> None: ...


class Plain:
    """Nothing is compressed."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        return _slice(data)

    def finish(self) -> None:
        pass


class Gunzip:
    """RFC 1952, with its concatenated members."""

    def __init__(self) -> None:
        self._member: Any = None
        self._seen = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        # zlib copies what it leaves: of a whole message, for each of many tiny members, that would be quadratic.
        for start in range(0, len(data), _GZIP_SLICE):
            if start:
                yield b""
            yield from self._feed(data[start : start + _GZIP_SLICE])

    def _feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member is None:
                self._member = zlib.decompressobj(_GZIP)
                self._seen = True
            full = True
            while full:
                try:
                    part = self._member.decompress(data, PIECE)
                except zlib.error as error:
                    raise MalformedRequest("The body is not valid gzip.") from error
                if part:
                    yield part
                data = self._member.unconsumed_tail
                # Some may still be inside where the piece is full, though all of the input was taken.
                full = not self._member.eof and (bool(data) or len(part) == PIECE)
            if self._member.eof:
                data = self._member.unused_data
                self._member = None

    def finish(self) -> None:
        if self._member is not None or not self._seen:
            raise MalformedRequest("The gzip body is cut off.")


class Unzstd:
    """RFC 8878, with its concatenated frames."""

    def __init__(self, hold: Callable[[int], None]) -> None:
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        self._frame = self._decompressor.decompressobj()
        self._within = False
        self._seen = False
        self._hold = hold

    def feed(self, data: bytes) -> Iterator[bytes]:
        position = slices = 0
        while position < len(data):
            if not self._within:
                self._hold(_read_window(data[position : position + _ZSTD_HEADER]))
            self._seen = self._within = True
            slices += 1
            if slices % _SLICES == 0:
                yield b""
            try:
                part = self._frame.decompress(data[position : position + _ZSTD_SLICE])
            except zstandard.ZstdError as error:
                raise MalformedRequest("The body is not valid zstd.") from error
            position = min(position + _ZSTD_SLICE, len(data)) - len(self._frame.unused_data)
            if self._frame.eof:
                self._frame = self._decompressor.decompressobj()
                self._within = False
            if part:
                yield from _slice(part)

    def finish(self) -> None:
        if self._within or not self._seen:
            raise MalformedRequest("The zstd body is cut off.")


def _read_window(header: bytes) -> int:
    """Bytes that a frame which begins like this makes its reader keep; the most that is taken if it does not say."""
    try:
        window: int = zstandard.get_frame_parameters(header).window_size
    except zstandard.ZstdError:  # cut off, or none, which its decompressor says better
        return _ZSTD_WINDOW
    return min(window, _ZSTD_WINDOW)


def _slice(data: bytes) -> Iterator[bytes]:
    if len(data) <= PIECE:
        return iter((data,) if data else ())
    return (data[start : start + PIECE] for start in range(0, len(data), PIECE))


def open_inflater(encoding: str, hold: Callable[[int], None]) -> Inflater | None:
    """By the value of Content-Encoding; None: it is not known. `hold` is called with the bytes that it will
    keep beside its output, before it does, and may raise."""
    if encoding == "identity":
        return Plain()
    if encoding in ("gzip", "x-gzip"):
        return Gunzip()
    return Unzstd(hold) if encoding == "zstd" else None
