"""Why nothing moves, when it is the workers: none runs, or none has the key."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import asyncpg
import msgspec
import pytest
from redis.asyncio import Redis

from app.auth import service
from app.cli.client.api_client import ApiClient
from app.cli.client.clock import Clock, Deadline
from app.cli.client.jobs import JobWatch, find_waits, is_finished, watch_until
from app.job_status.live import events_api
from app.kit import worker_registry
from app.settings import Settings
from jobs.worker import working
from tests.http.conftest import Api, person
from tests.http.records.test_contacts import add

OTHER_KEY = base64.b64encode(bytes(range(32, 64))).decode()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read is asked for again at once."""
    monkeypatch.setattr(worker_registry, "_RECENT", 0.0)


async def detail_of(api: Api) -> str | None:
    found: dict[str, Any] = (await api.get("/v1/destinations/hubspot")).json()
    detail: str | None = found["detail"]
    return detail


async def eventually(api: Api, words: str | None) -> str | None:
    async with asyncio.timeout(60):
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
        await worker_registry.beat(redis, "w1", ["a"])
        sign = msgspec.json.decode(await redis.hget(worker_registry.KEY, "w1"))
        old = sign | {"at": sign["at"] - worker_registry.GONE - 1}
        await redis.hset(worker_registry.KEY, "w1", msgspec.json.encode(old))
        found = await worker_registry.read(redis)
        assert (found.alive, found.last_seen) == ([], old["at"])
        ancient = sign | {"at": sign["at"] - worker_registry.FORGOTTEN - 1}
        await redis.hset(worker_registry.KEY, "w1", msgspec.json.encode(ancient))
        await worker_registry.beat(redis, "w2", ["a"])
        assert await redis.hkeys(worker_registry.KEY) == [b"w2"]


async def test_without_redis_nothing_is_said(settings: Settings) -> None:
    async with Redis.from_url("redis://127.0.0.1:9") as redis:
        assert await worker_registry.WorkerWatch(redis).look() is None


async def test_a_job_says_that_no_worker_runs(api: Api, db: asyncpg.Connection[Any], settings: Settings) -> None:
    """To a key with the scope `import` alone as well: its own jobs are all that it may read."""
    await add(api)
    mine = api.as_key(await service.create_key(db, "acme", ["import"]))
    assert (await mine.get("/v1/destinations")).status == 403
    job_id = (await mine.push([person(1)])).json()["job_id"]
    told = await mine.get(f"/v1/jobs/{job_id}")
    why = {"code": "NO_WORKER", "detail": "no worker has been seen yet; start one with: tranche worker"}
    assert (told.json()["state"], told.json()["waiting"]) == ("syncing", why)
    again = await mine.get(f"/v1/jobs/{job_id}", {"If-None-Match": told.headers["ETag"]})
    assert (again.status, again.headers["ETag"]) == (304, told.headers["ETag"])
    (listed,) = (await mine.get("/v1/jobs")).json()["jobs"]
    assert listed["waiting"] == why


async def test_a_queued_job_says_that_no_worker_runs_until_one_does(api: Api, settings: Settings) -> None:
    queued = await api.push([person(1)], headers={"Prefer": "respond-async"})
    path = f"/v1/jobs/{queued.json()['job_id']}"
    told = await api.get(path)
    assert (told.json()["state"], told.json()["waiting"]["code"]) == ("queued", "NO_WORKER")
    async with working(settings):
        async with asyncio.timeout(60):
            while (ended := await api.get(path)).json()["state"] != "completed":
                await asyncio.sleep(0.05)
        assert ended.json()["waiting"] is None
    assert (await api.get(path)).json()["waiting"] is None, "it is finished, and waits for nobody"


