"""The outbound rate: one for all workers, the same rule in Redis and in this process."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from app.settings import Settings
from jobs.delivery import rate_limiter as rules
from jobs.delivery.rate_limiter import AHEAD, RateLimiter
from jobs.worker import working
from tests.jobs.conftest import World, people

T = TypeVar("T")


async def acquire_slots(limiter: RateLimiter, rate: float, count: int) -> list[float]:
    """When the slots came, in seconds from the first question."""
    began, slots = time.monotonic(), []

    async def one() -> None:
        while not (slot := await limiter.acquire("d", rate)).granted:
            await asyncio.sleep(slot.seconds)
        await asyncio.sleep(slot.seconds)
        slots.append(time.monotonic() - began)

    await asyncio.gather(*(one() for _ in range(count)))
    return sorted(slots)


async def test_two_workers_keep_one_rate(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as one, Redis.from_url(redis_url) as other:
        here, there = RateLimiter(one, clock=time.time), RateLimiter(other, clock=time.time)
        first, second = await asyncio.gather(acquire_slots(here, 20, 15), acquire_slots(there, 20, 15))
    slots = sorted(first + second)
    assert slots[-1] == pytest.approx(29 / 20, abs=0.3), "thirty calls at twenty a second"
    for at in slots:
        assert len([slot for slot in slots if at <= slot < at + 0.5]) <= 10 + 3, "and never many at once"


async def test_without_redis_a_worker_keeps_it_alone() -> None:
    slots = await acquire_slots(RateLimiter(None, clock=time.time), 20, 15)
    assert slots[-1] == pytest.approx(14 / 20, abs=0.2)


async def test_a_slot_far_ahead_is_not_taken(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis:
        limiter = RateLimiter(redis, clock=time.time)
        assert (await limiter.acquire("d", 0.1)).wait == 0
        for _ in range(5):
            slot = await limiter.acquire("d", 0.1)
            assert not slot.granted
            assert slot.seconds == pytest.approx(10 - AHEAD, abs=0.3), "asking again costs nothing"
        assert (await limiter.acquire("other", 0.1)).granted, "each destination has its own"
        await limiter.cancel("d", 0.1)
        assert (await limiter.acquire("d", 0.1)).granted, "a slot that was given back is there again"


async def test_the_crm_sees_no_more_calls_than_its_destination_allows(world: World) -> None:
    """Pushes and the read-backs of lost answers together, from two workers."""
    await world.rows('UPDATE destinations SET options = \'{"rate": 10, "batch_size": 10}\'')
    await world.sandbox.misbehave(accept_then_drop={"times": 3})
    async with working(world.settings), working(world.settings):
        jobs = [await world.push(people(30, start=30 * n)) for n in range(4)]
        for job in jobs:
            assert await world.finished(job.job_id) == "completed"
    calls = await world.sandbox.calls()
    assert len(calls) >= 12 + 3
    assert {call["on"] for call in calls} == {"read", "write"}
    at = sorted(_seconds(call["at"]) for call in calls)
    assert (len(at) - 1) / (at[-1] - at[0]) <= 10 * 1.15
    for begin in at:
        assert len([moment for moment in at if begin <= moment < begin + 1]) <= 13
    (spent,) = await world.rows("SELECT max(attempt) AS most FROM deliveries")
    assert spent["most"] <= 3, "waiting for a slot costs no attempt"


async def test_a_long_wait_is_said_and_spends_no_attempt(world: World) -> None:
    await world.rows("UPDATE destinations SET options = '{\"rate\": 0.25}'")
    async with working(world.settings):
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
    assert _seconds(calls[1]["at"]) - _seconds(calls[0]["at"]) > 3.9


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


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    database=None,
)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["acquire", "acquire", "acquire", "cancel", "wait", "back"]),
            st.integers(0, 1_500_000),
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
