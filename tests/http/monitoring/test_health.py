"""`/health`, and what the service answers while an engine is away."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import asyncpg
import msgspec
import pytest
from redis.asyncio import Redis

from app.auth import service
from app.embedded import Engines
from app.kit import worker_registry
from app.kit.encryption import Vault
from app.monitoring import checks, engines
from app.settings import Settings
from tests.conftest import quick
from tests.http.conftest import Api, aiohttp_session, person, serve
from tests.http.records.test_contacts import add


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that answers is well, however busy the machine is."""
    monkeypatch.setattr(checks, "TIMEOUT", 60.0)


async def pretend_worker(settings: Settings) -> None:
    """A sign of life, as workers give it."""
    async with Redis.from_url(settings.redis_url) as redis:
        await worker_registry.beat(redis, "w1", Vault(settings.secret_key).key_ids)


async def test_all_is_well_only_with_a_worker(api: Api, settings: Settings) -> None:
    alone = await api.get("/health")
    assert (alone.status, alone.json()["status"]) == (207, "warn")
    assert alone.json()["checks"]["queue"]["status"] == "warn"
    await pretend_worker(settings)
    well = await api.get("/health")
    assert (well.status, well.json()["status"]) == (200, "pass")
    assert set(well.json()["checks"]) == {"database", "cache", "queue"}
    for path in ("/health/live", "/health/ready"):
        assert (await api.as_key(None).get(path)).status == 200


async def test_only_a_key_shows_destinations_by_name(api: Api, settings: Settings, db: asyncpg.Connection[Any]) -> None:
    await pretend_worker(settings)
    await add(api)
    stranger = api.as_key(await service.create_key(db, "other", ["import"]))
    assert (await api.get("/health")).status == 200
    await db.execute("UPDATE destinations SET blocked_until = now() + interval '60 s', blocked_code = 'CIRCUIT_OPEN'")
    mine = await api.get("/health")
    check = mine.json()["checks"]["destination:acme/hubspot"]
    assert (mine.status, check["status"]) == (207, "warn")
    assert "CIRCUIT_OPEN" in check["output"]
    assert check["retry_after_seconds"] == 60
    assert (await stranger.get("/health")).status == 200
    public = await api.as_key(None).get("/health")
    assert (public.status, set(public.json()["checks"])) == (200, {"database", "cache", "queue"})
    assert (await api.as_key("trn_wrong").get("/health")).status == 401


async def test_the_operators_token_counts_destinations(
    settings: Settings, api_key: str, db: asyncpg.Connection[Any]
) -> None:
    await pretend_worker(settings)
    async with serve(msgspec.structs.replace(settings, metrics_token="s3cret")) as url, aiohttp_session() as s:
        api = Api(s, url, api_key)
        await add(api)
        await db.execute("UPDATE destinations SET state = 'paused'")
        told = await api.as_key("s3cret").get("/health")
        assert told.status == 207
        assert told.json()["checks"]["destinations"]["counts"] == {"ok": 0, "blocked": 0, "paused": 1}
        assert b"acme" not in told.body


async def test_strangers_are_shown_what_was_seen_a_moment_ago(
    api: Api, db: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many ask, PostgreSQL is asked once."""
    monkeypatch.setattr(engines, "RECENT", 600.0)  # the moment lasts longer than a hundred questions
    stranger = api.as_key(None)
    asked = "SELECT max(query_start) FROM pg_stat_activity WHERE application_name = 'tranche api'"
    for path in ("/health", "/health/ready"):
        crowd = await asyncio.gather(*(stranger.get(path) for _ in range(50)))
        assert len({(answer.status, answer.body) for answer in crowd}) == 1
        last = await db.fetchval(asked)
        await asyncio.gather(*(stranger.get(path) for _ in range(50)))
        assert await db.fetchval(asked) == last


async def test_what_strangers_are_shown_is_never_old(api: Api, settings: Settings) -> None:
    """An engine that has changed is seen soon, though nobody with a key asks."""
    await pretend_worker(settings)
    stranger = api.as_key(None)
    assert (await stranger.get("/health")).status == 200
    async with Redis.from_url(settings.redis_url) as redis:
        await redis.flushall()
    async with asyncio.timeout(60):
        while (await stranger.get("/health")).status != 207:
            await asyncio.sleep(0.1)


async def test_a_schema_of_another_release_is_not_ready(api: Api, db: asyncpg.Connection[Any]) -> None:
    await db.execute("UPDATE schema_version SET version_num = '0000'")
    ready = await api.get("/health/ready")
    assert ready.status == 503
    assert "tranche migrate" in ready.json()["checks"]["database"]["output"]
    assert (await api.get("/health")).status == 503


@pytest.mark.slow
async def test_outages_are_told_and_end_without_a_restart(own_engines: Engines) -> None:
    settings = quick(*own_engines.app_urls, db_connect_timeout=1.0, db_acquire_timeout=2.0)
    connection = await asyncpg.connect(settings.database_url)
    key = await service.create_key(connection, "acme", ["import", "read", "admin"])
    await connection.close()
    async with serve(settings) as url, aiohttp_session() as session:
        api = Api(session, url, key)
        assert (await add(api)).status == 201
        assert (await api.push([person(0)], key="k")).status == 207

        await own_engines.valkey.kill()
        assert (await api.push([person(1)])).status == 207
        degraded = await api.get("/health")
        assert degraded.status == 207
        assert degraded.json()["checks"]["cache"]["status"] == "fail"
        assert (await api.get("/health/ready")).status == 200
        await own_engines.restart()
        await _until(api, "/health", lambda body: body["checks"]["cache"]["status"] == "pass")

        await own_engines.postgres.kill()
        for _ in range(3):
            refused = await api.push([person(0)], key="k")
            assert (refused.status, refused.json()["code"]) == (503, "DATABASE_UNAVAILABLE")
            assert refused.headers["Content-Type"] == "application/problem+json"
            assert int(refused.headers["Retry-After"]) >= 1
        assert (await api.get("/health")).status == 503
        await _until(api, "/health/ready", lambda body: body["status"] == "fail")
        assert (await api.get("/health/live")).status == 200
        await own_engines.restart()
        again = await _recovered(api)
        assert again.headers["Idempotency-Replayed"] == "true"
        await _until(api, "/health/ready", lambda body: body["status"] == "pass")


async def test_the_service_starts_before_its_engines(settings: Settings) -> None:
    """Ports that nobody listens on."""
    away = quick("postgresql://nobody@127.0.0.1:9/none", "redis://127.0.0.1:9/0", db_connect_timeout=0.5)
    async with serve(away) as url, aiohttp.ClientSession() as session:
        api = Api(session, url, None)
        assert (await api.get("/health/live")).status == 200
        assert (await api.get("/health")).status == 503
        assert (await api.get("/openapi.json")).status == 200


async def _recovered(api: Api) -> Any:
    async with asyncio.timeout(60):
        while True:
            answer = await api.push([person(0)], key="k")
            if answer.status == 207:
                return answer
            assert answer.status == 503
            await asyncio.sleep(0.2)


async def _until(api: Api, path: str, holds: Any) -> None:
    async with asyncio.timeout(60):
        while not holds((await api.get(path)).json()):
            await asyncio.sleep(0.1)
