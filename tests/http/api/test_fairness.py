"""What one tenant does, another one does not wait for."""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

import asyncpg
import msgspec

from app.auth import service
from app.settings import Settings
from tests.http.conftest import Api, aiohttp_session, person, serve

Db: TypeAlias = "asyncpg.Connection[Any]"
_WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'tranche api' AND wait_event_type = 'Lock'
"""


async def waiting(db: Db) -> int:
    await db.execute("SELECT pg_stat_clear_snapshot()")  # else a transaction sees its first one for ever
    count: int = await db.fetchval(_WAITING)
    return count


async def stuck(db: Db) -> None:
    """Until no more of the crowd come to wait for the lock."""
    before, now = 0, 0
    async with asyncio.timeout(60):
        while now == 0 or now != before:
            await asyncio.sleep(0.3)
            before, now = now, await waiting(db)


async def test_a_crowd_of_one_tenant_leaves_connections_for_others(settings: Settings, api_key: str, db: Db) -> None:
    """All imports of the crowd want a contact that this test holds, so each that has a connection keeps it."""
    # Longer than the test: others are served while the crowd waits, or never.
    settings = msgspec.structs.replace(settings, db_lock_timeout=90.0, db_statement_timeout=90.0)
    async with serve(settings) as url, aiohttp_session() as session:
        crowd = Api(session, url, api_key)
        other = crowd.as_key(await service.create_key(db, "other", ["import", "read"]))
        assert (await crowd.push([person(1)])).status == 207
        async with db.transaction():
            await db.execute("SELECT FROM records WHERE record_id = 'c1' FOR UPDATE")
            pushing = [asyncio.create_task(crowd.push([person(1, company=f"{n}")])) for n in range(60)]
            await stuck(db)
            async with asyncio.timeout(60):
                for number in range(5):
                    assert (await other.push([person(number)])).status == 207
                    assert (await other.get(f"/v1/contacts/c{number}")).status == 200
                    assert (await crowd.as_key(None).get("/health/ready")).status == 200
            assert await waiting(db) > 1, "the crowd was not stuck, and nothing was shown"
            assert not any(task.done() and task.result().status == 207 for task in pushing)
        answers = await asyncio.gather(*pushing)
        assert {answer.status for answer in answers} <= {207, 503}


async def test_a_crowd_of_readers_leaves_connections_as_well(settings: Settings, api_key: str, db: Db) -> None:
    """Not only imports take turns: whatever asks PostgreSQL for a tenant does."""
    settings = msgspec.structs.replace(settings, db_lock_timeout=90.0, db_statement_timeout=90.0)
    async with serve(settings) as url, aiohttp_session() as session:
        crowd = Api(session, url, api_key)
        other = crowd.as_key(await service.create_key(db, "other", ["import", "read"]))
        for api in (crowd, other):
            assert (await api.get("/v1/jobs")).status == 200
        async with db.transaction():
            await db.execute("LOCK TABLE dead_letters IN ACCESS EXCLUSIVE MODE")
            reading = [asyncio.create_task(crowd.get("/v1/dead-letters")) for _ in range(60)]
            await stuck(db)
            async with asyncio.timeout(60):
                assert (await other.push([person(1)])).status == 207
                assert (await other.get("/v1/jobs")).status == 200
            assert await waiting(db) > 1
            assert not any(task.done() and task.result().status == 200 for task in reading)
        await asyncio.gather(*reading)
