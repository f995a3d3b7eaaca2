"""Time as an argument, and deadlines measured by it."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds that only ever grow."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    def now(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Deadline:
    """How long to wait. While the file is still being sent it starts anew with every answer that moves things
    forward, because a long file is no reason to stop; once all is sent it runs down, whatever happens."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._until = clock.now() + seconds
        self._final = False

    def renew(self) -> None:
        if not self._final:
            self._until = self._clock.now() + self._seconds

    def start_last_wait(self) -> None:
        self.renew()
        self._final = True

    def left(self) -> float:
        """Seconds; zero or less when it is over."""
        return self._until - self._clock.now()
