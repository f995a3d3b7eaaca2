"""The breaker while Redis is away: each process judges its own calls, and nobody waits for a dead server."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from app.kit import redis_fallback
from app.kit.redis_fallback import REDIS_TIMEOUT
from app.vocabulary.states import CircuitState
from jobs.breaker.breaker import Breaker
from jobs.breaker.rules import BreakerPolicy, Circuit, LocalCircuit, Permit, Permits, Rejected, Verdict
from tests.jobs.breaker.support import (
    NAME,
    POLICY,
    Valkey,
    acquire,
    acquire_all,
    cancel,
    fail,
    granted,
    make,
    succeed,
    trip,
    until_half_open,
)
from tests.stopwatch import stopwatch


class Local:
    """A local circuit and its clock."""

    def __init__(self, policy: BreakerPolicy = POLICY) -> None:
        self.circuit = LocalCircuit(NAME, policy)
        self.now = 1_700_000_000.0

    def end(self, permit: Permit, verdict: Verdict = Verdict.OK, jitter: float = 0.0) -> CircuitState | None:
        change = self.circuit.report(permit.generation, verdict, self.now, jitter)
        return None if change is None else change.after

    def call(self, verdict: Verdict = Verdict.OK) -> CircuitState | None:
        assert not self.circuit.wait(self.now)
        return self.end(self.circuit.acquire(self.now), verdict)

    def trip(self) -> None:
        while self.call(Verdict.FAILED) is not CircuitState.OPEN:
            pass

    def half_open(self) -> Permit:
        self.trip()
        self.now += self.circuit.wait(self.now)
        return self.circuit.acquire(self.now)


def test_as_many_failures_in_a_row_as_calls_are_needed_open_it() -> None:
    local = Local()
    verdicts = [Verdict.FAILED] * 3 + [Verdict.OK] + [Verdict.FAILED] * 4
    assert [local.call(verdict) for verdict in verdicts] == [None] * 7 + [CircuitState.OPEN]
    assert local.circuit.wait(local.now) == pytest.approx(POLICY.open)


def test_one_probe_at_a_time_and_its_success_closes() -> None:
    local = Local()
    probe = local.half_open()
    assert probe.probe
    assert probe.transition is not None
    assert local.circuit.wait(local.now) > 0
    assert local.end(probe) is CircuitState.CLOSED
    assert not local.circuit.acquire(local.now).probe


def test_each_failed_probe_doubles_the_opening_time_up_to_its_cap() -> None:
    local = Local(BreakerPolicy(min_calls=1, open=5.0, open_cap=30.0))
    probe, times = local.half_open(), []
    for _ in range(4):
        local.end(probe, Verdict.FAILED)
        times.append(local.circuit.wait(local.now))
        local.now += times[-1]
        probe = local.circuit.acquire(local.now)
    assert times == pytest.approx([10, 20, 30, 30])


def test_the_permit_of_a_probe_without_an_end_expires_and_its_late_success_closes_nothing() -> None:
    local = Local()
    late = local.half_open()
    local.now += POLICY.permit
    assert local.circuit.wait(local.now) == 0
    probe = local.circuit.acquire(local.now)
    assert local.end(late) is None
    assert local.end(probe) is CircuitState.CLOSED


def test_a_canceled_probe_makes_room_for_the_next() -> None:
    local = Local()
    local.end(local.half_open(), Verdict.VOID)
    assert local.circuit.wait(local.now) == 0
    assert local.circuit.state is CircuitState.HALF_OPEN


def test_a_call_from_before_the_opening_is_no_probe() -> None:
    local = Local()
    late = local.circuit.acquire(local.now)
    probe = local.half_open()
    assert local.end(late) is None
    assert local.end(late, Verdict.FAILED) is None
    assert local.circuit.state is CircuitState.HALF_OPEN
    assert local.end(probe) is CircuitState.CLOSED


def test_a_clock_set_back_does_not_hold_it_open() -> None:
    local = Local()
    local.trip()
    local.now -= 3_600
    assert local.circuit.wait(local.now) == 0


@given(
    st.lists(
        st.tuples(st.sampled_from(["acquire", "ok", "failed", "void", "wait", "die"]), st.floats(0, 20)), max_size=80
    )
)
def test_any_history_leaves_it_usable_after_the_longest_time(history: list[tuple[str, float]]) -> None:
    local, held = Local(), []
    for step, amount in history:
        if step == "wait":
            local.now += amount
        elif step == "acquire":
            if not local.circuit.wait(local.now):
                held.append(local.circuit.acquire(local.now))
        elif held:
            permit = held.pop(int(amount) % len(held))
            if step != "die":
                local.end(permit, Verdict(step), amount / 21)
        assert local.circuit.wait(local.now) <= POLICY.open_cap
    local.now += POLICY.open_cap
    assert local.circuit.wait(local.now) == 0


async def test_without_redis_failures_of_tenants_who_share_a_circuit_hold_nobody_back() -> None:
    """Their own circuits open, each for its tenant."""
    breaker = make(None)
    for tenant in (1, 2, 3):
        own = f"connection:{tenant}"
        for _ in range(POLICY.min_calls):
            both = await acquire_all(breaker, Circuit(NAME, tenant), own)
            assert isinstance(both, Permits)
            await breaker.report([(permit, Verdict.FAILED) for permit in both.permits], 0.01)
        rejected = await acquire_all(breaker, Circuit(NAME, tenant), own)
        assert isinstance(rejected, Rejected)
        assert rejected.name == own
    assert isinstance(await acquire(breaker, Circuit(NAME, 4)), Permit)
    assert isinstance(await acquire(breaker, "connection:4"), Permit)


async def until_shared(breaker: Breaker, name: str) -> None:
    """A worker asks Redis again after a second."""
    async with asyncio.timeout(45):
        while not (await granted(breaker, name)).shared:
            await asyncio.sleep(0.1)


async def test_redis_killed_and_back(own_valkey: Valkey, own_redis: Redis) -> None:
    breaker = make(own_redis)
    await trip(breaker, "first")
    assert breaker.away is None
    operator = make(own_redis)
    await operator.force(NAME, CircuitState.OPEN, seconds=20)
    await operator.force("host:other", CircuitState.OPEN, seconds=20)
    assert isinstance(await acquire(breaker, NAME), Rejected)
    assert isinstance(await acquire(breaker, Circuit("host:other", 7)), Rejected)
    shared = await granted(breaker, "other")

    own_valkey.kill()
    async with stopwatch() as passed:
        assert await fail(breaker, shared) is None
        for circuit in (NAME, Circuit("host:other", 7), Circuit("host:other", 8)):
            rejected = await acquire(breaker, circuit)
            assert isinstance(rejected, Rejected), "a circuit known to be open stays open"
            assert 0 < rejected.retry_after <= 20
        assert await trip(breaker, "second") == pytest.approx(0.3)
        await cancel(breaker, await until_half_open(breaker, "second"))
        closed = await succeed(breaker, await until_half_open(breaker, "second"))
        assert closed is not None
        assert closed.after is CircuitState.CLOSED
    assert passed.seconds < 2
    assert breaker.away is not None
    assert not (await breaker.snapshot("second")).shared

    own_valkey.start()
    await until_shared(breaker, "second")
    assert breaker.away is None
    await trip(breaker, "third")
    assert (await breaker.snapshot("third")).shared


async def test_hanging_redis_costs_one_caller_a_second_its_timeout(
    own_valkey: Valkey, own_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaker = make(own_redis)
    await granted(breaker)
    monkeypatch.setattr(redis_fallback, "REDIS_TIMEOUT", REDIS_TIMEOUT)
    own_valkey.send(signal.SIGSTOP)
    try:
        began = time.monotonic()
        async with stopwatch() as passed:
            await granted(breaker)
        assert time.monotonic() - began > 0.2
        assert passed.seconds < 1
        async with stopwatch() as passed:
            await asyncio.gather(*(granted(breaker) for _ in range(200)))
        assert passed.seconds < 0.2
    finally:
        own_valkey.send(signal.SIGCONT)
    await until_shared(breaker, NAME)


async def test_redis_that_refuses_writes_is_as_good_as_away(own_redis: Redis) -> None:
    breaker = make(own_redis)
    await own_redis.replicaof("127.0.0.1", "1")
    assert await trip(breaker) > 0
    assert breaker.away is not None
    await own_redis.replicaof("NO", "ONE")
