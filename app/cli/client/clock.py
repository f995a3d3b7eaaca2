"""Time as an argument, and deadlines measured by it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class Clock:
    """That of the system; tests have one of their own."""

    def now(self) -> float:
        """Seconds that only ever grow."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Deadline:
    """How long to wait. While the file is still being sent it starts anew with every answer that moves things
    forward, because a long file is no reason to stop; once all is sent it runs down, whatever happens."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock = clock
        self._seconds = seconds
        self._until = clock.now() + seconds
        self._final = False

    def renew(self) -> None:
        if not self._final:
            self._until = self.clock.now() + self._seconds

    def start_last_wait(self) -> None:
        self.renew()
        self._final = True

    def left(self) -> float:
        """Seconds; zero or less when it is over."""
        return self._until - self.clock.now()


async def ask_until(
    found: T, ask: Callable[[T], Awaitable[T]], done: Callable[[T], bool], *, seconds: float, pause: float
) -> T:
    """What `ask` gives once it is `done`, or as it was after so many seconds."""
    until = time.monotonic() + seconds
    while not done(found) and time.monotonic() < until:
        await asyncio.sleep(pause)
        found = await ask(found)
    return found
