"""Why nothing moves, when it is the workers: none runs, or none has the key."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from app import workers
from app.settings import Settings
from jobs.worker import working
from tests.http.conftest import Api
from tests.http.test_contacts import add

OTHER_KEY = base64.b64encode(bytes(range(32, 64))).decode()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read is asked for again at once."""
    monkeypatch.setattr(workers, "_RECENT", 0.0)


async def detail_of(api: Api) -> str | None:
    found: dict[str, Any] = (await api.get("/v1/destinations/hubspot")).json()
    detail: str | None = found["detail"]
    return detail


async def eventually(api: Api, words: str | None) -> str | None:
    async with asyncio.timeout(20):
        while True:
            detail = await detail_of(api)
            if (detail or "") == "" if words is None else words in (detail or ""):
                return detail
            await asyncio.sleep(0.1)


async def test_a_destination_says_that_no_worker_runs(api: Api, settings: Settings) -> None:
    await add(api)
    assert await detail_of(api) == "no worker has been seen yet; start one with: tranche worker"
    (listed,) = (await api.get("/v1/destinations")).json()["destinations"]
    assert listed["detail"] == await detail_of(api)
    async with working(settings):
        await eventually(api, None)
        assert (await api.get("/health")).json()["checks"]["queue"]["status"] == "pass"
    told = await detail_of(api)
    assert told is not None
    assert told.startswith("no worker has been seen since 20")
    assert (await api.get("/health")).json()["checks"]["queue"]["status"] == "warn"


async def test_a_destination_says_that_no_worker_has_its_key(api: Api, settings: Settings) -> None:
    await add(api)
    strange = msgspec.structs.replace(settings, secret_key=OTHER_KEY)
    async with working(strange):
        told = await eventually(api, "no worker can decrypt its credentials")
        assert told is not None
        check = (await api.get("/health")).json()["checks"]["queue"]
        assert check["status"] == "fail"
        assert "TRANCHE_SECRET_KEY" in check["output"]
        async with working(settings):
            await eventually(api, None)
            check = (await api.get("/health")).json()["checks"]["queue"]
            assert (check["status"], check["output"][:14]) == ("warn", "1 of 2 workers")


async def test_a_worker_that_fell_silent_is_no_worker(api: Api, settings: Settings) -> None:
    async with Redis.from_url(settings.redis_url) as redis:
        await workers.beat(redis, "w1", ["a"])
        sign = msgspec.json.decode(await redis.hget(workers.KEY, "w1"))
        old = sign | {"at": sign["at"] - workers.GONE - 1}
        await redis.hset(workers.KEY, "w1", msgspec.json.encode(old))
        found = await workers.read(redis)
        assert (found.alive, found.last_seen) == ([], old["at"])
        ancient = sign | {"at": sign["at"] - workers.FORGOTTEN - 1}
        await redis.hset(workers.KEY, "w1", msgspec.json.encode(ancient))
        await workers.beat(redis, "w2", ["a"])
        assert await redis.hkeys(workers.KEY) == [b"w2"]


async def test_without_redis_nothing_is_said(settings: Settings) -> None:
    async with Redis.from_url("redis://127.0.0.1:9") as redis:
        assert await workers.WorkerWatch(redis).look() is None
