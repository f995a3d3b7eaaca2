"""`make bench-overload`: one tenant sends three times as many imports as the service can accept; a small one beside it.

1. rates     the large tenant alone, at rising rates; the sustainable one is the highest at which all are accepted
2. idle      the small tenant alone: one import of one item 20 times a second
3. overload  three times the sustainable rate, and the small tenant beside it

Goals: what is accepted in overload is at least 80 % of the most that was accepted at any rate; the small tenant's p99
is at most twice that of idle; memory grows by no more than a tenth in the second half. 2 and 3 are repeated, and their
medians count. All loads are open (`tests.bench.overload.load`). A run in which they were not sent when they were due
is void. One API process has a core of its own; the load has the other one with PostgreSQL.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
from collections import Counter
from pathlib import Path

import msgspec
import psutil
import uvloop

from app.auth import service
from app.cli.local import place
from tests.bench import rig
from tests.bench.overload.load import Seen

CLOSED = 16
"""Connections that send again once they are answered, to see at which rates to begin."""
STEPS = (0.5, 0.65, 0.8, 0.9, 1.0)
"""Of the rate at which these are accepted."""
SMALL = 20.0
TIMES = 3.0
LATE = 50.0
"""Milliseconds: a load of which one request in a hundred was sent later is void."""
WARM = 5.0
"""Seconds at the beginning of a load that do not count: a burst is let in to wait, what lasts is overload."""


class Result(msgspec.Struct):
    """What a load saw after its first seconds."""

    accepted: float
    """A second."""
    p50: float
    p99: float
    statuses: dict[int, int]
    late: float
    retry_after: list[int]


def judge(seen: Seen, seconds: float) -> Result:
    counted = [one for one in seen.answers if one[0] >= WARM]
    times = sorted(ms if status == 207 else 20_000.0 for _, status, ms in counted)
    good = sorted(ms for _, status, ms in counted if status == 207)
    ended = sum(1 for at, status, ms in seen.answers if status == 207 and WARM <= at + ms / 1000 <= seconds)
    late = sorted(seen.late)
    return Result(
        ended / (seconds - WARM),
        good[len(good) // 2] if good else float("inf"),
        times[int(len(times) * 0.99)] if times else float("inf"),
        dict(Counter(status for _, status, _ in counted)),
        late[int(len(late) * 0.99)] if late else 0.0,
        sorted(int(wait) for wait in seen.retry_after if wait),
    )


async def load(url: str, seconds: float, key: str, rate: float, items: int) -> Result:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.overload.load", url, str(seconds), f"{key}:{rate}:{items}",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    pin(process.pid, 1)
    out, _ = await process.communicate()
    return judge(msgspec.json.decode(out, type=Seen), seconds)


def pin(pid: int, core: int) -> None:
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(pid, {core})


def servers() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    # without ZOMBIE: whoever ended since has no command line to read
    return [p for p in children if p.status() != psutil.STATUS_ZOMBIE and "serve" in p.cmdline()]


async def follow_memory(found: list[float]) -> None:
    process = max(servers(), key=lambda p: p.memory_info().rss)
    while True:
        found.append(process.memory_info().rss / 1e6)
        await asyncio.sleep(0.2)


def show(name: str, rate: float, result: Result) -> None:
    statuses = " ".join(f"{count}x{status}" for status, count in sorted(result.statuses.items()))
    void = " VOID: the load was late" if result.late > LATE else ""
    print(
        f"| {name} | {rate:,.0f} | {result.accepted:,.0f} | {result.p50:,.1f} | {result.p99:,.1f} "
        f"| {result.late:.1f} | {statuses}{void} |",
        flush=True,
    )


async def main(items: int, rounds: int, seconds: float, given: float) -> None:
    with tempfile.TemporaryDirectory(prefix="tranche-overload-") as folder:
        os.chmod(folder, 0o711)  # as root the engines run as somebody else
        async with rig.installation(Path(folder) / "data", api_workers=1) as (settings, url, small):
            async with place.connection(settings) as connection:
                large = await service.create_key(connection, "large", ["import"])
            for process in servers():
                pin(process.pid, 0)
            print(f"batches of {items} items; load average before: {os.getloadavg()[0]:.2f}\n")
            print("| load | sent/s | accepted/s | p50, ms | p99, ms | sent late, p99, ms | answers |")
            print("|---|--:|--:|--:|--:|--:|---|")
            await load(url, 4.0, large, -4, items)  # warms up
            flood = await load(url, 10.0, large, -CLOSED, items)
            peak, sustainable = flood.accepted, 0.0
            show(f"large tenant, {CLOSED} connections", 0, flood)
            for step in () if given else STEPS:
                rate = flood.accepted * step
                result = await load(url, 10.0, large, rate, items)
                show("large tenant alone", rate, result)
                peak = max(peak, result.accepted)
                if set(result.statuses) > {207} or result.p99 > 1_000:
                    break
                sustainable = rate
            sustainable = given or sustainable or flood.accepted * STEPS[0]
            idles, smalls, goods, waits = [], [], [], set[int]()
            memory: list[float] = []
            void = False
            for _ in range(rounds):
                idle = await load(url, seconds, small, SMALL, 1)
                show("small tenant alone", SMALL, idle)
                following = asyncio.create_task(follow_memory(memory))
                over, beside = await asyncio.gather(
                    load(url, seconds, large, TIMES * sustainable, items), load(url, seconds, small, SMALL, 1)
                )
                following.cancel()
                show("large tenant, three times", TIMES * sustainable, over)
                show("small tenant beside it", SMALL, beside)
                void |= max(over.late, beside.late, idle.late) > LATE
                idles.append(idle.p99)
                smalls.append(beside.p99 / idle.p99)
                goods.append(over.accepted / peak)
                waits |= set(over.retry_after)
            half = len(memory) // 2
            growth = max(memory[half:]) / max(memory[: half or 1])
            print(
                f"\nmedians of {rounds}: "
                f"goodput {statistics.median(goods):.0%} of its peak of {peak:,.0f}/s (goal 80 %) "
                f"and small tenant's p99 {statistics.median(smalls):.1f} times idle (goal 2.0); memory "
                f"{memory[0]:.0f} → {max(memory):.0f} MB, second half {growth:.2f} times the first (goal 1.1); "
                f"Retry-After {min(waits, default=0)} to {max(waits, default=0)} s; "
                f"load average after: {os.getloadavg()[0]:.2f}{'; VOID: the load was late' if void else ''}"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=0.0, help="the sustainable rate, if it is known")
    arguments = parser.parse_args()
    uvloop.run(main(arguments.items, arguments.rounds, arguments.seconds, arguments.rate))
