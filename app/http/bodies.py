"""Request bodies: read and inflated under one cap, so that no bomb is ever held in memory."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from typing import Any, Final

import zstandard

from app.errors import MalformedRequest, TooLarge
from app.http.errors import BodyStalled, ClientGone, UnsupportedEncoding
from app.http.headers import Fields

ENCODINGS: Final = ("gzip", "zstd")
_GZIP: Final = 31
_ZSTD_SLICE: Final = 256
"""Compressed bytes fed at a time: a block of 4 can become 128 KB, so a slice makes 8 MB at the most."""
_ZSTD_WINDOW: Final = 8 * 1024 * 1024  # RFC 8878 recommends decoders to support this much


_DRAIN_BYTES: Final = 32_000_000
_DRAIN_SECONDS: Final = 2.0


class Inbox:
    """An ASGI `receive` that knows whether the whole body was taken.

    A client that is still sending when the answer comes and the connection goes often sees a broken pipe and
    never the answer: what is left is therefore taken and dropped first, within bounds.
    """

    def __init__(self, scope: Any, receive: Any) -> None:
        self._receive = receive
        self._open = any(
            name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
            for name, value in scope["headers"]
        )

    async def __call__(self) -> Any:
        message = await self._receive()
        if not message.get("more_body", False):
            self._open = False
        return message

    async def drain(self) -> None:
        if not self._open:
            return
        left = _DRAIN_BYTES
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while self._open and left > 0:
                    left -= len((await self()).get("body", b""))
        self._open = False


async def read_body(receive: Any, fields: Fields, *, limit: int, seconds: float, remedy: str) -> bytes:
    """The body, inflated; `limit` counts bytes before and after inflation, `seconds` is for all of it to arrive.

    Raises:
        UnsupportedEncoding: the encoding is neither gzip, zstd nor identity.
        TooLarge: more than `limit` bytes; `remedy` says what to do instead.
        MalformedRequest: the compressed data is corrupt or cut off.
        BodyStalled: it did not arrive in time.
        ClientGone: the connection closed early.
    """
    encoding = fields.all("content-encoding").strip().lower() or "identity"
    if encoding not in (*ENCODINGS, "x-gzip", "identity"):
        raise UnsupportedEncoding(
            "A body is sent as it is, or with Content-Encoding gzip or zstd.",
            headers={"Accept-Encoding": ", ".join(ENCODINGS)},
        )
    declared = fields.one("content-length") or ""
    if declared.isdecimal() and int(declared[:20]) > limit:
        raise _too_large(limit, remedy)
    try:
        async with asyncio.timeout(seconds):
            sent = await _receive(receive, limit, remedy)
    except TimeoutError:
        raise BodyStalled(headers={"Connection": "close"}) from None
    if encoding == "identity":
        return sent
    inflated = _unzstd(sent, limit) if encoding == "zstd" else _gunzip(sent, limit)
    if inflated is None:
        raise _too_large(limit, remedy)
    return inflated


async def _receive(receive: Any, limit: int, remedy: str) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone()
        chunk = message.get("body", b"")
        if chunk:
            size += len(chunk)
            if size > limit:
                raise _too_large(limit, remedy)
            chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(limit: int, remedy: str) -> TooLarge:
    return TooLarge(f"The body has more than {limit} bytes (counted after inflation). {remedy}")


def _gunzip(data: bytes, limit: int) -> bytes | None:
    """RFC 1952, with its concatenated members; `None`: more than `limit` bytes."""
    parts: list[bytes] = []
    room = limit
    while data or not parts:
        member = zlib.decompressobj(_GZIP)
        try:
            part = member.decompress(data, room + 1)
        except zlib.error as error:
            raise MalformedRequest("The body is not valid gzip.") from error
        if len(part) > room:
            return None
        if not member.eof:
            raise MalformedRequest("The gzip body is cut off.")
        parts.append(part)
        room -= len(part)
        data = member.unused_data
    return b"".join(parts)


def _unzstd(data: bytes, limit: int) -> bytes | None:
    """RFC 8878, with its concatenated frames; `None`: more than `limit` bytes."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    parts: list[bytes] = []
    room = limit
    frame = decompressor.decompressobj()
    started = False
    position = 0
    try:
        while position < len(data):
            part = frame.decompress(data[position : position + _ZSTD_SLICE])
            started = True
            position += _ZSTD_SLICE - len(frame.unused_data)
            room -= len(part)
            if room < 0:
                return None
            parts.append(part)
            if frame.eof:
                frame = decompressor.decompressobj()
                started = False
    except zstandard.ZstdError as error:
        raise MalformedRequest("The body is not valid zstd.") from error
    if started or not data:
        raise MalformedRequest("The zstd body is cut off.")
    return b"".join(parts)
