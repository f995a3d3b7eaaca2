"""The port of a worker: probes and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import aiohttp
import asyncpg
import msgspec
import pytest

from app.kit.postgres import schema_version
from app.kit.postgres.database import Database
from app.monitoring import checks
from app.settings import Settings
from jobs import worker_port
from jobs.worker import working
from jobs.worker_port import WorkerStatus, probing
from tests.http.conftest import free_port

TOKEN = "an-operator's-token"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that answers is well, however busy the machine is."""
    monkeypatch.setattr(checks, "TIMEOUT", 60.0)


class Port:
    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url, self._session = url, session

    async def get(self, path: str, token: str = "") -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self._session.get(self._url + path, headers=headers) as answer:
            return answer.status, await answer.text()

    async def ready(self) -> tuple[int, str, dict[str, Any]]:
        status, text = await self.get("/health/ready")
        found = msgspec.json.decode(text)
        return status, found["status"], found["checks"]


@asynccontextmanager
async def opened(settings: Settings, status: WorkerStatus, token: str = TOKEN) -> AsyncIterator[Port]:
    settings = msgspec.structs.replace(settings, worker_port=free_port(), metrics_token=token)
    async with probing(settings, status), aiohttp.ClientSession() as session:
        port = Port(f"http://127.0.0.1:{settings.worker_port}", session)
        await answering(port)
        yield port


async def answering(port: Port) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                assert (await port.get("/health/live"))[0] == 200
                return
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)


async def test_a_worker_that_works_is_ready_and_one_that_does_not_yet_is_alive(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = WorkerStatus()
    async with opened(settings, status) as port:
        assert await port.ready() == (503, "fail", {"worker": {"status": "fail", "output": "it is starting"}})
        async with working(settings, status):
            for _ in range(100):
                if (found := await port.ready())[1] == "pass":
                    break
                await asyncio.sleep(0.05)
            assert found[:2] == (200, "pass")
            assert set(found[2]) == {"database", "cache", "sweep"}
            assert status.scheduler is not None
            monkeypatch.setattr(status, "scheduler", SimpleNamespace(swept_at=status.scheduler.swept_at - 1_000))
            late = await port.ready()
            assert (late[0], late[2]["sweep"]["status"]) == (503, "fail")
        assert (await port.ready())[0] == 503
        assert (await port.get("/health/live"))[0] == 200


async def test_without_redis_it_is_ready_and_says_what_is_later(settings: Settings) -> None:
    status = WorkerStatus()
    away = msgspec.structs.replace(settings, redis_url=f"redis://127.0.0.1:{free_port()}/0")
    async with opened(settings, status) as port, working(away, status):
        code, word, found = await port.ready()
    assert (code, word, found["database"]["status"]) == (200, "warn", "pass")
    assert "due work is searched for every" in found["cache"]["output"]


async def test_without_postgresql_it_is_not_ready(settings: Settings) -> None:
    status = WorkerStatus()
    gone = msgspec.structs.replace(settings, database_url=f"postgresql://nobody@127.0.0.1:{free_port()}/none")
    async with opened(settings, status) as port, working(settings, status):
        status.database = Database(gone, application_name="tranche worker")
        code, word, found = await port.ready()
    assert (code, word, found["database"]["status"]) == (503, "fail", "fail")


async def test_a_standby_is_no_place_to_work(settings: Settings) -> None:
    db = await asyncpg.connect(settings.database_url)
    try:
        assert await schema_version.find_fault(db) is None
        await db.execute("SET default_transaction_read_only = on")
        assert "read-only" in (await schema_version.find_fault(db) or "")
    finally:
        await db.close()


async def test_metrics_are_for_the_holder_of_the_token(settings: Settings) -> None:
    async with opened(settings, WorkerStatus()) as port:
        for token in ("", "wrong"):
            assert (await port.get("/metrics", token))[0] == 401
        code, text = await port.get("/metrics", TOKEN)
        assert (code, "# TYPE tranche_" in text) == (200, True)
    async with opened(settings, WorkerStatus(), token="") as port:
        for token in ("", TOKEN):
            assert (await port.get("/metrics", token))[0] == 401


async def test_a_port_that_is_taken_is_opened_when_it_is_free(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_port, "_REOPEN", 0.05)
    settings = msgspec.structs.replace(settings, worker_port=free_port())
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", settings.worker_port)
    async with probing(settings, WorkerStatus()), aiohttp.ClientSession() as session:
        port = Port(f"http://127.0.0.1:{settings.worker_port}", session)
        await asyncio.sleep(0.2)
        with pytest.raises(aiohttp.ClientError):
            await port.get("/health/live")
        server.close()
        await server.wait_closed()
        await answering(port)
