"""The rate at which a destination is called, kept by all workers together: one number in Redis, one Lua script.

While Redis is away each worker keeps the rate by itself, so that all of them together may exceed it until it is back.
The rule is the generic cell rate algorithm: one number for each destination, the time when its next call is due.
`rate_limiter.lua` is the same rule; a test compares the two. Times of the rule are whole microseconds. Source: ITU-T
I.371, Annex A (virtual scheduling), without a burst: calls keep their distance.
"""

import time
from collections.abc import Callable
from importlib import resources
from typing import Final, Literal

import msgspec
from redis.asyncio import Redis

from app.kit.redis_fallback import RedisFallback

SLOWEST: Final = 0.001
"""Calls a second: what is set to less is served at this rate."""
AHEAD: Final = 1.0
"""Seconds ahead for which a slot is granted, and waited for; a later one is asked for again."""
_PREFIX: Final = "tranche:pace:"
_SWEEP_AT: Final = 1_000
_Operation = Literal["acquire", "cancel"]


class Slot(msgspec.Struct, frozen=True):
    """The time for a call, if it is granted, and the wait: until then, or until it is worth asking again."""

    granted: bool
    wait: int

    @property
    def seconds(self) -> float:
        return self.wait / 1_000_000


class RateLimiter:
    """Slots for calls, by name of the destination.

    Args:
        redis: `None`: this process alone.
        clock: seconds since the epoch, for the rule in this process (shared rates go by Redis `TIME`).
        pinned_time: microseconds that replace Redis `TIME`; for tests that compare histories.
    """

    def __init__(
        self,
        redis: Redis | None,
        *,
        clock: Callable[[], float] = time.time,
        pinned_time: Callable[[], int] | None = None,
    ) -> None:
        self._clock = clock
        self._fallback = RedisFallback(clock, "no Redis configured" if redis is None else None, part="pace")
        script = (resources.files(__package__) / "rate_limiter.lua").read_text("utf-8")
        self._script = None if redis is None else redis.register_script(script)
        self._pinned_time = pinned_time
        self._due: dict[str, int] = {}

    async def acquire(self, name: str, rate: float) -> Slot:
        """The next slot at `rate` calls a second, if one comes soon."""
        return await self._ask(name, rate, "acquire")

    async def cancel(self, name: str, rate: float) -> None:
        """A slot is not used."""
        await self._ask(name, rate, "cancel")

    async def _ask(self, name: str, rate: float, operation: _Operation) -> Slot:
        interval, ahead = max(1, round(1_000_000 / max(rate, SLOWEST))), microseconds(AHEAD)
        script = self._script
        if script is not None:
            now_there = "" if self._pinned_time is None else self._pinned_time()
            arguments = [now_there, interval, ahead, operation]
            answer = await self._fallback.ask(lambda: script(keys=[_PREFIX + name], args=arguments))
            if answer is not None:
                ((granted, wait),) = answer
                return Slot(bool(granted), wait)
        now, due = microseconds(self._clock()), self._due.get(name, 0)
        if operation == "cancel":
            self._keep(name, cancel(due, now, interval=interval, ahead=ahead), now)
            return Slot(True, 0)
        due, slot = acquire(due, now, interval=interval, ahead=ahead)
        self._keep(name, due, now)
        return slot

    def _keep(self, name: str, due: int, now: int) -> None:
        if name not in self._due and len(self._due) >= _SWEEP_AT:
            self._due = {key: kept for key, kept in self._due.items() if kept > now}
        self._due[name] = due


def microseconds(seconds: float) -> int:
    return round(seconds * 1_000_000)


def acquire(due: int, now: int, *, interval: int, ahead: int) -> tuple[int, Slot]:
    """The next slot, if it comes within `ahead`; else none is taken."""
    wait = _wait(due, now, interval, ahead)
    if wait > ahead:
        return due, Slot(False, wait - ahead)
    return now + wait + interval, Slot(True, wait)


def cancel(due: int, now: int, *, interval: int, ahead: int) -> int:
    """A slot was not used: all later ones come one interval earlier."""
    wait = _wait(due, now, interval, ahead)
    return now + max(0, wait - interval)


def _wait(due: int, now: int, interval: int, ahead: int) -> int:
    wait = max(0, due - now)
    # No slot is ever granted that far ahead: the clock was set back, or the rate was raised.
    return wait if wait <= ahead + interval else 0
