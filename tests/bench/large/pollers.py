"""A thousand clients follow one import: what a poll takes, and what the import loses.

Within one import windows with and without polls take turns, so both have the same file, the same table and the same
hour. Every poller has a connection of its own, waits as long as `Retry-After` tells it, and names the version that it
knows (`If-None-Match`).
"""

from __future__ import annotations

import asyncio
import random
import resource
import statistics
import time
from pathlib import Path

from tests.bench.large import files
from tests.bench.large.client import Line
from tests.bench.large.site import Site, Upload
from tests.bench.large.tables import show

P99_MS, LOSS = 100, 0.2
WINDOW = 3.0
SETTLE = 0.5
"""Seconds at the start of a window that are not counted."""
JITTER = 0.25
"""A poller waits up to this much longer than it is told: a thousand that once met would else meet for ever."""
_SEED = 2_000


class Crowd:
    """Pollers that can be silenced; what they met."""

    def __init__(self, site: Site, job_id: str, count: int) -> None:
        self._target = f"/v1/jobs/{job_id}"
        self._lines = [Line(site.tranche.url, site.tranche.key) for _ in range(count)]
        self._talking = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.milliseconds: list[float] = []
        self.not_modified = 0
        self.failures: list[str] = []

    async def gather(self) -> None:
        """Connect all, some at a time."""
        for start in range(0, len(self._lines), 50):
            await asyncio.gather(*(line.open() for line in self._lines[start : start + 50]))
        self._tasks = [asyncio.create_task(self._poll(line)) for line in self._lines]

    def talk(self) -> None:
        self._talking.set()

    def hush(self) -> None:
        self._talking.clear()

    async def disperse(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for line in self._lines:
            line.close()

    async def _poll(self, line: Line) -> None:
        known: dict[str, str] = {}
        wait = 1.0
        while True:
            if not self._talking.is_set():
                await self._talking.wait()
                await asyncio.sleep(random.uniform(0, wait))
                continue
            began = time.perf_counter()
            try:
                told = await line.ask("GET", self._target, known)
            except (OSError, EOFError) as error:
                self.failures.append(repr(error))
                continue
            self.milliseconds.append((time.perf_counter() - began) * 1000)
            if told.status == 304:
                self.not_modified += 1
            elif told.status != 200:
                self.failures.append(f"{told.status} {told.body[:100]!r}")
            known = {"If-None-Match": told.headers.get("etag", "*")}
            wait = float(told.headers.get("retry-after", 1))
            await asyncio.sleep(wait * random.uniform(1, 1 + JITTER))


async def measure(site: Site, folder: Path, rows: int, pollers: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4 * pollers), hard), hard))
    path = files.write(folder, "csv", rows, _SEED)
    await site.clear()
    await site.restart()
    await site.pause_destination()
    upload = await site.upload(path)
    path.unlink()
    crowd = Crowd(site, upload.job_id, pollers)
    await crowd.gather()
    await site.first_progress(upload)
    windows: list[tuple[bool, float]] = []
    spoken = worked = 0.0
    talking = False
    while True:
        (crowd.talk if talking else crowd.hush)()
        began, busy = time.monotonic(), site.api_seconds()
        rate = await _window(site, upload)
        if talking:
            spoken += time.monotonic() - began
            worked += site.api_seconds() - busy
        if rate is None:
            break
        windows.append((talking, rate))
        talking = not talking
    crowd.hush()
    await crowd.disperse()
    assert len(windows) >= 3, "the import was over too soon; give it more rows"
    api, _ = site.peaks()
    pairs = [(windows[i][1], (windows[i - 1][1] + windows[i + 1][1]) / 2) for i in range(1, len(windows) - 1, 2)]
    cuts = statistics.quantiles(crowd.milliseconds, n=100) if len(crowd.milliseconds) > 100 else [0.0] * 99
    note = (
        f"Goals: p99 under {P99_MS} ms, loss under {LOSS}. Rows/s in windows of {WINDOW:g} s without and with polls, "
        f"in turns: {', '.join(f'{rate:,.0f}' for _, rate in windows)}. The loss is the median over windows with "
        "polls, each against the mean of the two beside it."
    )
    show(
        f"Pollers: {pollers:,} clients follow one import of {rows:,} rows",
        (
            "polls",
            "polls/s",
            "304",
            "p50, ms",
            "p99, ms",
            "most, ms",
            "failed",
            "CPU of the API, ms a poll",
            "rows/s alone",
            "rows/s beside",
            "loss",
            "API peak, MB",
        ),
        [
            (
                len(crowd.milliseconds),
                len(crowd.milliseconds) / max(spoken, 1e-9),
                f"{100 * crowd.not_modified / max(len(crowd.milliseconds), 1):.0f} %",
                cuts[49],
                cuts[98],
                max(crowd.milliseconds, default=0.0),
                len(crowd.failures),
                1000 * worked / max(len(crowd.milliseconds), 1),
                statistics.mean(alone for _, alone in pairs),
                statistics.mean(beside for beside, _ in pairs),
                1 - statistics.median(beside / alone for beside, alone in pairs),
                api,
            )
        ],
        [note, *crowd.failures[:3]],
    )
    await site.clear()


async def _window(site: Site, upload: Upload) -> float | None:
    """Rows a second in it; None if the import came to its end."""
    await asyncio.sleep(SETTLE)
    before, began = await _done(site, upload), time.monotonic()
    await asyncio.sleep(WINDOW)
    after, ended = await _done(site, upload), time.monotonic()
    (row,) = await site.execute("SELECT applied_at FROM jobs WHERE job_id = $1", upload.job_id)
    return None if row["applied_at"] is not None else (after - before) / (ended - began)


async def _done(site: Site, upload: Upload) -> int:
    (row,) = await site.execute("SELECT total FROM jobs WHERE job_id = $1", upload.job_id)
    return int(row["total"])
