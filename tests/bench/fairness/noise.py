"""The noisy client, a process of its own: each of its connections sends again as soon as it is answered.

    python -m tests.bench.fairness.noise KIND URL KEY SECONDS

At the end it prints the statuses that it got and how often, as one line of JSON.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec
import uvloop

from app.auth import tokens
from tests.bench import rig

HALF = 2_500_000
WHOLE = 5_000_000
"""Bytes of a half-sent body: what is sent of it, and what was announced."""
_numbers = itertools.count(1)

Make = Callable[[], bytes]


def _import(key: str, items: int) -> Make:
    body = rig.body(rig.items(rig.record_ids(items), 0))

    def make() -> bytes:
        head = (
            f"POST /v1/contacts:bulk HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
            f"Idempotency-Key: noise-{os.getpid()}-{next(_numbers)}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    return make


def _get(path: str, key: Callable[[], str] | None = None) -> Make:
    def make() -> bytes:
        field = "" if key is None else f"Authorization: Bearer {key()}\r\n"
        return f"GET {path} HTTP/1.1\r\nHost: x\r\n{field}\r\n".encode()

    return make


def _forge() -> str:
    """A key with a right checksum that nobody was given."""
    return tokens.make(1, os.urandom(6), os.urandom(tokens.SECRET_BYTES))[0]


async def _ask_again(host: str, port: int, make: Make, until: float, seen: Counter[str]) -> None:
    while time.monotonic() < until:
        try:
            reader, writer = await asyncio.open_connection(host, port)
        except OSError:
            seen["not connected"] += 1
            await asyncio.sleep(0.1)
            continue
        try:
            while time.monotonic() < until:
                writer.write(make())
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                seen[head.split(b" ", 2)[1].decode()] += 1
                length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or b"0")
                await reader.readexactly(length)
                if b"connection: close" in head:
                    break
        except (OSError, asyncio.IncompleteReadError):
            seen["cut off"] += 1
        finally:
            writer.close()


async def _hold(host: str, port: int, key: str | None, until: float, seen: Counter[str]) -> None:
    """Half of a body, and then nothing."""
    field = "" if key is None else f"Authorization: Bearer {key}\r\n"
    head = (
        f"POST /v1/contacts:bulk HTTP/1.1\r\nHost: x\r\n{field}Content-Type: application/json\r\n"
        f"Idempotency-Key: half-{os.getpid()}-{next(_numbers)}\r\nContent-Length: {WHOLE}\r\n\r\n"
    )
    while time.monotonic() < until:
        try:
            async with asyncio.timeout(max(0.01, until - time.monotonic())):
                reader, writer = await asyncio.open_connection(host, port)
                writer.write(head.encode())
                try:
                    sending = asyncio.create_task(_send(writer))
                    answer = await reader.readuntil(b"\r\n\r\n")
                    seen[answer.split(b" ", 2)[1].decode()] += 1
                    await reader.read()
                finally:
                    sending.cancel()
                    writer.close()
        except TimeoutError:
            seen["held"] += 1
        except (OSError, asyncio.IncompleteReadError):
            seen["cut off"] += 1
        await asyncio.sleep(0.5)


async def _send(writer: asyncio.StreamWriter) -> None:
    piece = b" " * 62_500
    for _ in range(HALF // len(piece)):
        writer.write(piece)
        await writer.drain()


async def main(kind: str, url: str, key: str, seconds: float) -> None:
    parts = urlsplit(url)
    host, port = str(parts.hostname), int(parts.port or 80)
    seen: Counter[str] = Counter()
    until = time.monotonic() + seconds
    match kind:
        case "small":
            count, make = 200, _import(key, 10)
        case "large":
            count, make = 50, _import(key, 1_000)
        case "health":
            count, make = 200, _get("/health")
        case "malformed":
            count, make = 200, _get("/v1/jobs", lambda: "trn_nothing")
        case "forged":
            count, make = 200, _get("/v1/jobs", _forge)
        case "halves" | "anonymous":
            count = 2_000 if kind == "halves" else 4_300
            who = key if kind == "halves" else None
            await asyncio.gather(*(_hold(host, port, who, until, seen) for _ in range(count)))
            print(msgspec.json.encode(seen).decode(), flush=True)
            return
        case _:
            raise SystemExit(f"no such noise: {kind}")
    await asyncio.gather(*(_ask_again(host, port, make, until, seen) for _ in range(count)))
    print(msgspec.json.encode(seen).decode(), flush=True)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])))
