"""Requests to Redis that nothing depends on: while it is away they cost at most one caller a second its timeout."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from redis.exceptions import RedisError

from app.telemetry import RedisMissed, emit

REDIS_TIMEOUT: Final = 0.25
"""Seconds that one request to Redis may take, connecting included."""
REDIS_PAUSE: Final = 1.0
"""Seconds without a request after one failed."""

_T = TypeVar("_T")


class RedisFallback:
    """Skips Redis for a while after it failed to answer; `clock` is in seconds. Nothing here raises."""

    def __init__(self, clock: Callable[[], float], away: str | None = None, *, part: str) -> None:
        """`part`: what asks, for metrics."""
        self._part = part
        self._clock = clock
        self._never = away is not None
        self._away_since: float | None = None
        self.away = away
        """Why this process decides alone at present; `None` while Redis answers."""

    async def ask(self, request: Callable[[], Awaitable[_T]]) -> tuple[_T] | None:
        """Redis' answer, or `None` when it is away (then it is left alone for `REDIS_PAUSE`)."""
        if self._never:
            return None
        answer = await self._ask(request)
        if answer is None:
            emit(RedisMissed(part=self._part))
        return answer

    async def _ask(self, request: Callable[[], Awaitable[_T]]) -> tuple[_T] | None:
        now = self._clock()
        if self._away_since is not None:
            if 0 <= now - self._away_since < REDIS_PAUSE:
                return None
            self._away_since = now  # this caller tries; the others need not wait for the same timeout
        try:
            async with asyncio.timeout(REDIS_TIMEOUT):
                answer = await request()
        except (RedisError, OSError, TimeoutError) as error:
            self._away_since = self._clock()
            self.away = f"{type(error).__name__}: {error}".rstrip(": ")
            return None
        self._away_since = self.away = None
        return (answer,)
