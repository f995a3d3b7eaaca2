"""What a key costs that is no good, and how soon a revoked one is out, also for those who follow or wait."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import asyncpg
import msgspec
import pytest
from redis.asyncio import Redis

from app.auth import principals, service, tokens
from app.auth.principals import Principals
from app.errors import Unauthorized
from app.kit.postgres.database import Connection, Database
from app.kit.snapshots import Snapshots
from app.settings import Settings
from tests.http.conftest import Api, aiohttp_session, person, serve
from tests.http.made_jobs import make_job
from tests.http.records.test_contacts import add
from tests.stopwatch import stopwatch

Db: TypeAlias = "asyncpg.Connection[Any]"


class Counting(Database):
    """Counts how often it is asked."""

    asked = 0
    snapshots: Snapshots

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        self.asked += 1
        async with super().connection() as connection:
            yield connection


@pytest.fixture
async def counting(settings: Settings) -> AsyncIterator[Counting]:
    database = Counting(settings, application_name="test")
    async with Redis.from_url(settings.redis_url) as redis:
        database.snapshots = Snapshots(settings, redis)
        yield database
    await database.close()


def forge(tenant_id: int = 1) -> str:
    return tokens.make(tenant_id, os.urandom(6), os.urandom(tokens.SECRET_BYTES))[0]


async def test_a_forged_key_costs_one_query(counting: Counting) -> None:
    known = Principals(counting, counting.snapshots)
    forged = forge()
    assert [await known.find(forged, recent=recent) for recent in (False, True, False)] == [None] * 3
    assert counting.asked == 1
    await known.close()


async def test_a_malformed_key_costs_none(counting: Counting) -> None:
    known = Principals(counting, counting.snapshots)
    good = forge()
    for bad in ("", "trn_", "trn_nothing", good[:-1], good[:-1] + ("a" if good[-1] != "a" else "b"), "x" * 50):
        assert await known.find(bad, recent=False) is None
    assert counting.asked == 0
    await known.close()


async def test_what_is_remembered_of_bad_keys_is_bounded(counting: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(principals, "MOST_REFUSED", 3)
    known = Principals(counting, counting.snapshots)
    forged = [forge() for _ in range(5)]
    for key in [*forged, *forged]:
        assert await known.find(key, recent=False) is None
    assert counting.asked == 10
    assert await known.find(forged[-1], recent=False) is None
    assert counting.asked == 10
    await known.close()


async def test_a_new_key_works_at_once(api: Api, db: Db) -> None:
    """Also where its tenant's keys were tried before by somebody who guessed."""
    tenant_id = await service.find_tenant(db, "acme")
    assert (await api.as_key(forge(tenant_id)).get("/v1/jobs")).status == 401
    created = await service.create_key(db, "acme", ["read"])
    assert (await api.as_key(created).get("/v1/jobs")).status == 200


async def test_strangers_wait_among_themselves(settings: Settings, api_key: str, db: Db) -> None:
    """While every look-up that strangers may make is stuck, whoever is known is served."""
    async with serve(settings) as url, aiohttp_session() as session:
        api = Api(session, url, api_key)
        assert (await api.get("/v1/jobs")).status == 200
        async with db.transaction():
            # What strangers ask for is not there to be locked, so their connections are kept busy by a lock on all.
            await db.execute("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE")
            strangers = [asyncio.create_task(api.as_key(forge()).get("/v1/jobs")) for _ in range(30)]
            waiting = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND "
                "application_name = 'tranche api' AND wait_event_type = 'Lock'"
            )
            async with asyncio.timeout(60):
                while await db.fetchval(waiting) < 2:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)
            busy = await db.fetchval(waiting)
        assert busy == 2
        assert {answer.status for answer in await asyncio.gather(*strangers)} <= {401, 503}


@asynccontextmanager
async def revoked(db: Db, key: str) -> AsyncIterator[None]:
    """What is awaited within ends soon after the key was revoked."""
    await service.revoke_key(db, key)
    async with stopwatch() as passed:
        yield
    assert passed.seconds < 2.0


async def test_an_event_stream_ends_with_its_key(settings: Settings, api_key: str, db: Db) -> None:
    job_id = await make_job(db)
    async with serve(settings) as url, aiohttp_session() as session:
        headers = {"Authorization": f"Bearer {api_key}", "Accept": "text/event-stream"}
        async with session.get(f"{url}/v1/jobs/{job_id}/events", headers=headers) as answer:
            assert answer.status == 200
            await answer.content.readuntil(b"id: 1")
            async with revoked(db, api_key):
                await asyncio.wait_for(answer.content.read(), 20)
        async with session.get(f"{url}/v1/jobs/{job_id}/events", headers=headers) as again:
            assert again.status == 401


