"""Work that several requests want at the same time, done once for all of them."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class SingleFlight(Generic[K, V]):
    """Whoever comes while a key's work is under way gets its result; who goes away does not end it."""

    def __init__(self) -> None:
        self._running: dict[K, asyncio.Task[V]] = {}

    async def share(self, key: K, work: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """The result of this key's work, or its error."""
        return await asyncio.shield(self.start(key, work))

    def start(self, key: K, work: Callable[[], Coroutine[Any, Any, V]]) -> asyncio.Task[V]:
        """See to it that this key's work is under way, without waiting for it."""
        task = self._running.get(key)
        # One that has ended may still stand here for a moment. Its result is old, and whoever asks until there is a
        # newer one would get it without ever letting the loop go on, that is for ever.
        if task is None or task.done():
            task = asyncio.create_task(work())
            self._running[key] = task
            task.add_done_callback(lambda done: self._end(key, done))
        return task

    def _end(self, key: K, task: asyncio.Task[V]) -> None:
        if self._running.get(key) is task:
            del self._running[key]
        if not task.cancelled():
            task.exception()  # taken note of, though all who wanted to know may have gone

    async def close(self) -> None:
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
