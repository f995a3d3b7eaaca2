"""Seconds as the event loop of a test lives through them, so that a busy machine cannot make a bound fail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

_TICK: Final = 0.01


class Stopwatch:
    """Counts ticks of the loop. A tick that comes late counts as one, and `late` has what was too much."""

    def __init__(self) -> None:
        self.seconds = 0.0
        """What has passed, without what the loop was late."""
        self.late = 0.0
        """The longest time for which the loop did nothing, in seconds."""

    async def run(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(_TICK)
            self.seconds += _TICK
            self.late = max(self.late, time.monotonic() - began - _TICK)


@asynccontextmanager
async def stopwatch() -> AsyncIterator[Stopwatch]:
    """For upper bounds. It fits a service that runs in the loop of the test: a wait of the service counts in full, and
    time in which neither could run does not count."""
    watch = Stopwatch()
    running = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        running.cancel()
