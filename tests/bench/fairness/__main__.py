"""How much longer one tenant waits while another one, or nobody in particular, makes noise.

The victim sends an import of one item every 50 ms, each over a connection of its own and whether the one before was
answered or not; times are from the moment it was due. The noise comes from a process of its own. One API process on
engines of its own, fsync on; no worker runs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import aiohttp
import msgspec
import psutil
import uvloop

from app.auth import service
from app.cli.local import place
from tests.bench import rig

EVERY = 0.05
GOAL = 5.0
KINDS = {
    "small": "200 connections x 10 items, one tenant",
    "large": "50 connections x 1,000 items, one tenant",
    "health": "200 connections x GET /health, no key",
    "malformed": "200 connections x a malformed key",
    "forged": "200 connections x forged keys",
    "halves": "2,000 half-sent bodies of 5 MB, one key",
    "anonymous": "4,300 half-sent bodies of 5 MB, no key",
}


class Measured(msgspec.Struct):
    """What the victim saw: milliseconds of each import that was taken, and statuses."""

    times: list[float]
    statuses: dict[str, int]

    def at(self, share: float) -> float:
        ordered = sorted(self.times)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("inf")


async def watch_victim(url: str, key: str, seconds: float) -> Measured:
    seen: Counter[str] = Counter()
    times: list[float] = []
    prefix = f"victim-{os.getpid()}-{time.monotonic_ns()}"
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one(number: int, due: float) -> None:
            headers = {
                "Authorization": f"Bearer {key}",
                "Idempotency-Key": f"{prefix}-{number}",
                "Content-Type": "application/json",
            }
            body = rig.body(rig.items([f"victim-{number}"], number))
            try:
                async with asyncio.timeout(20):
                    async with session.post(f"{url}/v1/contacts:bulk", data=body, headers=headers) as answer:
                        await answer.read()
                        seen[str(answer.status)] += 1
                        # One that is refused has waited as well, but was not served: it counts as the longest.
                        took = (time.monotonic() - due) * 1000
                        times.append(took if answer.status == 207 else 20_000.0)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                seen[type(error).__name__] += 1
                times.append(20_000.0)

        tasks = []
        began = time.monotonic()
        for number in range(int(seconds / EVERY)):
            due = began + number * EVERY
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            tasks.append(asyncio.create_task(one(number, due)))
        await asyncio.gather(*tasks)
    return Measured(times, dict(seen))


async def _victim_process(url: str, key: str, seconds: float) -> Measured:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.fairness", "--victim", url, key, str(seconds),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    return msgspec.json.decode(out, type=Measured)


def _server() -> psutil.Process:
    """The process that serves: a grandchild of ours."""
    found = [p for p in psutil.Process().children(recursive=True) if "serve" in p.cmdline()]
    return max(found, key=lambda p: p.memory_info().rss)


async def _follow_memory(process: psutil.Process, most: list[float]) -> None:
    while True:
        most[0] = max(most[0], process.memory_info().rss / 1e6)
        await asyncio.sleep(0.1)


async def measure(url: str, victim: str, noisy: str, kind: str, seconds: float) -> list[str]:
    quiet = await _victim_process(url, victim, seconds)
    server = _server()
    before = server.memory_info().rss / 1e6
    most = [before]
    following = asyncio.create_task(_follow_memory(server, most))
    noise = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.fairness.noise", kind, url, noisy, str(seconds + 4),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    await asyncio.sleep(3.0)
    loud = await _victim_process(url, victim, seconds)
    out, _ = await noise.communicate()
    following.cancel()
    return [
        KINDS[kind],
        f"{quiet.at(0.5):.1f}", f"{quiet.at(0.99):.1f}", f"{loud.at(0.5):.1f}", f"{loud.at(0.99):.1f}",
        f"{loud.at(0.99) / quiet.at(0.99):.1f}",
        f"{before:.0f} → {most[0]:.0f}",
        " ".join(f"{n}x{s}" for s, n in sorted(loud.statuses.items())),
        " ".join(f"{n}x{s}" for s, n in sorted(msgspec.json.decode(out, type=dict[str, int]).items())),
    ]  # fmt: skip


async def main(kinds: list[str], seconds: float) -> None:
    with tempfile.TemporaryDirectory(prefix="tranche-fairness-") as folder:
        os.chmod(folder, 0o711)  # as root the engines run as somebody else
        async with rig.installation(Path(folder) / "data", api_workers=1) as (settings, url, victim):
            async with place.connection(settings) as connection:
                noisy = await service.create_key(connection, "noisy", ["import"])
            await watch_victim(url, victim, 2.0)  # warms up
            print(f"victim: one item every {EVERY * 1000:.0f} ms for {seconds:g} s; load average before: "
                  f"{os.getloadavg()[0]:.2f}\n")  # fmt: skip
            print("| noise | quiet p50, ms | p99 | noisy p50 | p99 | p99 ratio | API's memory, MB | victim | noise |")
            print("|---|--:|--:|--:|--:|--:|--:|---|---|")
            for kind in kinds:
                print("| " + " | ".join(await measure(url, victim, noisy, kind, seconds)) + " |", flush=True)
            print(
                f"\ngoal: a p99 ratio of {GOAL:g} at most for the first; load average after: {os.getloadavg()[0]:.2f}"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=[], help=f"of: {', '.join(KINDS)}; all of them")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--victim", nargs=3, metavar=("URL", "KEY", "SECONDS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.victim:
        found = uvloop.run(watch_victim(arguments.victim[0], arguments.victim[1], float(arguments.victim[2])))
        print(msgspec.json.encode(found).decode())
    else:
        uvloop.run(main(arguments.kinds or list(KINDS), arguments.seconds))
