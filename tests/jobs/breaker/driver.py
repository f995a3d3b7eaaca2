"""A circuit in Redis at a pinned time, for tests of the rules."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from hypothesis import HealthCheck, settings
from redis.asyncio import Redis

from app.vocabulary.states import CircuitState
from jobs.breaker.rules import BreakerPolicy, Circuit, Permit, Rejected, Snapshot, Transition, Verdict
from jobs.breaker.stores import RedisStore

T = TypeVar("T")
PREFIX = "rules:"
POLICY = BreakerPolicy(
    window=10.0,
    min_calls=4,
    failure_rate=0.5,
    slow_rate=0.75,
    slow_call=2.0,
    open=5.0,
    open_cap=60.0,
    probes=2,
    successes=3,
    permit=15.0,
)
START = 1_700_000_000_000
MOST_WITNESSES = 8
"""As in common.lua."""
on_redis = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)


class Run(Protocol):
    def __call__(self, work: Callable[[Redis], Coroutine[Any, Any, T]]) -> T: ...


class Driver:
    """A circuit in Redis at a pinned time, driven as a worker drives it; milliseconds."""

    def __init__(self, run: Run, policy: BreakerPolicy = POLICY) -> None:
        self.policy = policy
        self.now = START
        self.jitter = 0.0
        self._run = run
        self.name = uuid.uuid4().hex

    def _ask(self, request: Callable[[RedisStore], Awaitable[T]]) -> T:
        async def ask(redis: Redis) -> T:
            return await request(RedisStore(redis, self.policy, PREFIX, lambda: self.jitter, lambda: self.now))

        return self._run(ask)

    def acquire(self, tenant: int = 0) -> Permit | Rejected:
        answer = self._ask(lambda store: store.acquire([Circuit(self.name, tenant)]))
        return answer if isinstance(answer, Rejected) else answer.permits[0]

    def granted(self, tenant: int = 0) -> Permit:
        answer = self.acquire(tenant)
        assert isinstance(answer, Permit), answer
        return answer

    def rejected(self, tenant: int = 0) -> int:
        """Milliseconds to wait."""
        answer = self.acquire(tenant)
        assert isinstance(answer, Rejected), answer
        return round(answer.retry_after * 1_000)

    def wait_for(self, opened: Transition | None) -> None:
        assert opened is not None
        self.now += round(opened.retry_after * 1_000)

    def end(self, permit: Permit, *, failed: bool = False, took: int = 10) -> Transition | None:
        verdict = Verdict.FAILED if failed else Verdict.OK
        return self._ask(lambda store: store.report([(permit, verdict)], took / 1_000))[0]

    def cancel(self, permit: Permit) -> None:
        self._ask(lambda store: store.report([(permit, Verdict.VOID)], 0.0))

    def call(self, *, failed: bool = False, took: int = 10, tenant: int = 0) -> Transition | None:
        return self.end(self.granted(tenant), failed=failed, took=took)

    def force(self, state: CircuitState, seconds: float = 0.0) -> Transition | None:
        return self._ask(lambda store: store.force(self.name, state, seconds))

    def settle(self) -> Transition | None:
        return self._ask(lambda store: store.settle(self.name))

    def trip(self) -> Transition:
        """Fail until it opens."""
        for _ in range(100):
            change = self.call(failed=True)
            if change is not None:
                return change
        raise AssertionError("never opened")

    def stored(self) -> dict[str, str]:
        found = self._run(lambda redis: redis.hgetall(PREFIX + self.name))
        return {field.decode(): value.decode() for field, value in found.items()}

    def store(self, **fields: object) -> None:
        self._run(lambda redis: redis.hset(PREFIX + self.name, mapping=fields))

    def forget(self) -> None:
        self._run(lambda redis: redis.delete(PREFIX + self.name))

    def held(self, kind: str) -> list[int]:
        """The numbers of its probes' permits, or of the tenants that it knows as witnesses."""
        return sorted(int(field.split(":")[1]) for field in self.stored() if field.startswith(f"{kind}:"))

    def snapshot(self) -> Snapshot:
        return self._ask(lambda store: store.snapshot(self.name))

    @property
    def state(self) -> CircuitState:
        return self.snapshot().state
