"""What is kept of answers, in this process and in Redis: bounded, nobody else's, and gone when it is void."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from app.kit.encryption import BulkCipher
from app.kit.snapshots import Snapshots, forget
from app.settings import Settings
from tests.conftest import SECRET_KEY


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        yield client


@asynccontextmanager
async def process(settings: Settings, redis: Redis, **changes: Any) -> AsyncIterator[Snapshots]:
    snapshots = Snapshots(msgspec.structs.replace(settings, **changes), redis)
    snapshots.open()
    yield snapshots
    await snapshots.close()


async def written(redis: Redis, count: int, kind: str = "record") -> None:
    async with asyncio.timeout(60):
        while await redis.zcard(f"tranche:snapshots:1:{kind}:times") < count:
            await asyncio.sleep(0.05)


async def found(
    snapshots: Snapshots, name: bytes, *, tenant_id: int = 1, kind: Any = "record"
) -> tuple[bytes, str] | None:
    snapshot = await snapshots.find(tenant_id, kind, name)
    return snapshot and (snapshot[0].body, snapshot[1])


async def test_the_newest_is_found_in_memory_or_in_redis(settings: Settings, redis: Redis) -> None:
    async with process(settings, redis) as one, process(settings, redis) as two:
        now = time.time()
        one.keep(1, "record", b"a", b"{1}", now)
        await written(redis, 1)
        assert await found(one, b"a") == (b"{1}", "redis")
        assert await found(two, b"a") == (b"{1}", "redis")
        two.keep(1, "record", b"a", b"{2}", now + 1)
        assert (await found(two, b"a") or (b"",))[0] == b"{2}"
        async with asyncio.timeout(60):
            while await found(one, b"a") != (b"{2}", "redis"):
                await asyncio.sleep(0.05)
        # An older one never replaces it, wherever it comes from.
        one.keep(1, "record", b"b", b"{}", now)
        one.keep(1, "record", b"a", b"{0}", now - 5)
        await written(redis, 2)
        assert await found(two, b"a") == (b"{2}", "redis")


async def test_another_tenants_is_never_opened(settings: Settings, redis: Redis) -> None:
    """Not even where somebody moved it in Redis."""
    async with process(settings, redis) as one, process(settings, redis) as two:
        one.keep(1, "record", b"a", b"{}", time.time())
        await written(redis, 1)
        values = await redis.hgetall("tranche:snapshots:1:record")
        for name in ("tranche:snapshots:2:record", "tranche:snapshots:1:key"):
            await redis.hset(name, mapping=values)
        assert await found(two, b"a") is not None
        assert await found(two, b"a", tenant_id=2) is None
        assert await found(two, b"a", kind="key") is None
        assert await found(one, b"a", tenant_id=2) is None


async def test_what_is_forgotten_is_gone_everywhere(settings: Settings, redis: Redis) -> None:
    async with process(settings, redis) as one, process(settings, redis) as two:
        for snapshots in (one, two):
            snapshots.keep(1, "record", b"a", b"{}", time.time())
            snapshots.keep(1, "job", b"j", b"{}", time.time())
            snapshots.keep(2, "record", b"a", b"{}", time.time())
        await written(redis, 1)
        began = time.time()
        await forget(redis, 1)
        assert not await redis.exists("tranche:snapshots:1:record")
        # A read that had begun before is not kept after.
        one.keep(1, "record", b"b", b"{}", began)
        two.keep(1, "record", b"c", b"{}", time.time() + 10)
        await written(redis, 1)
        for snapshots in (one, two):
            assert await found(snapshots, b"a") is None
            assert await found(snapshots, b"b") is None
            assert await found(snapshots, b"j", kind="job") is not None
            assert await found(snapshots, b"a", tenant_id=2) is not None
        assert await redis.zcard("tranche:snapshots:1:record:times") == 1


async def test_a_process_learns_it_before_redis_fails(settings: Settings, redis: Redis) -> None:
    async with process(settings, redis) as one:
        one.keep(1, "record", b"a", b"{}", time.time())
        await forget(redis, 1)
        async with asyncio.timeout(60):
            while (1, "record", b"a") in one._kept:
                await asyncio.sleep(0.05)
        assert one._bytes == 0


async def test_they_are_bounded(settings: Settings, redis: Redis) -> None:
    async with process(settings, redis, stale_memory=50_000, stale_redis=20_000) as one:
        for number in range(30):
            one.keep(1, "record", b"%d" % number, os.urandom(5_000), time.time() + number)
        assert one._bytes <= 50_000
        assert await found(one, b"0") is None
        assert await found(one, b"29") is not None
        one.keep(1, "record", b"huge", bytes(1_000_000), time.time())
        assert await found(one, b"huge") is None
        async with asyncio.timeout(60):
            while one._waiting:
                await asyncio.sleep(0.05)
        await written(redis, 3)
        held = await redis.hgetall("tranche:snapshots:1:record")
        assert sum(len(value) for field, value in held.items() if field != b"bytes") == int(held[b"bytes"]) <= 20_000
        assert await redis.ttl("tranche:snapshots:1:record") > 0


async def test_what_is_too_old_is_not_found_and_leaves_redis(settings: Settings, redis: Redis) -> None:
    async with process(settings, redis, stale_seconds=100.0) as one:
        one.keep(1, "record", b"old", b"{}", time.time() - 99)
        one.keep(1, "record", b"older", b"{}", time.time() - 101)
        await written(redis, 1)
        assert await found(one, b"older") is None
        assert await found(one, b"old") is not None
        assert await redis.zcard("tranche:snapshots:1:record:times") == 1


async def test_without_a_secret_key_there_is_memory_alone(settings: Settings, redis: Redis) -> None:
    async with process(settings, redis, secret_key="") as one:
        one.keep(1, "record", b"a", b"{}", time.time())
        await asyncio.sleep(0.6)
        assert await found(one, b"a") == (b"{}", "memory")
        assert not await redis.keys("tranche:snapshots:*")


async def test_a_redis_that_is_away_delays_nobody_for_long(settings: Settings) -> None:
    async with Redis.from_url("redis://127.0.0.1:9/0") as away, process(settings, away) as one:
        one.keep(1, "record", b"a", b"{}", time.time())
        await one.void("1:key:x")
        began = time.monotonic()
        for _ in range(20):
            assert await found(one, b"a") == (b"{}", "memory")
        assert time.monotonic() - began < 5


def test_bulk_ciphertexts_open_for_their_context_alone() -> None:
    one, two, other = (BulkCipher(key, "test") for key in (SECRET_KEY, SECRET_KEY, "A" * 43 + "="))
    sealed = one.seal(b"data", b"mine")
    assert two.open(sealed, b"mine") == b"data"
    assert two.open(sealed, b"yours") is None
    assert other.open(sealed, b"mine") is None
    assert two.open(sealed[:-1], b"mine") is None
    assert two.open(b"", b"mine") is None
    assert one.hash(b"name") == two.hash(b"name") != other.hash(b"name")
    assert BulkCipher(SECRET_KEY, "else").open(sealed, b"mine") is None
