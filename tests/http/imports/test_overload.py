"""More imports than can be accepted: everything else answers, deadlines hold, and who went away keeps no place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from app import telemetry
from app.settings import Settings
from tests.http.conftest import Api, aiohttp_session, person, serve


@pytest.fixture
def shed() -> Any:
    """Reasons of imports that were not served."""
    found: list[str] = []

    def hook(event: telemetry.Event) -> None:
        if isinstance(event, telemetry.RequestShed):
            found.append(event.reason)

    telemetry.HOOKS.append(hook)
    yield found
    telemetry.HOOKS.remove(hook)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(45):
        while not true():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def locked(db: Any, settings: Settings, api_key: str, **changes: Any) -> AsyncIterator[Api]:
    """A service, and a contact that this test holds: every import of it lasts."""
    slow = msgspec.structs.replace(settings, db_lock_timeout=60.0, db_statement_timeout=60.0, **changes)
    async with serve(slow) as url, aiohttp_session() as session:
        api = Api(session, url, api_key)
        await api.push([person(1)])
        async with db.transaction():
            await db.execute("SELECT FROM records WHERE record_id = 'c1' FOR UPDATE")
            yield api


async def blocked(db: Any, count: int) -> None:
    async with asyncio.timeout(45):
        while await db.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") != count:
            await asyncio.sleep(0.01)


async def test_jobs_health_and_cancel_answer_while_imports_wait(
    settings: Settings, db: Any, api_key: str, shed: list[str]
) -> None:
    async with locked(db, settings, api_key) as api:
        job = (await api.push([person(2)])).json()["job_id"]
        sent = [asyncio.create_task(api.push([person(1, company=str(n))])) for n in range(40)]
        async with asyncio.timeout(45):
            while await db.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") < 5:
                await asyncio.sleep(0.01)
        async with asyncio.timeout(20):
            assert (await api.get(f"/v1/jobs/{job}")).status == 200
            assert (await api.get("/health")).json()["checks"]["database"]["status"] == "pass"
            assert (await api.request("POST", f"/v1/jobs/{job}/cancel")).status == 409
        for task in sent:
            task.cancel()
        await until(lambda: shed.count("client_gone") > 20)


async def test_an_import_has_no_more_time_than_its_deadline(
    settings: Settings, db: Any, api_key: str, shed: list[str]
) -> None:
    """What waits for a lock in PostgreSQL is canceled there, and its connection goes on to serve others."""
    async with locked(db, settings, api_key, import_deadline=1.0) as api:
        refused = await api.push([person(1, company="x")], key="late")
        assert (refused.status, refused.json()["code"]) == (503, "OVERLOADED")
        assert int(refused.headers["Retry-After"]) >= 1
        assert shed == ["deadline"]
        await blocked(db, 0)
        assert (await api.push([person(2)], key="other")).status == 207
