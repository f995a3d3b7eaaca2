"""Connections that nobody uses at the moment, for whoever speaks another protocol than HTTP."""

import asyncio
from typing import Final, Generic, Protocol, TypeVar

IDLE_SECONDS: Final = 30.0
"""After which a connection that nobody needs is closed."""


class Closable(Protocol):
    @property
    def closed(self) -> bool:
        """Whether the other side has ended it, as far as that is known."""
        ...

    def close(self) -> None: ...


T = TypeVar("T", bound=Closable)


class IdlePool(Generic[T]):
    """As many as there were calls at a time; those that are idle are closed after a while."""

    def __init__(self) -> None:
        self._idle: list[tuple[float, T]] = []
        """With the time since which nobody uses it. The last used are used first, so those that are too many become
        old."""
        self._closer: asyncio.TimerHandle | None = None

    def take(self) -> T | None:
        """One that is open; `None`: there is none."""
        while self._idle:
            _, kept = self._idle.pop()
            if not kept.closed:
                return kept
            kept.close()
        return None

    def keep(self, connection: T) -> None:
        loop = asyncio.get_running_loop()
        self._idle.append((loop.time(), connection))
        if self._closer is None:
            self._closer = loop.call_later(IDLE_SECONDS, self._close_idle)

    def terminate(self) -> None:
        """Close all of them at once."""
        while self._idle:
            self._idle.pop()[1].close()

    def _close_idle(self) -> None:
        loop = asyncio.get_running_loop()
        while self._idle and self._idle[0][0] <= loop.time() - IDLE_SECONDS:
            self._idle.pop(0)[1].close()
        self._closer = None
        if self._idle:
            self._closer = loop.call_at(self._idle[0][0] + IDLE_SECONDS, self._close_idle)
