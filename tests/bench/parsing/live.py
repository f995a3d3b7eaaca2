"""`python -m tests.bench.parsing.live`: how long others wait for a running API while it reads one hostile body.

A process of its own asks `/health/live` every 10 ms over one connection, which costs no query; it is the longest of its
answers that tells of a stretch in which the loop had no turn for anybody. One API process on engines of its own; no
worker runs.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import msgspec
import uvloop

from tests.bench import rig

EVERY = 0.01
_CSV, _NDJSON, _JSON = "text/csv", "application/x-ndjson", "application/json"


class Body(msgspec.Struct, frozen=True):
    name: str
    media_type: str
    text: bytes
    packed: bool = False


def bodies(size: int) -> list[Body]:
    """`size`: bytes of the large ones."""
    contact = b'{"id":"%d","email":"a' + b"x" * 60_000 + b'"},'
    return [
        Body("ordinary contacts, CSV", _CSV, _contacts(size)),
        Body('40 KB of a","', _CSV, b'a","\n' * 8_000, packed=True),
        Body('1 MB of a","', _CSV, b'a","\n' * 200_000, packed=True),
        Body("one open quote, then short lines", _CSV, b'id,email\n1,"' + b"a\n" * (size // 2)),
        Body("rows of one letter", _CSV, b"id,email\n" + b"a\n" * (size // 2)),
        Body("blank lines, CSV", _CSV, b"id,email\n" + b"\n" * size),
        Body("blank lines, NDJSON", _NDJSON, b"\n" * size),
        Body("one byte a line, NDJSON", _NDJSON, b"{\n" * (size // 2)),
        Body("open brackets, JSON", _JSON, b'{"items":[' + b"[" * size),
        Body("items of 60 KB with errors, JSON", _JSON,
             b'{"items":[' + b"".join(contact % n for n in range(size // 60_030))[:-1] + b"]}"),
    ]  # fmt: skip


def _contacts(size: int) -> bytes:
    rows = (b"c%d,ann.lee%d@example.com,Ann,Lee,+49 30 %d,ACME\n" % (n, n, n) for n in range(size // 50))
    return b"id,email,first_name,last_name,phone,company\n" + b"".join(rows)


async def watch(url: str) -> None:
    """Says when it has begun; once the standard input has ended, the times of the answers in milliseconds, as JSON."""
    times: list[float] = []
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    async with aiohttp.ClientSession() as session:
        while not ended.done():
            began = time.monotonic()
            async with session.get(f"{url}/health/live") as answer:
                await answer.read()
            times.append((time.monotonic() - began) * 1000)
            if len(times) == 10:
                print(flush=True)
            await asyncio.sleep(EVERY)
    print(msgspec.json.encode(times).decode())


async def measure(url: str, key: str, body: Body) -> list[str]:
    sent = gzip.compress(body.text) if body.packed else body.text
    headers = {
        "Authorization": f"Bearer {key}", "Content-Type": body.media_type,
        "Idempotency-Key": f"{body.name}-{time.monotonic_ns()}",
        **({"Content-Encoding": "gzip"} if body.packed else {}),
    }  # fmt: skip
    watching = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.parsing.live", "--watch", url,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert watching.stdout is not None
    await watching.stdout.readline()
    began = time.monotonic()
    timeout = aiohttp.ClientTimeout(total=300)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.post(f"{url}/v1/contacts:bulk", data=sent, headers=headers) as answer,
    ):
        await answer.read()
    took = time.monotonic() - began
    out, _ = await watching.communicate(b"")
    times = sorted(msgspec.json.decode(out, type=list[float]))
    return [
        body.name + (", gzip" if body.packed else ""), f"{len(sent):,}", str(answer.status), f"{took:.2f}",
        f"{times[len(times) // 2]:.1f}", f"{times[int(len(times) * 0.99)]:.0f}", f"{times[-1]:.0f}",
    ]  # fmt: skip


async def main(size: int) -> None:
    with tempfile.TemporaryDirectory(prefix="tranche-parsing-") as folder:
        os.chmod(folder, 0o711)  # as root the engines run as somebody else
        async with rig.installation(Path(folder) / "data", api_workers=1) as (_, url, key):
            print(f"load average before: {os.getloadavg()[0]:.2f}\n")
            print("| body | sent, bytes | status | answered after, s | `/health/live`: median, ms | p99 | longest |")
            print("|---|--:|--:|--:|--:|--:|--:|")
            for body in bodies(size):
                print("| " + " | ".join(await measure(url, key, body)) + " |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--watch"]:
        uvloop.run(watch(sys.argv[2]))
    else:
        uvloop.run(main(int(sys.argv[1]) if sys.argv[1:] else 4_900_000))
