"""The rate at which a destination is called, kept by all workers together: one number in Redis, one Lua script.

While Redis is away each worker keeps the rate by itself, so that all of them together may exceed it until it is back.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from typing import TYPE_CHECKING, Final, Literal

from app.domain import pace as rules
from app.domain.pace import Turn, microseconds
from jobs.breaker.redis_fallback import RedisFallback

if TYPE_CHECKING:
    from redis.asyncio import Redis

SLOWEST: Final = 0.001
"""Calls a second: what is set to less is served at this rate."""
PATIENCE: Final = 1.0
"""Seconds ahead for which a turn is taken, and slept until; what would come later is asked for again."""
_SWEEP_AT: Final = 1_000
_Asked = Literal["take", "give_back"]


class Pace:
    """Turns to call, by name of the destination.

    Args:
        redis: `None`: this process alone.
        clock: seconds since the epoch, for the rule in this process (shared rates go by Redis `TIME`).
        pinned_time: microseconds that replace Redis `TIME`; for tests that compare histories.
    """

    def __init__(
        self,
        redis: Redis | None,
        *,
        clock: Callable[[], float],
        prefix: str = "tranche:pace:",
        pinned_time: Callable[[], int] | None = None,
    ) -> None:
        self._clock = clock
        self._fallback = RedisFallback(clock, "no Redis configured" if redis is None else None)
        script = (resources.files("jobs") / "lua" / "pace.lua").read_text("utf-8")
        self._script = None if redis is None else redis.register_script(script)
        self._prefix = prefix
        self._pinned_time = pinned_time
        self._due: dict[str, int] = {}

    async def take(self, name: str, rate: float) -> Turn:
        """Take the next turn at `rate` calls a second, if one comes soon."""
        return await self._ask(name, rate, "take")

    async def give_back(self, name: str, rate: float) -> None:
        """A turn is not used."""
        await self._ask(name, rate, "give_back")

    async def _ask(self, name: str, rate: float, what: _Asked) -> Turn:
        interval, patience = max(1, round(1_000_000 / max(rate, SLOWEST))), microseconds(PATIENCE)
        answer = await self._ask_redis(name, interval, patience, what)
        if answer is not None:
            granted, wait = answer
            return Turn(bool(granted), wait)
        now, due = microseconds(self._clock()), self._due.get(name, 0)
        if what == "give_back":
            self._keep(name, rules.give_back(due, now, interval=interval, patience=patience), now)
            return Turn(True, 0)
        due, turn = rules.take(due, now, interval=interval, patience=patience)
        self._keep(name, due, now)
        return turn

    async def _ask_redis(
        self, name: str, interval: int, patience: int, what: _Asked
    ) -> tuple[int, int] | None:
        script = self._script
        if script is None:
            return None
        now = "" if self._pinned_time is None else self._pinned_time()
        answer = await self._fallback.ask(
            lambda: script(keys=[self._prefix + name], args=[now, interval, patience, what])
        )
        if answer is None:
            return None
        ((granted, wait),) = answer
        return granted, wait

    def _keep(self, name: str, due: int, now: int) -> None:
        if name not in self._due and len(self._due) >= _SWEEP_AT:
            self._due = {key: kept for key, kept in self._due.items() if kept > now}
        self._due[name] = due
