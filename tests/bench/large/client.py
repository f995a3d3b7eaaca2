"""A client of HTTP/1.1 that costs next to nothing itself: it shares two cores with what it measures."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import msgspec

CONNECT_SECONDS = 10.0


class Told(msgspec.Struct):
    """An answer, whole; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Line:
    """One keep-alive connection, one request at a time. A broken one is opened again by the next request."""

    def __init__(self, url: str, key: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._common = f"Host: {parts.netloc}\r\nAuthorization: Bearer {key}\r\n"
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """
        Raises:
            OSError: nobody listens.
        """
        if self._streams is not None and self._streams[0].at_eof():
            self.close()  # the server has had enough of waiting
        if self._streams is None:
            async with asyncio.timeout(CONNECT_SECONDS):
                self._streams = await asyncio.open_connection(self._host, self._port)
        return self._streams

    async def ask(self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Told:
        """
        Raises:
            OSError, EOFError: the connection broke before the whole answer was there.
        """
        try:
            reader, writer = await self.open()
            writer.write(self._head(method, target, headers or {}, len(body)) + body)
            return await _read(reader)
        except BaseException:
            self.close()
            raise

    async def send_file(self, target: str, headers: Mapping[str, str], path: Path) -> Told:
        """POST a file without reading it into this process's own memory; an early answer is taken.

        Raises:
            OSError, EOFError: the connection broke before the whole answer was there.
        """
        try:
            reader, writer = await self.open()
            writer.write(self._head("POST", target, headers, path.stat().st_size))
            answer = asyncio.create_task(_read(reader))
            try:
                await _send(writer, path, answer)
                return await answer
            finally:
                answer.cancel()
                await asyncio.gather(answer, return_exceptions=True)
        except BaseException:
            self.close()
            raise

    def _head(self, method: str, target: str, headers: Mapping[str, str], size: int) -> bytes:
        more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        length = f"Content-Length: {size}\r\n" if size or method == "POST" else ""
        return f"{method} {target} HTTP/1.1\r\n{self._common}{more}{length}\r\n".encode("latin-1")


async def _send(writer: asyncio.StreamWriter, path: Path, answer: asyncio.Task[Told]) -> None:
    # A refusal may come before the body is sent, and the connection break after it: the answer counts then.
    with suppress(ConnectionError), path.open("rb", buffering=0) as file:
        while not answer.done():
            piece = os.read(file.fileno(), 262_144)
            if not piece:
                return
            writer.write(piece)
            await writer.drain()


async def _read(reader: asyncio.StreamReader) -> Told:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {}
    for line in head[1:]:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    status = int(head[0][9:12])
    if status < 200:
        return await _read(reader)
    size = 0 if status in (204, 304) else int(headers.get("content-length", 0))
    return Told(status, headers, await reader.readexactly(size) if size else b"")
