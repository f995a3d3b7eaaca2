"""The outbound rate: one for all workers, the same rule in Redis and in this process."""

from __future__ import annotations

import asyncio
import heapq
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from app.settings import Settings
from jobs.delivery.limits import rate_limiter as rules
from jobs.delivery.limits.rate_limiter import AHEAD, RateLimiter
from jobs.worker import working
from tests.jobs.conftest import World, people
from tests.stopwatch import stopwatch

T = TypeVar("T")


class Clock:
    """A time that goes on only when everybody waits."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000_000

    def seconds(self) -> float:
        return self.now / 1_000_000

    def microseconds(self) -> int:
        return self.now


async def acquire_slots(clock: Clock, limiters: list[RateLimiter], rate: float, count: int) -> list[float]:
    """When the slots of so many calls come, in seconds from the first question; the limiters take turns."""
    began, slots = clock.now, []
    asking = [(began, number) for number in range(count)]
    while asking:
        clock.now, number = heapq.heappop(asking)
        slot = await limiters[number % len(limiters)].acquire("d", rate)
        if slot.granted:
            slots.append((clock.now - began) / 1_000_000 + slot.seconds)
        else:
            heapq.heappush(asking, (clock.now + slot.wait, number))
    return sorted(slots)


async def test_two_workers_keep_one_rate(redis_url: str) -> None:
    clock = Clock()
    async with Redis.from_url(redis_url) as one, Redis.from_url(redis_url) as other:
        workers = [RateLimiter(redis, clock=clock.seconds, pinned_time=clock.microseconds) for redis in (one, other)]
        slots = await acquire_slots(clock, workers, 20, 30)
    assert slots[-1] == pytest.approx(29 / 20, abs=0.01), "thirty calls at twenty a second"
    for at in slots:
        assert len([slot for slot in slots if at <= slot < at + 0.49]) <= 10, "and never many at once"


async def test_without_redis_a_worker_keeps_it_alone() -> None:
    clock = Clock()
    slots = await acquire_slots(clock, [RateLimiter(None, clock=clock.seconds)], 20, 15)
    assert slots[-1] == pytest.approx(14 / 20, abs=0.01)


async def test_a_slot_far_ahead_is_not_taken(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis:
        clock = Clock()
        limiter = RateLimiter(redis, clock=clock.seconds, pinned_time=clock.microseconds)
        assert (await limiter.acquire("d", 0.1)).wait == 0
        for _ in range(5):
            slot = await limiter.acquire("d", 0.1)
            assert not slot.granted
            assert slot.seconds == pytest.approx(10 - AHEAD), "asking again costs nothing"
        assert (await limiter.acquire("other", 0.1)).granted, "each destination has its own"
        await limiter.cancel("d", 0.1)
        assert (await limiter.acquire("d", 0.1)).granted, "a slot that was given back is there again"


async def test_the_crm_sees_no_more_calls_than_its_destination_allows(world: World) -> None:
    """Pushes and the read-backs of lost answers together, from two workers."""
    await world.rows('UPDATE destinations SET options = \'{"rate": 10, "batch_size": 10}\'')
    await world.sandbox.misbehave(accept_then_drop={"times": 3})
    async with stopwatch() as passed, working(world.settings), working(world.settings):
        jobs = [await world.push(people(30, start=30 * n)) for n in range(4)]
        for job in jobs:
            assert await world.finished(job.job_id) == "completed"
    calls = await world.sandbox.calls()
    assert len(calls) >= 12 + 3
    assert {call["on"] for call in calls} == {"read", "write"}
    at = sorted(_seconds(call["at"]) for call in calls)
    # A call that the machine held up comes closer to the next ones.
    late = passed.late
    assert (len(at) - 1) / (at[-1] - at[0] + late) <= 10 * 1.15
    for begin in at:
        assert len([moment for moment in at if begin <= moment < begin + 1]) <= 13 + 10 * late
    (spent,) = await world.rows("SELECT max(attempt) AS most FROM deliveries")
    assert spent["most"] <= 3, "waiting for a slot costs no attempt"


async def test_a_long_wait_is_said_and_spends_no_attempt(world: World) -> None:
    await world.rows("UPDATE destinations SET options = '{\"rate\": 0.25}'")
    async with stopwatch() as passed, working(world.settings):
        first = await world.push(people(1))
        assert await world.finished(first.job_id) == "completed"
        second = await world.push(people(1, start=1))
        async with asyncio.timeout(60):
            while not (await world.rows("SELECT blocked_code AS code FROM destinations"))[0]["code"]:
                await asyncio.sleep(0.02)
        (row,) = await world.rows(
            "SELECT blocked_code, blocked_detail, blocked_until - now() < interval '4 s' AS soon FROM destinations"
        )
        assert row["blocked_code"] == "DESTINATION_RATE_LIMIT"
        assert "0.25 per second" in row["blocked_detail"]
        assert row["soon"]
        assert await world.finished(second.job_id) == "completed"
    assert [row["attempt"] for row in await world.rows("SELECT attempt FROM deliveries")] == [1, 1]
    calls = await world.sandbox.calls()
    assert _seconds(calls[1]["at"]) - _seconds(calls[0]["at"]) > 3.9 - passed.late


def _seconds(stamp: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(stamp).timestamp()


# -- Lua and Python agree ----------------------------------------------------------------------------------


@pytest.fixture
def run(redis_url: str) -> Iterator[Callable[[Callable[[Redis], Coroutine[Any, Any, T]]], T]]:
    with asyncio.Runner() as runner:
        client = Redis.from_url(redis_url)
        yield lambda work: runner.run(work(client))
        runner.run(client.aclose())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["acquire", "acquire", "acquire", "cancel", "wait", "back"]), st.integers(0, 1_500_000)
        ),
        max_size=40,
    ),
    st.lists(st.sampled_from([0.5, 2.0, 7.0, 333.0]), min_size=1, max_size=2),
)
def test_lua_and_python_agree(
    run: Callable[[Callable[[Redis], Coroutine[Any, Any, None]]], None],
    history: list[tuple[str, int]],
    rates: list[float],
) -> None:
    """The rate may change in between, and the clock may be set back."""

    async def compare(redis: Redis) -> None:
        name, now, due = uuid.uuid4().hex, 1_700_000_000_000_000, 0
        shared = RateLimiter(redis, clock=time.time, pinned_time=lambda: now)
        ahead = rules.microseconds(AHEAD)
        for step, amount in history:
            rate = rates[amount % len(rates)]
            interval = round(1_000_000 / rate)
            if step == "acquire":
                due, slot = rules.acquire(due, now, interval=interval, ahead=ahead)
                assert await shared.acquire(name, rate) == slot
            elif step == "cancel":
                due = rules.cancel(due, now, interval=interval, ahead=ahead)
                await shared.cancel(name, rate)
            else:
                now += amount if step == "wait" else -amount

    run(compare)


def test_settings_default_to_no_rate() -> None:
    assert Settings().crm_rate == 0
