"""A TCP proxy that breaks connections as networks do, switched while it runs, every choice from the round's seed.

| mode | new connections | those there are |
|---|---|---|
| `pass` | forwarded | forwarded |
| `latency` | every piece waits `low` to `high` seconds | the same |
| `reset` | accepted and reset | reset |
| `black_hole` | accepted, all they say is swallowed | stall; when it ends they go on, unless somebody left |
| `half_close` | the request arrives, then the client is told that nothing more will come | the same |
| `lost_answers` | the request arrives, its answer is dropped and the connection ended | the same |
| `throttle` | `rate` bytes a second | the same |
| `cut` | reset after `after` bytes in one direction | the same, counted from now |
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from typing import Final, Literal, Self

import msgspec

Mode = Literal["pass", "latency", "reset", "black_hole", "half_close", "lost_answers", "throttle", "cut"]
MODES: Final[tuple[Mode, ...]] = Mode.__args__  # type: ignore[attr-defined]
HOST: Final = "127.0.0.1"
_PIECE: Final = 65_536
_RESET_AT_CLOSE: Final = struct.pack("ii", 1, 0)
_CONNECT_SECONDS: Final = 2.0
_LOOK: Final = 0.01


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What a proxy does at present; only the numbers of its mode are heeded."""

    mode: Mode = "pass"
    low: float = 0.0
    high: float = 0.0
    rate: int = 10_000
    after: int = 1_000


PASS: Final = Setting()


class _Gone(Exception):
    """The connection is at its end."""


class _Link:
    """One connection through the proxy: both its ends and what was done to it."""

    def __init__(self, client: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        self.client_reader, self.client = client
        self.server_reader: asyncio.StreamReader | None = None
        self.server: asyncio.StreamWriter | None = None
        self.swallowed = False
        """Something that was said never arrived: it cannot be used any more."""
        self.deaf = False
        """The client was told that nothing more comes."""

    def reset(self) -> None:
        for writer in (self.client, self.server):
            if writer is not None:
                _reset(writer)

    def close(self) -> None:
        for writer in (self.client, self.server):
            if writer is not None:
                writer.close()

    def left(self, reader: asyncio.StreamReader | None) -> bool:
        return reader is None or reader.at_eof() or reader.exception() is not None


class Proxy:
    """Listens on a port of its own and forwards to `port`."""

    def __init__(self, name: str, port: int, *, listen: int = 0) -> None:
        self.name = name
        self.setting = PASS
        self.connections = 0
        """Taken so far."""
        self._target = port
        self._listen = listen
        self._random = random.Random(0)
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        return self._listen

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._take, HOST, self._listen, backlog=1024)
        self._listen = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for link in list(self._links):
            link.reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def seed(self, seed: int | str) -> None:
        """Every later choice comes from this."""
        self._random = random.Random(f"{self.name} {seed}")

    def set(self, setting: Setting) -> None:
        """Behave so from now on."""
        before, self.setting = self.setting, setting
        if before.mode == "black_hole":
            for link in [link for link in self._links if link.swallowed]:
                link.reset()
        if setting.mode == "reset":
            for link in list(self._links):
                link.reset()
        self._changed.set()
        self._changed = asyncio.Event()

    def heal(self) -> None:
        """Forward again; what was spoiled for good is ended."""
        self.set(PASS)

    # one connection

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        link = _Link((reader, writer))
        self._links.add(link)
        try:
            await self._serve(link)
        except (OSError, _Gone, asyncio.IncompleteReadError):
            link.reset()
        finally:
            self._links.discard(link)
            link.close()

    async def _serve(self, link: _Link) -> None:
        if self.setting.mode == "reset":
            raise _Gone
        while self.setting.mode == "black_hole":
            link.swallowed = True
            changed = asyncio.ensure_future(self._changed.wait())
            read = asyncio.ensure_future(link.client_reader.read(_PIECE))
            try:
                await asyncio.wait([changed, read], return_when=asyncio.FIRST_COMPLETED)
            finally:
                changed.cancel()
                read.cancel()
            if read.done() and not read.cancelled() and not read.result():
                raise _Gone
            if changed.done() and not changed.cancelled():
                raise _Gone
        async with asyncio.timeout(_CONNECT_SECONDS):
            link.server_reader, link.server = await asyncio.open_connection(HOST, self._target)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pump(link, up=True))
            group.create_task(self._pump(link, up=False))

    async def _pump(self, link: _Link, *, up: bool) -> None:
        assert link.server_reader is not None
        assert link.server is not None
        reader = link.client_reader if up else link.server_reader
        writer = link.server if up else link.client
        passed = 0
        counted: Setting | None = None
        try:
            while data := await reader.read(_PIECE):
                if self.setting is not counted:
                    counted, passed = self.setting, 0
                passed += len(data)
                if not await self._forward(link, data, writer, up=up, passed=passed):
                    link.reset()
                    return
            with contextlib.suppress(OSError):
                if writer.can_write_eof():
                    writer.write_eof()
        except (OSError, _Gone):
            link.reset()

    async def _forward(self, link: _Link, data: bytes, writer: asyncio.StreamWriter, *, up: bool, passed: int) -> bool:
        """False: the connection is to be reset."""
        setting = self.setting
        if setting.mode == "black_hole":
            await self._stall(link)
            setting = self.setting
        if setting.mode == "latency":
            await asyncio.sleep(self._random.uniform(setting.low, setting.high))
        elif setting.mode == "lost_answers" and not up:
            return False
        elif setting.mode == "half_close" and up and not link.deaf:
            writer.write(data)
            await writer.drain()
            link.deaf = True
            link.client.write_eof()
            return True
        elif setting.mode == "throttle":
            return await self._trickle(link, data, writer, setting)
        elif setting.mode == "cut" and passed > setting.after:
            writer.write(data[: max(0, len(data) - (passed - setting.after))])
            with contextlib.suppress(OSError):
                await writer.drain()
            await asyncio.sleep(_LOOK)  # a reset would overtake what was written
            return False
        if link.deaf and not up:
            return True  # nobody listens
        writer.write(data)
        await writer.drain()
        return True

    async def _stall(self, link: _Link) -> None:
        """Hold what was said until the hole closes; a client that gave up meanwhile takes its words with it."""
        while self.setting.mode == "black_hole":
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await self._changed.wait()
            if link.left(link.client_reader) or link.left(link.server_reader):
                raise _Gone

    async def _trickle(self, link: _Link, data: bytes, writer: asyncio.StreamWriter, setting: Setting) -> bool:
        size = max(1, round(setting.rate * 0.02))
        for start in range(0, len(data), size):
            if self.setting is not setting:
                writer.write(data[start:])
                break
            if link.left(link.client_reader):
                raise _Gone
            writer.write(data[start : start + size])
            await writer.drain()
            await asyncio.sleep(0.02)
        return True


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection so that its peer sees a TCP reset."""
    sock = writer.get_extra_info("socket")
    if sock is None or writer.transport.is_closing() or sock.fileno() < 0:
        writer.transport.abort()
        return
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
    writer.transport.abort()