async def test_others_go_on_following(settings: Settings, api_key: str, db: Db) -> None:
    job_id = await make_job(db)
    other = await service.create_key(db, "acme", ["read"])
    async with serve(settings) as url, aiohttp_session() as session:
        headers = {"Authorization": f"Bearer {other}", "Accept": "text/event-stream"}
        async with session.get(f"{url}/v1/jobs/{job_id}/events", headers=headers) as answer:
            await answer.content.readuntil(b"id: 1")
            await service.revoke_key(db, api_key)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(answer.content.readuntil(b"never"), 2.5)


async def test_a_poll_that_waits_ends_with_its_key(api: Api, db: Db) -> None:
    job_id = await make_job(db)
    waiting = asyncio.create_task(api.get(f"/v1/jobs/{job_id}", {"Prefer": "wait=20"}))
    await asyncio.sleep(0.3)
    async with revoked(db, str(api.key)):
        answer = await asyncio.wait_for(waiting, 15)
    assert answer.status == 401


async def test_an_import_that_waits_is_answered_when_its_key_goes(api: Api, db: Db) -> None:
    """It is done, so its client is told; only the waiting ends."""
    await add(api)
    waiting = asyncio.create_task(api.push([person(1)], headers={"Prefer": "wait=20"}))
    async with asyncio.timeout(60):
        while not await db.fetchval("SELECT count(*) FROM jobs"):
            await asyncio.sleep(0.05)
    async with revoked(db, str(api.key)):
        answer = await asyncio.wait_for(waiting, 15)
    assert (answer.status, answer.json()["effects"]["hubspot"]) == (207, "pending")


async def test_watching_ends_with_those_who_are_watched(counting: Counting, db: Db, api_key: str) -> None:
    known = Principals(counting, counting.snapshots)
    principal = await known.find(api_key, recent=False)
    assert principal is not None
    async with known.heed(principal):
        await asyncio.sleep(0.01)
    with pytest.raises(ValueError, match="mine"):
        async with known.heed(principal):
            raise ValueError("mine")
    await service.revoke_key(db, api_key)
    with pytest.raises(Unauthorized):
        async with known.heed(principal):
            await asyncio.sleep(10)
    async with asyncio.timeout(60):
        before = -1
        while counting.asked != before:  # the last look may be under way
            before = counting.asked
            await asyncio.sleep(1.5)
    await known.close()


async def test_streams_of_a_tenant_are_bounded(settings: Settings, api_key: str, db: Db) -> None:
    job_id = await make_job(db)
    few = msgspec.structs.replace(settings, max_streams_tenant=3)
    async with serve(few) as url, aiohttp_session() as session:
        api = Api(session, url, api_key)
        headers = {"Authorization": f"Bearer {api_key}", "Accept": "text/event-stream"}
        path = f"/v1/jobs/{job_id}/events"
        opened = [await session.get(url + path, headers=headers) for _ in range(3)]
        assert [stream.status for stream in opened] == [200] * 3
        refused = await api.get(path, {"Accept": "text/event-stream"})
        assert (refused.status, refused.json()["code"]) == (429, "QUOTA_EXCEEDED")
        assert "TRANCHE_MAX_STREAMS_TENANT" in refused.json()["detail"]
        other = await service.create_key(db, "other", ["read"])
        foreign = await api.as_key(other).get(path, {"Accept": "text/event-stream"})
        assert foreign.status == 404
        opened[0].close()
        async with asyncio.timeout(60):
            while True:
                stream = await session.get(url + path, headers=headers)
                status = stream.status
                stream.close()
                if status == 200:
                    break
                await asyncio.sleep(0.05)
        for stream in opened:
            stream.close()


async def test_who_may_not_wait_any_more_is_answered_at_once(settings: Settings, api_key: str, db: Db) -> None:
    job_id = await make_job(db)
    few = msgspec.structs.replace(settings, max_waits_tenant=1)
    async with serve(few) as url, aiohttp_session() as session:
        api = Api(session, url, api_key)
        waiting = asyncio.create_task(api.get(f"/v1/jobs/{job_id}", {"Prefer": "wait=3"}))
        await asyncio.sleep(0.3)
        async with stopwatch() as passed:
            assert (await api.get(f"/v1/jobs/{job_id}", {"Prefer": "wait=20"})).status == 200
        assert passed.seconds < 2
        assert (await waiting).status == 200


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/nowhere", "/v1/contacts:bulk"])
async def test_keys_are_looked_at_before_anything_else(api: Api, path: str) -> None:
    """Even before it is known whether there is something at the address."""
    for key, error in ((None, False), ("trn_wrong", True), (forge()[:-1] + "!", True)):
        answer = await api.as_key(key).get(path)
        assert (answer.status, answer.json()["code"]) == (401, "UNAUTHORIZED")
        assert ('error="invalid_token"' in answer.headers["WWW-Authenticate"]) == error
        assert answer.headers["X-Request-ID"] == answer.json()["request_id"]
