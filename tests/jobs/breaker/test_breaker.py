"""The shared breaker on a real Valkey: many workers, one circuit."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import time
from multiprocessing.synchronize import Barrier
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from app.kit import redis_fallback
from app.vocabulary.states import CircuitState
from jobs.breaker.breaker import Breaker
from jobs.breaker.rules import BreakerPolicy, Circuit, Permit, Permits, Rejected, Verdict
from tests.jobs.breaker.support import (
    NAME,
    PATIENT,
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

HELD = msgspec.structs.replace(POLICY, permit=60.0)
"""Circuits open for a moment, and whoever has a permit keeps it."""


async def test_failures_of_two_workers_open_one_circuit_and_one_of_them_is_told(redis: Redis) -> None:
    here, there = make(redis, PATIENT), make(redis, PATIENT)
    told = [await fail(breaker, await granted(breaker)) for breaker in (here, there, here, there)]
    assert [transition is not None for transition in told] == [False, False, False, True]
    refusal = await acquire(here, NAME)
    assert isinstance(refusal, Rejected)
    assert refusal.state is CircuitState.OPEN
    assert 0 < refusal.retry_after <= PATIENT.open
    view = await there.snapshot(NAME)
    assert (view.state, view.opens, view.shared) == (CircuitState.OPEN, 1, True)
    assert view.opened_at is not None
    assert abs(view.opened_at - time.time()) < 60


async def test_half_open_tells_one_caller_and_grants_exactly_the_probes_to_fifty(redis: Redis) -> None:
    workers = [make(redis, HELD) for _ in range(5)]
    await asyncio.sleep(await trip(workers[0]) + 0.02)
    answers = await asyncio.gather(*(acquire(workers[number % 5], NAME) for number in range(50)))
    permits = [answer for answer in answers if isinstance(answer, Permit)]
    assert len(permits) == POLICY.probes
    assert all(permit.probe for permit in permits)
    assert [permit.transition is not None for permit in permits].count(True) == 1
    assert all(
        0 < answer.retry_after <= HELD.permit and answer.state is CircuitState.HALF_OPEN
        for answer in answers
        if isinstance(answer, Rejected)
    )


async def _scripts_run(redis: Redis) -> int:
    stats: dict[str, dict[str, int]] = await redis.info("commandstats")
    return stats.get("cmdstat_evalsha", {}).get("calls", 0)


async def test_calls_that_begin_or_end_at_one_moment_share_a_script_and_all_of_them_count(redis: Redis) -> None:
    breaker = make(redis, msgspec.structs.replace(POLICY, min_calls=100))
    await granted(breaker)  # loads the script
    before = await _scripts_run(redis)
    permits = await asyncio.gather(*(granted(breaker) for _ in range(40)))
    await succeed(breaker, permits[0])
    assert await asyncio.gather(*(succeed(breaker, permit) for permit in permits[1:30])) == [None] * 29
    await asyncio.gather(*(succeed(breaker, permit, POLICY.slow_call) for permit in permits[30:33]))
    await asyncio.gather(*(fail(breaker, permit) for permit in permits[33:]))
    ran = await _scripts_run(redis) - before
    view = await breaker.snapshot(NAME)
    assert (view.calls, view.failures, view.slow) == (40, 7, 3)
    assert ran <= 1 + 2 + 1 + 3 + 7, "one for all that begin, and one for all that end well and quickly"


async def test_shared_circuits_count_the_calls_of_each_tenant_that_end_at_one_moment(redis: Redis) -> None:
    breaker = make(redis, msgspec.structs.replace(POLICY, min_calls=100))
    asked = [breaker.acquire([Circuit(NAME, tenant), Circuit(f"connection:{tenant}")]) for tenant in (1, 2, 2, 1, 2)]
    permits = [answer for answer in await asyncio.gather(*asked) if isinstance(answer, Permits)]
    assert len(permits) == 5
    await asyncio.gather(*(breaker.report([(permit, Verdict.OK) for permit in each.permits], 0.01) for each in permits))
    views = [await breaker.snapshot(name) for name in (NAME, "connection:1", "connection:2")]
    assert [view.calls for view in views] == [5, 2, 3]


async def test_a_script_that_redis_lost_is_sent_along_for_all_that_ask(redis: Redis) -> None:
    breaker = make(redis)
    await granted(breaker)
    await redis.script_flush()
    permits = await asyncio.gather(*(granted(breaker) for _ in range(10)))
    assert all(permit.shared for permit in permits)
    await redis.script_flush()
    await asyncio.gather(*(succeed(breaker, permit) for permit in permits))
    assert (await breaker.snapshot(NAME)).calls == 10


async def test_enough_successful_probes_close_and_one_failed_opens_for_twice_as_long(redis: Redis) -> None:
    breaker = make(redis, HELD)
    first = await trip(breaker)
    again = await fail(breaker, await until_half_open(breaker))
    assert again is not None
    assert (again.before, again.after, again.opens) == (CircuitState.HALF_OPEN, CircuitState.OPEN, 2)
    assert again.retry_after == pytest.approx(2 * first)
    told = [await succeed(breaker, await until_half_open(breaker))]
    told += [await succeed(breaker, await granted(breaker)) for _ in range(2)]
    assert told[:2] == [None, None]
    assert told[2] is not None
    assert told[2].after is CircuitState.CLOSED
    assert not (await granted(breaker)).probe


async def test_slow_calls_open_though_each_succeeds(redis: Redis) -> None:
    breaker = make(redis, HELD)
    told = [await succeed(breaker, await granted(breaker), 2.5) for _ in range(4)]
    assert told[3] is not None
    assert told[3].after is CircuitState.OPEN


async def test_called_off_probes_count_as_nothing(redis: Redis) -> None:
    breaker = make(redis, HELD)
    await trip(breaker)
    await cancel(breaker, await until_half_open(breaker))
    for _ in range(10):
        await cancel(breaker, await granted(breaker))
    assert (await breaker.snapshot(NAME)).state is CircuitState.HALF_OPEN


async def test_slow_call_from_before_the_opening_is_no_probe(redis: Redis) -> None:
    breaker = make(redis, HELD)
    late = [await granted(breaker) for _ in range(4)]
    await trip(breaker)
    await until_half_open(breaker)
    for permit in late[:3]:
        assert await succeed(breaker, permit, 0.4) is None
    assert await fail(breaker, late[3], 0.4) is None
    assert (await breaker.snapshot(NAME)).state is CircuitState.HALF_OPEN


async def test_two_circuits_are_passed_together_or_not_at_all(redis: Redis) -> None:
    breaker = make(redis, HELD)
    connection = "connection:7"
    both = await acquire_all(breaker, NAME, connection)
    assert isinstance(both, Permits)
    assert [permit.name for permit in both.permits] == [NAME, connection]

    await asyncio.sleep(await trip(breaker) + 0.02)
    await breaker.force(connection, CircuitState.OPEN, seconds=30)
    for _ in range(5):
        refusal = await acquire_all(breaker, NAME, connection)
        assert isinstance(refusal, Rejected)
        assert refusal.name == connection
        assert 29 < refusal.retry_after <= 30
    assert (await breaker.snapshot(NAME)).state is CircuitState.OPEN, "no call was made, so it is as it was"
    permits = [await acquire(breaker, NAME) for _ in range(3)]
    assert [isinstance(permit, Permit) for permit in permits] == [True, True, False]
    assert permits[0].transition is not None  # type: ignore[union-attr]
    assert isinstance(await acquire_all(breaker, connection, NAME), Rejected)


async def test_one_report_tells_each_circuit_its_own(redis: Redis) -> None:
    breaker = make(redis)
    connection = "connection:7"
    for number in range(4):
        both = await acquire_all(breaker, NAME, connection)
        assert isinstance(both, Permits)
        crm, own = both.permits
        verdicts = [(crm, Verdict.OK), (own, Verdict.FAILED)]
        told = await breaker.report(verdicts, 0.01)
        assert told[0] is None
        assert (told[1] is not None) == (number == 3)
    assert (await breaker.snapshot(connection)).state is CircuitState.OPEN
    view = await breaker.snapshot(NAME)
    assert (view.state, view.calls, view.failures) == (CircuitState.CLOSED, 4, 0)
    # What says nothing about a circuit is not counted there.
    both = await acquire_all(breaker, NAME, "connection:8")
    assert isinstance(both, Permits)
    await breaker.report([(both.permits[0], Verdict.FAILED), (both.permits[1], Verdict.VOID)], 0.01)
    assert (await breaker.snapshot("connection:8")).calls == 0
    assert (await breaker.snapshot(NAME)).failures == 1


async def test_a_call_costs_two_questions_to_redis(redis: Redis) -> None:
    """One before it and one after it, whatever it says to the two circuits that it goes through."""
    breaker = make(redis)
    await breaker.report([], 0.0)

    async def evaluated() -> int:
        stats = await redis.info("commandstats")
        return sum(int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("evalsha", "eval"))

    async def call() -> None:
        both = await acquire_all(breaker, NAME, "connection:7")
        assert isinstance(both, Permits)
        await breaker.report([(permit, Verdict.OK) for permit in both.permits], 0.01)

    await call()  # loads the scripts
    before = await evaluated()
    for _ in range(10):
        await call()
    assert await evaluated() - before == 20


async def test_forced_states_reach_every_worker(redis: Redis) -> None:
    here, there = make(redis, HELD), make(redis, HELD)
    opened = await here.force(NAME, CircuitState.OPEN)
    assert opened is not None
    assert opened.retry_after == POLICY.open_cap
    assert isinstance(await acquire(there, NAME), Rejected)
    assert await here.force(NAME, CircuitState.OPEN) is None, "it was open already"
    await there.force(NAME, CircuitState.CLOSED)
    assert not (await granted(here)).probe


async def test_idle_circuit_vanishes_and_is_one_hash(redis: Redis) -> None:
    breaker = make(redis, BreakerPolicy(window=0.1, open_cap=0.1, permit=0.1, open=0.1, min_calls=2))
    await fail(breaker, await granted(breaker))
    assert await redis.keys("*") == [f"tranche:breaker:2:{NAME}".encode()]
    assert await redis.type(f"tranche:breaker:2:{NAME}") == b"hash"
    await asyncio.sleep(0.3)
    assert await redis.keys("*") == []


async def test_clients_that_decode_are_served_as_well(valkey: Valkey, redis: Redis) -> None:
    async with Redis.from_url(valkey.url, decode_responses=True) as decoding:
        breaker = make(decoding, PATIENT)
        await trip(breaker)
        assert isinstance(await acquire(breaker, NAME), Rejected)
        assert breaker.away is None


async def test_lost_scripts_are_loaded_again(redis: Redis) -> None:
    breaker = make(redis)
    await granted(breaker)
    await redis.script_flush()
    await granted(breaker)
    assert breaker.away is None


async def test_flushall_closes_and_old_permits_are_harmless(redis: Redis) -> None:
    breaker = make(redis, HELD)
    await trip(breaker)
    old = await until_half_open(breaker)
    await redis.flushall()
    assert not (await granted(breaker)).probe
    for _ in range(10):
        assert await fail(breaker, old) is None
        await cancel(breaker, old)
    assert (await breaker.snapshot(NAME)).state is CircuitState.CLOSED
    await trip(breaker)
    await until_half_open(breaker)
    assert await fail(breaker, old) is None
    assert (await breaker.snapshot(NAME)).state is CircuitState.HALF_OPEN


# -- a circuit that tenants share --------------------------------------------------------------------------


async def call_as(breaker: Breaker, tenant: int, *, well: bool = False) -> Permit | Rejected:
    answer = await acquire(breaker, Circuit(NAME, tenant))
    if isinstance(answer, Permit):
        await (succeed if well else fail)(breaker, answer)
    return answer


async def test_no_tenant_alone_opens_a_shared_circuit_or_keeps_it_open(redis: Redis) -> None:
    breaker = make(redis)
    for _ in range(100):
        assert isinstance(await call_as(breaker, 1), Permit)
    for _ in range(4):
        assert isinstance(await call_as(breaker, 2, well=True), Permit)
    # What two of them meet holds up everybody, also who comes for the first time.
    for _ in range(20):
        for tenant in (3, 4):
            await call_as(breaker, tenant)
    assert (await breaker.snapshot(NAME)).state is CircuitState.OPEN
    assert isinstance(await call_as(breaker, 5), Rejected)
    # One who goes on failing cannot keep it from closing for the others.
    await asyncio.sleep(POLICY.open + 0.05)
    for _ in range(POLICY.successes):
        await call_as(breaker, 1)
        assert isinstance(await call_as(breaker, 1), Rejected)
        assert isinstance(await call_as(breaker, 5, well=True), Permit)
    assert (await breaker.snapshot(NAME)).state is CircuitState.CLOSED
    assert breaker.away is None


async def test_a_worker_of_the_release_before_does_not_misread_a_circuit(redis: Redis) -> None:
    """Its keys are others."""
    await redis.hset(f"tranche:breaker:{NAME}", mapping={"state": "open", "permit:1": "17"})  # type: ignore[misc]
    assert isinstance(await call_as(make(redis), 1), Permit)


# -- two processes -----------------------------------------------------------------------------------------


def probe_for_a_while(url: str, together: Barrier, found: multiprocessing.Queue[Any]) -> None:
    """A worker process: eight tasks that probe as fast as they may; reports when each probe was in flight."""

    redis_fallback.REDIS_TIMEOUT = 30.0  # type: ignore[misc]

    async def work() -> None:
        async with Redis.from_url(url) as client:
            breaker = make(client, BreakerPolicy(open=0.1, probes=2, successes=1_000, permit=30.0))
            flights: list[tuple[float, float]] = []
            together.wait(60)
            end = time.time() + 1.0

            async def knock() -> None:
                while time.time() < end or not flights:
                    answer = await acquire(breaker, NAME)
                    if isinstance(answer, Rejected):
                        await asyncio.sleep(0.003)
                        continue
                    assert answer.probe
                    taken = time.time()
                    await asyncio.sleep(0.02)
                    flights.append((taken, time.time()))
                    await succeed(breaker, answer, 0.02)

            await asyncio.gather(*(knock() for _ in range(8)))
            found.put((flights, breaker.away))

    asyncio.run(work())


def take_a_permit_and_die(url: str) -> None:
    async def work() -> None:
        async with Redis.from_url(url) as client:
            await until_half_open(make(client))
            signal.raise_signal(signal.SIGKILL)

    asyncio.run(work())


async def test_two_processes_together_let_only_the_probes_through(valkey: Valkey, redis: Redis) -> None:
    await make(redis).force(NAME, CircuitState.OPEN, seconds=0.01)
    spawn = multiprocessing.get_context("spawn")
    found: multiprocessing.Queue[Any] = spawn.Queue()
    together = spawn.Barrier(2)
    workers = [spawn.Process(target=probe_for_a_while, args=(valkey.url, together, found)) for _ in range(2)]
    for worker in workers:
        worker.start()
    results = [await asyncio.to_thread(found.get, True, 90) for _ in workers]
    for worker in workers:
        await asyncio.to_thread(worker.join, 60)
        assert worker.exitcode == 0
    assert [away for _, away in results] == [None, None]
    assert all(flights for flights, _ in results), "both processes had their turn"
    edges = [(at, 1) for flights, _ in results for at, _ in flights]
    edges += [(at, -1) for flights, _ in results for _, at in flights]
    in_flight = most = 0
    for _, step in sorted(edges):
        in_flight += step
        most = max(most, in_flight)
    assert most == 2


async def test_permit_of_a_killed_prober_expires(valkey: Valkey, redis: Redis) -> None:
    breaker = make(redis)
    await trip(breaker)
    victim = multiprocessing.get_context("spawn").Process(target=take_a_permit_and_die, args=(valkey.url,))
    victim.start()
    await asyncio.to_thread(victim.join, 60)
    assert victim.exitcode == -signal.SIGKILL
    killed = time.monotonic()
    assert (await breaker.snapshot(NAME)).state is CircuitState.HALF_OPEN
    held = await redis.hkeys(f"tranche:breaker:2:{NAME}")  # type: ignore[misc]
    assert b"permit:1" in held, "the dead process still holds it"
    await granted(breaker)
    permit = await until_half_open(breaker)
    assert time.monotonic() - killed < 20, "as long as an expired permit may be held by no policy"
    assert permit.transition is None, "still the same half-open circuit"
