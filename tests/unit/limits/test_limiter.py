"""Limits that processes keep together: one rule in Lua and Python, leases, several processes, and Redis away."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from app import telemetry
from app.embedded import Engines
from app.limits import processes, rules
from app.limits.limiter import Budget, Limiter
from app.limits.policies import Bucket, Scope
from app.limits.rules import FULL, MICROSECONDS, Level, Mode
from app.vocabulary.rate_limits import MOST_QUOTA, Limit

MODES: list[Mode] = ["part", "part", "whole", "debt", "refund"]


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as connected:
        yield connected


def bucket(quota: int, seconds: int, *, scope: Scope = "key", owner: str = "1:a") -> Bucket:
    return Bucket(scope, "items", owner, Limit(quota, seconds))


@pytest.mark.parametrize("seed", range(6))
async def test_lua_and_python_are_one_rule(redis: Redis, seed: int) -> None:
    """Over random histories with pinned times, also ones that jump, and quotas of every size."""
    rng = random.Random(seed)
    quotas = [1, 7, 600, 60_000, 999_983, MOST_QUOTA, MOST_QUOTA - 1]
    buckets = [bucket(rng.choice(quotas), rng.choice([1, 7, 60, 86_399]), owner=f"1:{n}") for n in range(4)]
    now = 1_700_000_000 * MICROSECONDS
    limiter = Limiter(redis, pinned_time=lambda: now)
    levels: dict[str, Level] = {}
    for _ in range(150):
        chosen = tuple(rng.sample(buckets, rng.randint(1, 3)))
        quota = rng.choice(chosen).limit.quota
        tokens = max(1, rng.choice([1, rng.randint(1, 1_000), min(quota, 100_000), quota // 3, quota + 1]))
        mode = rng.choice(MODES)
        made = await limiter._decide(chosen, min(tokens, MOST_QUOTA), mode)
        limits = [one.limit for one in chosen]
        before = [rules.at(levels.get(one.key, FULL), now) for one in chosen]
        taken, after = rules.decide(before, limits, min(tokens, MOST_QUOTA), mode)
        assert (made.taken, list(made.levels)) == (taken, after)
        if taken:
            levels.update((one.key, level) for one, level in zip(chosen, after, strict=True))
        now += rng.choice([0, 1, rng.randint(0, 10**6), rng.randint(0, 10**9), -rng.randint(0, 10**7)])


async def test_several_processes_share_a_bucket(redis: Redis) -> None:
    shared = (bucket(100, 3600),)
    limiters = [Limiter(redis) for _ in range(3)]
    taken = [(await limiter.take(shared, 40)).taken for limiter in limiters]
    assert taken == [40, 40, 20]
    for limiter in limiters:
        limiter.close()


async def test_each_tenant_has_its_own_bucket(redis: Redis) -> None:
    limiter = Limiter(redis)
    flood = (bucket(10, 3600, owner="1"),)
    assert [(await limiter.take(flood, 10)).taken for _ in range(5)] == [10, 0, 0, 0, 0]
    assert (await limiter.take((bucket(10, 3600, owner="2"),), 10)).taken == 10
    limiter.close()


async def test_requests_are_taken_ahead_by_a_tenth_of_a_second(redis: Redis) -> None:
    """60,000 in a minute are a call of Redis for a hundred requests; of 600 in a minute each asks."""
    for quota, calls in ((60_000, 2), (600, 150)):
        limiter = Limiter(redis)
        asked = 0
        decide = limiter._decide

        async def counted(*arguments: object, decide: object = decide) -> object:
            nonlocal asked
            asked += 1
            return await decide(*arguments)  # type: ignore[operator]

        limiter._decide = counted  # type: ignore[method-assign, assignment]
        buckets = (Bucket("key", "requests", f"1:{quota}", Limit(quota, 60)),)
        left = [next((await limiter.take_one(buckets)).remaining())[1] for _ in range(150)]
        assert asked <= calls + 1
        assert left[0] in range(quota - 1, quota + 1)
        assert left[-1] in range(quota - 150, quota - 140)


async def test_without_redis_each_process_has_its_part(own_engines: Engines) -> None:
    """The limit divided by the processes seen last; said once, and counted."""
    seen: list[telemetry.Event] = []
    telemetry.HOOKS.append(seen.append)
    try:
        async with Redis.from_url(own_engines.urls.redis_url) as redis:
            now = 1_000.0
            limiter = Limiter(redis, clock=lambda: now)
            assert [await processes.beat(redis, name) for name in "abcd"] == [1, 2, 3, 4]
            limiter.processes = await processes.beat(redis, "a")
            buckets = (bucket(100, 10),)
            assert (await limiter.take(buckets, 10)).taken == 10
            await own_engines.valkey.kill()
            decision = await limiter.take(buckets, 1_000)
            assert decision.taken == 25
            assert decision.violated() == buckets
            now += 5
            assert (await limiter.take(buckets, 1_000)).taken == 12
            await own_engines.restart()
            now += 5
            assert (await limiter.take(buckets, 1_000)).taken >= 90
            limiter.close()
    finally:
        telemetry.HOOKS.remove(seen.append)
    assert [event.alone for event in seen if isinstance(event, telemetry.LimitsAlone)] == [True, False]
    assert sum(isinstance(event, telemetry.RedisMissed) and event.part == "rate_limit" for event in seen) == 2
    refused = [event for event in seen if isinstance(event, telemetry.LimitExceeded)]
    assert [(event.scope, event.policy, event.tenant_id) for event in refused] == [("key", "items", 1)]


async def test_a_budget_says_when_each_refused_item_fits(redis: Redis) -> None:
    limiter = Limiter(redis)
    budget = Budget(limiter, (bucket(10, 10), bucket(1_000, 1, scope="tenant", owner="1")))
    assert await budget.take(15) == 10
    assert [budget.seconds(place) for place in range(1, 6)] == [1, 2, 3, 4, 5]
    await budget.refund()
    assert await budget.take(15, whole=True) == 0
    error = budget.refusal(15, whole=True)
    assert "10 items in 10 s for this key" in error.detail
    assert await budget.take(10, whole=True) == 10
    limiter.close()
