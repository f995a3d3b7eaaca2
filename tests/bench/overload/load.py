"""An open load, a process of its own: requests are sent when they are due, whether others were answered or not.

    python -m tests.bench.overload.load URL SECONDS KEY:RATE:ITEMS …

Times count from the moment at which a request was due. A connection is used again once it is answered; as many are
opened as are needed. A negative RATE is no open load: so many connections send again as soon as they are answered.
Prints one line of JSON for each KEY (`Seen`).
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

import msgspec
import uvloop

from tests.bench import rig

GIVE_UP = 20.0
"""Seconds after which nobody waits any more."""
MOST = 6_000
"""Connections."""


class Seen(msgspec.Struct):
    """`answers`: when it was due, in seconds from the start, status, and milliseconds until it was answered. `late`:
    milliseconds by which requests were sent after they were due."""

    answers: list[tuple[float, int, float]]
    late: list[float]
    retry_after: dict[str, int]


class _Client(asyncio.Protocol):
    """One connection: one request at a time."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._transport: Any = None
        self._data = b""
        self._due: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def send(self, request: bytes, due: float) -> None:
        self._due, self._data = due, b""
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        if not end or self._due is None:
            return
        low = head.lower()
        length = int(low.partition(b"content-length:")[2].partition(b"\r\n")[0] or b"0")
        if len(body) < length:
            return
        status = int(head[9:12])
        if status == 503:
            self._load.seen.retry_after[low.partition(b"retry-after: ")[2].partition(b"\r\n")[0].decode()] += 1
        self._load.answered(self._due, status)
        self._due = None
        if self._load.closed and time.monotonic() < self._load.until and b"connection: close" not in low:
            self._load.again(self)
        elif b"connection: close" not in low:
            self._load.idle.append(self)
        else:
            self._transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        if self in self._load.idle:
            self._load.idle.remove(self)
        if self._due is not None:
            self._load.answered(self._due, 0)
            self._due = None


class Load:
    """The requests of one tenant."""

    def __init__(self, url: str, key: str, rate: float, items: int, seconds: float, began: float) -> None:
        parts = urlsplit(url)
        self._host, self._port = str(parts.hostname), int(parts.port or 80)
        self._began = began
        self.closed, self.until = rate < 0, began + seconds
        self._dues: list[float] = [0.0] * round(-rate) if rate < 0 else []
        at = 0.0
        while at < seconds and rate > 0:
            self._dues.append(at)
            at += random.expovariate(rate)  # independent clients
        self._bodies = [rig.body(rig.items(rig.record_ids(items), 0)) for _ in range(200)]
        self._key = key
        self.idle: list[_Client] = []
        self.seen = Seen([], [], Counter())
        self._open = 0
        self._again = 1_000_000

    def again(self, client: _Client) -> None:
        self._again += 1
        self._open += 1
        client.send(self._request(self._again), time.monotonic() - self._began)

    def answered(self, due: float, status: int) -> None:
        now = time.monotonic() - self._began
        self.seen.answers.append((round(due, 3), status, round((now - due) * 1000, 2)))
        self._open -= 1

    async def run(self) -> None:
        tasks: set[asyncio.Task[None]] = set()
        for number, due in enumerate(self._dues):
            wait = self._began + due - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            self.seen.late.append(round((time.monotonic() - self._began - due) * 1000, 2))
            self._open += 1
            if self.idle:
                self.idle.pop().send(self._request(number), due)
            elif self._open > MOST:
                self.answered(due, -1)
            else:
                task = asyncio.create_task(self._connect(number, due))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        until = time.monotonic() + GIVE_UP
        while self._open and time.monotonic() < until:
            await asyncio.sleep(0.05)

    async def _connect(self, number: int, due: float) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, client = await loop.create_connection(lambda: _Client(self), self._host, self._port)
        except OSError:
            self.answered(due, 0)
        else:
            client.send(self._request(number), due)

    def _request(self, number: int) -> bytes:
        body = self._bodies[number % len(self._bodies)]
        return (
            f"POST /v1/contacts:bulk HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self._key}\r\n"
            f"Idempotency-Key: load-{os.getpid()}-{id(self)}-{number}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body


async def main(url: str, seconds: float, wanted: list[str]) -> None:
    began = time.monotonic() + 0.5
    loads = []
    for one in wanted:
        key, rate, items = one.split(":")
        loads.append(Load(url, key, float(rate), int(items), seconds, began))
    await asyncio.gather(*(load.run() for load in loads))
    for load in loads:
        print(msgspec.json.encode(load.seen).decode(), flush=True)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], float(sys.argv[2]), sys.argv[3:]))
