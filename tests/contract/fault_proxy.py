"""A proxy between an adapter and a real server that loses what a network loses."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Any


class FaultProxy(ABC):
    """Faults are those of `app.sandbox.faults` that a network, too, has; where they strike, `carry` decides."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._target = host, port
        self._tls = tls
        self.faults: dict[str, dict[str, Any]] = {}
        self.calls: list[dict[str, Any]] = []
        self.in_flight = 0
        self.max_concurrent = 0
        self.connections = 0
        self.port = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @abstractmethod
    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hand on what comes by one connection, until it ends."""

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """End all connections."""
        for writer in list(self._open):
            writer.transport.abort()

    async def refuse(self, seconds: float) -> None:
        self._server.close()
        self.cut()

        async def reopen() -> None:
            await asyncio.sleep(seconds)
            await self.start()

        task = asyncio.create_task(reopen())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def strike(self, kind: str, side: str | None, call: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """`side` None: it is not known yet, and a fault for one side does not strike."""
        fault = self.faults.get(kind)
        on = "write" if kind in ("drop_before", "accept_then_drop") else "any"
        if fault is None or fault.get("times") == 0 or fault.get("on", on) not in ("any", side):
            return None
        if "times" in fault:
            fault["times"] -= 1
        if call is not None:
            call["faults"].append(kind)
        return fault

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open.add(writer)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self.carry(reader, writer)
        finally:
            writer.close()
            self._open.discard(writer)
            self._tasks.discard(task)


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection as a process that died does (RST)."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
