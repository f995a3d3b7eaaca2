"""`/metrics`: who may see what, and whether it is so."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import aiohttp
import asyncpg
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.auth import service
from app.settings import Settings
from tests.conftest import SECRET_KEY
from tests.http.conftest import Api, aiohttp_session, free_port, person, serve
from tests.http.made_jobs import make_job
from tests.http.records.test_contacts import add

Db: TypeAlias = "asyncpg.Connection[Any]"
TOKEN = "an-operator's-token"


@pytest.fixture
async def api(settings: Settings, api_key: str) -> AsyncIterator[Api]:
    async with serve(msgspec.structs.replace(settings, metrics_token=TOKEN)) as url, aiohttp_session() as session:
        yield Api(session, url, api_key)


def read(body: bytes) -> dict[tuple[str, str], float]:
    """Value by name and labels."""
    return {
        (sample.name, ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


async def test_a_key_sees_the_figures_of_its_tenant(api: Api, db: Db) -> None:
    other = api.as_key(await service.create_key(db, "other-tenant", ["import", "read", "admin"]))
    await add(api)
    await add(other)
    await api.push([person(n) for n in range(3)])
    await other.push([person(n) for n in range(5)])
    await make_job(db, state="running")
    answer = await api.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    stats = read(answer.body)
    assert stats["tranche_jobs_unfinished", "state=syncing"] == 1
    assert stats["tranche_jobs_unfinished", "state=running"] == 1
    assert stats["tranche_deliveries_due", ""] == 1
    assert stats["tranche_dead_letters_open", "code=OUTCOME_UNKNOWN"] == 0
    assert stats["tranche_destinations", "state=blocked"] == 0
    assert stats["tranche_effects_open", "state=pending"] == 3
    assert stats["tranche_effects_open", "state=unknown"] == 0
    assert stats["tranche_destinations", "state=active"] == 1
    assert not any(name.startswith("tranche_http") for name, _ in stats)
    assert read((await other.get("/metrics")).body)["tranche_effects_open", "state=pending"] == 5


async def test_what_waits_for_a_destination_could_not_be_sent(api: Api, db: Db) -> None:
    """Else a paused one would look like a worker that is dead."""
    await add(api)
    await api.push([person(1)])
    for change in ("state = 'paused'", "state = 'active', blocked_until = now() + interval '1 hour'"):
        await db.execute(f"UPDATE destinations SET {change}")
        await asyncio.sleep(2.1)
        stats = read((await api.get("/metrics")).body)
        assert (stats["tranche_deliveries_due", ""], stats["tranche_deliveries_open", "state=pending"]) == (0, 1)


async def test_the_operator_sees_all_tenants_together_and_none_by_name(api: Api, db: Db) -> None:
    other = api.as_key(await service.create_key(db, "other-tenant", ["import", "read", "admin"]))
    await add(api)
    await add(other)
    await api.push([person(n) for n in range(3)])
    await other.push([person(n) for n in range(5)])
    body = (await api.as_key(TOKEN).get("/metrics")).body
    assert read(body)["tranche_effects_open", "state=pending"] == 8
    assert b"other-tenant" not in body
    assert b"acme" not in body
    assert b'route="/v1/{type}:bulk"' in body


async def test_nobody_else_sees_anything(api: Api, db: Db, settings: Settings) -> None:
    assert (await api.as_key(None).get("/metrics")).status == 401
    assert (await api.as_key("wrong").get("/metrics")).status == 401
    importer = api.as_key(await service.create_key(db, "acme", ["import"]))
    assert (await importer.get("/metrics")).status == 403
    async with serve(settings) as url:
        for key in ("", TOKEN):
            closed = Api(api.session, url, key)
            assert (await closed.get("/metrics")).status == 401


async def test_the_operator_gets_an_answer_while_postgresql_is_away(api: Api, settings: Settings) -> None:
    """What the service counts, and that it is away: never zeros for what nobody could count."""
    found = read((await api.as_key(TOKEN).get("/metrics")).body)
    assert (found["tranche_db_up", ""], found["tranche_db_storage_full", ""]) == (1, 0)
    away = msgspec.structs.replace(settings, metrics_token=TOKEN, database_url="postgresql://x:x@127.0.0.1:9/x")
    async with serve(away) as url:
        answer = await Api(api.session, url, TOKEN).get("/metrics")
    found = read(answer.body)
    assert (answer.status, found["tranche_db_up", ""]) == (200, 0)
    assert not any(name == "tranche_deliveries_due" for name, _ in found)
    assert any(name == "tranche_http_requests_total" for name, _ in found)


async def test_words_of_a_client_are_no_labels(api: Api) -> None:
    await api.request("BREW", "/coffee/1")
    await api.get("/coffee/2")
    body = (await api.as_key(TOKEN).get("/metrics")).body.decode()
    assert "BREW" not in body
    assert "coffee" not in body


async def test_processes_of_one_server_count_together(settings: Settings, api_key: str) -> None:
    """Whichever of them is asked: otherwise a counter would go up and down."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.cli.main", "serve", "--port", str(port), "--workers", "2"),
        env=os.environ
        | {
            "TRANCHE_DATABASE_URL": settings.database_url,
            "TRANCHE_REDIS_URL": settings.redis_url,
            "TRANCHE_METRICS_TOKEN": TOKEN,
            "TRANCHE_SECRET_KEY": SECRET_KEY,
        },
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(900):
            try:
                async with aiohttp.ClientSession() as session, session.get(url + "/health/live"):
                    break
            except aiohttp.ClientError:
                await asyncio.sleep(0.1)
        for _ in range(30):  # a connection each, so that both processes get some
            async with aiohttp.ClientSession() as session, session.get(url + "/openapi.json") as answer:
                assert answer.status == 200
        seen = set()
        for _ in range(10):
            async with (
                aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session,
                session.get(url + "/metrics") as answer,
            ):
                found = re.search(
                    r'tranche_http_requests_total\{[^}]*route="/openapi.json"[^}]*\} ([\d.]+)', await answer.text()
                )
                assert found is not None
                seen.add(float(found[1]))
        assert seen == {30.0}
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()