async def test_a_job_says_that_no_worker_has_the_key_of_a_destination(
    api: Api, db: asyncpg.Connection[Any], settings: Settings
) -> None:
    await add(api)
    job_id = (await api.push([person(1)])).json()["job_id"]
    path = f"/v1/jobs/{job_id}"
    before = await api.get(path)
    strange = msgspec.structs.replace(settings, secret_key=OTHER_KEY)
    async with working(strange):
        async with asyncio.timeout(60):
            while (told := await api.get(path)).json()["waiting"]["code"] != "NO_SECRET_KEY":
                await asyncio.sleep(0.1)
        assert told.json()["waiting"]["detail"] == (
            "destination hubspot: no worker can decrypt its credentials: "
            "they were encrypted with another TRANCHE_SECRET_KEY"
        )
        stale = await api.get(path, {"If-None-Match": before.headers["ETag"]})
        assert stale.status == 200, "another reason is another body, and has another tag"
        await db.execute("UPDATE destinations SET state = 'paused'")
        await db.execute("UPDATE jobs SET revision = revision + 1")
        async with asyncio.timeout(60):
            while (await api.get(path)).json()["waiting"] is not None:
                await asyncio.sleep(0.1)


async def test_a_crowd_costs_one_look_at_the_workers(
    api: Api, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_registry, "_RECENT", 60.0)
    looks = 0
    read = worker_registry.read

    async def counted(redis: Redis) -> worker_registry.Workers:
        nonlocal looks
        looks += 1
        await asyncio.sleep(0.05)
        return await read(redis)

    monkeypatch.setattr(worker_registry, "read", counted)
    await add(api)
    job_id = (await api.push([person(1)])).json()["job_id"]
    shown = await asyncio.gather(*(api.get(f"/v1/jobs/{job_id}") for _ in range(100)))
    assert {answer.json()["waiting"]["code"] for answer in shown} == {"NO_WORKER"}
    assert len({answer.headers["ETag"] for answer in shown}) == 1
    assert looks == 1


async def test_workers_that_are_slow_to_be_seen_delay_nobody_who_asks_again(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    async with Redis.from_url(settings.redis_url) as redis:
        watch = worker_registry.WorkerWatch(redis)
        first = await watch.glance()
        assert first is not None
        never = asyncio.Event()

        async def stuck(_: Redis) -> worker_registry.Workers:
            await never.wait()
            raise AssertionError

        monkeypatch.setattr(worker_registry, "read", stuck)
        assert await asyncio.wait_for(watch.glance(), 30) is first
        await watch.close()


async def test_a_stream_says_why_the_job_waits_though_the_job_stays_as_it_is(
    api: Api, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_api, "KEEP_ALIVE", 0.2)
    await add(api)
    job_id = (await api.push([person(1)])).json()["job_id"]
    sent = {"Authorization": f"Bearer {api.key}"}
    async with api.session.get(f"{api.url}/v1/jobs/{job_id}/events", headers=sent) as stream, asyncio.timeout(60):

        async def until(words: bytes) -> None:
            async for line in stream.content:
                if words in line:
                    return

        await until(b'"code":"NO_WORKER"')
        async with working(msgspec.structs.replace(settings, secret_key=OTHER_KEY)):
            await until(b'"code":"NO_SECRET_KEY"')


async def test_the_command_line_passes_on_what_the_job_says_to_a_key_that_reads_nothing_else(
    api: Api, db: asyncpg.Connection[Any]
) -> None:
    await add(api)
    mine = api.as_key(await service.create_key(db, "acme", ["import"]))
    job_id = (await mine.push([person(1)])).json()["job_id"]
    clock = Clock()
    why = ["no worker has been seen yet; start one with: tranche worker"]
    async with ApiClient(api.url, mine.key or "", deadline=Deadline(clock, 10)) as client:
        deadline = Deadline(clock, 2)
        job = await watch_until(JobWatch(client, job_id), is_finished, deadline)
        assert job.waiting is not None
        said = [job.waiting.detail]
        assert await find_waits(client, job.effects, said) == why
    async with ApiClient(api.url, api.key or "", deadline=Deadline(clock, 10)) as client:
        assert await find_waits(client, job.effects, said) == [f"hubspot waits: {why[0]}"]
