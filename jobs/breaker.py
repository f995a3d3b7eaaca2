"""The circuit breaker that all workers share: one Redis hash a circuit, one Lua script a transition.

Redis is the breaker's memory, never a condition of work: while it is away the same rules run in this process
(`app.domain.breaker`), and a dead Redis costs at most one call a second its timeout. Nothing here raises.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from redis.exceptions import RedisError

from app.domain.breaker import Admission, BreakerPolicy, Change, CircuitState, milliseconds
from jobs.circuits import LocalCircuits, SharedCircuits

if TYPE_CHECKING:
    from redis.asyncio import Redis

REDIS_TIMEOUT: Final = 0.25
"""Seconds that one question to Redis may take, connecting included."""
REDIS_PAUSE: Final = 1.0
"""Seconds without a question after one failed."""

_T = TypeVar("_T")


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    """A circuit changed its state; told once, to the caller whose call did it."""

    name: str
    before: CircuitState
    after: CircuitState
    opens: int
    """Openings in a row, this one included."""
    retry_after: float
    """Seconds that it stays open; 0 unless `after` is open."""


class Permit(msgspec.Struct, frozen=True, kw_only=True):
    """Leave to make one call; to be handed to exactly one of `succeed`, `fail` and `cancel`."""

    name: str
    generation: int
    token: int
    """The number of a probe; 0 for an ordinary call."""
    shared: bool
    """Given by Redis, not by this process alone."""
    transition: Transition | None = None
    """Set when this very admission took the circuit to half-open."""

    @property
    def probe(self) -> bool:
        return self.token > 0


class Permits(msgspec.Struct, frozen=True, kw_only=True):
    """Leave of every circuit that was asked, in the order asked."""

    permits: tuple[Permit, ...]

    @property
    def transitions(self) -> tuple[Transition, ...]:
        return tuple(permit.transition for permit in self.permits if permit.transition)


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """No call now: `name` is open, or half-open with every probe under way."""

    name: str
    state: CircuitState
    retry_after: float
    """Seconds, more than 0."""
    transitions: tuple[Transition, ...] = ()
    """What `admit_all` changed at the circuits before the refusing one."""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """A circuit for health and status. An open one with `retry_after` 0 lets the next call probe."""

    name: str
    state: CircuitState
    retry_after: float
    calls: int
    failures: int
    slow: int
    opened_at: float | None
    """Unix time of the latest opening; `None` while closed."""
    opens: int
    shared: bool
    """Seen in Redis; else it is the memory of this process alone."""


class Breaker:
    """Circuits by name, e.g. one for a CRM's host and one for a tenant's connection.

    Args:
        redis: any client; with its own retries off a failure is noticed fastest. `None`: this process alone.
        clock: seconds since the epoch, for the rules in this process (shared circuits go by Redis `TIME`).
        rng: random in [0, 1), spreads opening times.
        pinned_time: milliseconds that replace Redis `TIME`; for tests that compare histories.
    """

    def __init__(
        self,
        redis: Redis | None,
        policy: BreakerPolicy,
        *,
        clock: Callable[[], float],
        rng: Callable[[], float],
        prefix: str = "tranche:breaker:",
        pinned_time: Callable[[], int] | None = None,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._rng = rng
        self._memory = LocalCircuits(policy, lambda: milliseconds(clock()))
        self._shared = SharedCircuits(redis, policy, prefix, pinned_time) if redis is not None else None
        self._away_since: float | None = None
        self.away: str | None = None if redis is not None else "no Redis configured"
        """Why this process decides alone at present; `None` while the circuits are shared."""

    async def admit(self, name: str) -> Permit | Refused:
        """May a call go out through circuit `name`?"""
        told = await self._ask(lambda shared: shared.admit(name))
        if told is None:
            return _answer(name, self._memory.admit(name), shared=False)
        self._memory.follow(name, told.state, told.opens, told.retry)
        return _answer(name, told, shared=True)

    async def admit_all(self, names: Iterable[str]) -> Permits | Refused:
        """Leave of every circuit or of none: a refusal gives the permits before it back.

        One script a circuit, in order, rather than one over all: so the keys may live on different nodes of a
        Redis Cluster. Between two circuits a probe's permit may be held for a moment and given back; it is
        never lost, and it expires by itself if this process dies just then.
        """
        permits: list[Permit] = []
        try:
            for name in names:
                answer = await self.admit(name)
                if isinstance(answer, Refused):
                    transitions = Permits(permits=tuple(permits)).transitions
                    await self._give_back(permits)
                    return msgspec.structs.replace(answer, transitions=transitions)
                permits.append(answer)
        except asyncio.CancelledError:
            await self._give_back(permits)
            raise
        return Permits(permits=tuple(permits))

    async def succeed(self, permit: Permit, seconds: float) -> Transition | None:
        """The call took `seconds` and the other side did its part (a 4xx and a 429 are its part)."""
        return await self._report(permit, seconds, failed=False)

    async def fail(self, permit: Permit, seconds: float) -> Transition | None:
        """The call took `seconds` and the other side is at fault."""
        return await self._report(permit, seconds, failed=True)

    async def cancel(self, permit: Permit) -> None:
        """The call was called off and says nothing about the other side."""
        if not permit.probe:
            return
        if permit.shared:
            await self._ask(lambda shared: shared.cancel(permit.name, permit.generation, permit.token))
        else:
            self._memory.cancel(permit.name, permit.generation, permit.token)

    async def look(self, name: str) -> View:
        """The circuit as it stands; looking never changes it."""
        seen = await self._ask(lambda shared: shared.look(name))
        sight = self._memory.look(name) if seen is None else seen
        closed = sight.state is CircuitState.CLOSED
        return View(
            name=name,
            state=sight.state,
            retry_after=sight.retry / 1_000,
            calls=sight.calls,
            failures=sight.failures,
            slow=sight.slow,
            opened_at=None if closed else sight.opened_at / 1_000,
            opens=sight.opens,
            shared=seen is not None,
        )

    async def force(
        self, name: str, state: CircuitState, *, seconds: float | None = None
    ) -> Transition | None:
        """Set a circuit's state by hand; open lasts `seconds` (default: the longest opening time).

        While Redis is away this reaches the present process only: `away` tells.
        """
        hold = milliseconds(self._policy.open_cap if seconds is None else seconds)
        told = await self._ask(lambda shared: shared.force(name, state, hold))
        change = self._memory.force(name, state, hold)
        return _transition(name, told.change if told else change)

    async def _report(self, permit: Permit, seconds: float, *, failed: bool) -> Transition | None:
        name, generation, token = permit.name, permit.generation, permit.token
        took, jitter = milliseconds(seconds), self._rng()
        if not permit.shared:
            change = self._memory.report(name, generation, token, failed, took, jitter)
            return _transition(name, change)
        # A report that Redis cannot take is dropped: told to the memory of this process, it would be counted
        # in a generation that it does not belong to.
        told = await self._ask(lambda shared: shared.report(name, generation, token, failed, took, jitter))
        if told is None or told.change is None:
            return None
        self._memory.follow(name, told.change.after, told.change.opens, told.change.retry)
        return _transition(name, told.change)

    async def _give_back(self, permits: list[Permit]) -> None:
        for permit in reversed(permits):
            await self.cancel(permit)

    async def _ask(self, question: Callable[[SharedCircuits], Awaitable[_T]]) -> _T | None:
        """Redis' answer, or `None` when it is away (then it is left alone for `REDIS_PAUSE`)."""
        if self._shared is None:
            return None
        now = self._clock()
        if self._away_since is not None:
            if 0 <= now - self._away_since < REDIS_PAUSE:
                return None
            self._away_since = now  # this caller tries; the others need not wait for the same timeout
        try:
            async with asyncio.timeout(REDIS_TIMEOUT):
                answer = await question(self._shared)
        except (RedisError, OSError, TimeoutError) as error:
            self._away_since = self._clock()
            self.away = f"{type(error).__name__}: {error}".rstrip(": ")
            return None
        self._away_since = self.away = None
        return answer


def _transition(name: str, change: Change | None) -> Transition | None:
    if change is None:
        return None
    return Transition(
        name=name,
        before=change.before,
        after=change.after,
        opens=change.opens,
        retry_after=change.retry / 1_000,
    )


def _answer(name: str, told: Admission, *, shared: bool) -> Permit | Refused:
    if not told.granted:
        return Refused(name=name, state=told.state, retry_after=told.retry / 1_000)
    transition = None
    if told.changed:
        transition = Transition(
            name=name, before=CircuitState.OPEN, after=told.state, opens=told.opens, retry_after=0.0
        )
    return Permit(
        name=name, generation=told.generation, token=told.token, shared=shared, transition=transition
    )
