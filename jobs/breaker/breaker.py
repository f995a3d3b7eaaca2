"""The circuit breaker that all workers share: one Redis hash a circuit, one Lua script a transition.

Redis is the breaker's memory, never a condition of work: while it is away each process judges its own calls by a
simpler rule (`LocalCircuit`), and a dead Redis costs at most one call a second its timeout. Nothing here raises.
"""

import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from redis.asyncio import Redis

from app.kit.redis_fallback import RedisFallback
from app.vocabulary.states import CircuitState
from jobs.breaker.rules import BreakerPolicy, Circuit, Permit, Permits, Rejected, Snapshot, Transition, Verdict
from jobs.breaker.stores import MemoryStore, RedisStore

PREFIX: Final = "tranche:breaker:2:"
"""The prefix of the keys in Redis. Its number grows when what is stored under them changes: then workers of two
releases do not misread each other's circuits, and each release has its own for that while."""

_T = TypeVar("_T")


class Breaker:
    """Circuits by name, e.g. one for a CRM's host and one for a tenant's connection.

    Args:
        redis: any client; with its own retries off a failure is noticed fastest. `None`: this process alone.
        clock: seconds since the epoch, for the rule of this process (shared circuits go by Redis `TIME`).
        rng: random in [0, 1), spreads opening times.
        pinned_time: milliseconds that replace Redis `TIME`; for tests of the rules.
    """

    def __init__(
        self,
        redis: Redis | None,
        policy: BreakerPolicy,
        *,
        clock: Callable[[], float] = time.time,
        rng: Callable[[], float] = random.random,
        prefix: str = PREFIX,
        pinned_time: Callable[[], int] | None = None,
    ) -> None:
        self._policy = policy
        self._memory = MemoryStore(policy, clock, rng)
        self._fallback = RedisFallback(clock, "no Redis configured" if redis is None else None, part="breaker")
        self._redis = None if redis is None else RedisStore(redis, policy, prefix, rng, pinned_time)

    @property
    def first_open(self) -> float:
        """Seconds that a circuit stays open the first time."""
        return self._policy.open

    @property
    def away(self) -> str | None:
        """Why this process decides alone at present; `None` while the circuits are shared."""
        return self._fallback.away

    async def _ask(self, request: Callable[[RedisStore], Awaitable[_T]]) -> tuple[_T] | None:
        store = self._redis
        return None if store is None else await self._fallback.ask(lambda: request(store))

    async def acquire(self, circuits: Sequence[Circuit]) -> Permits | Rejected:
        """A permit of every circuit or of none: where one rejects, the others remain as they were."""
        answer = await self._ask(lambda store: store.acquire(circuits))
        if answer is None:
            return self._memory.acquire(circuits)
        (found,) = answer
        if isinstance(found, Rejected):
            self._memory.restore(found.name, found.retry_after)
            return found
        for permit in found.permits:
            if permit.probe:
                self._memory.restore(permit.name, 0.0)
            else:
                self._memory.forget(permit.name)
        return found

    async def report(self, verdicts: Sequence[tuple[Permit, Verdict]], seconds: float) -> list[Transition | None]:
        """What a call of `seconds` says about every circuit that it passed, in one message; a transition for each.

        The permits are those of one `acquire`. Canceling an ordinary call is no news, and not reported.
        """
        news = [(p, verdict) for p, verdict in verdicts if p.probe or verdict is not Verdict.VOID]
        found = await self._report(news, seconds) if news else []
        changes = {permit.name: change for (permit, _), change in zip(news, found, strict=True)}
        return [changes.get(permit.name) for permit, _ in verdicts]

    async def _report(self, reports: Sequence[tuple[Permit, Verdict]], seconds: float) -> list[Transition | None]:
        if not reports[0][0].shared:
            return self._memory.report(reports)
        # A report that Redis cannot take is dropped: in the memory of this process it would be counted
        # in a generation that it does not belong to.
        answer = await self._ask(lambda store: store.report(reports, seconds))
        changes: list[Transition | None] = [None] * len(reports) if answer is None else answer[0]
        for change in changes:
            if change is not None and change.after is CircuitState.OPEN:
                self._memory.restore(change.name, change.retry_after)
            elif change is not None:
                self._memory.forget(change.name)
        return changes

    async def snapshot(self, name: str) -> Snapshot:
        """The circuit's present state; reading never changes it."""
        found = await self._ask(lambda store: store.snapshot(name))
        return self._memory.snapshot(name) if found is None else found[0]

    async def settle(self, name: str) -> Transition | None:
        """Nothing waits for this circuit any more: it closes if it is half-open and its probes succeeded.

        Without Redis the first success has closed it.
        """
        found = await self._ask(lambda store: store.settle(name))
        if found is not None and found[0] is not None:
            self._memory.forget(name)
        return None if found is None else found[0]

    async def force(self, name: str, state: CircuitState, *, seconds: float | None = None) -> Transition | None:
        """Set a circuit's state; open lasts `seconds` (default: the longest opening time).

        While Redis is away this reaches the present process only: see `away`.
        """
        duration = self._policy.open_cap if seconds is None else seconds
        found = await self._ask(lambda store: store.force(name, state, duration))
        local = self._memory.force(name, state, duration)
        return local if found is None else found[0]
