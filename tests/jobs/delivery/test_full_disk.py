"""A full disk: the job says what it waits for, the worker tries seldom and says it once, and goes on by itself."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from app.job_status import service
from app.kit.postgres import database
from app.vocabulary.outcomes_wire import JobError
from jobs.worker import working
from tests.conftest import as_owner
from tests.db.staging import stage
from tests.http.imports.test_full_disk import REFUSE
from tests.jobs.conftest import World, people
from tests.jobs.imports.test_staged_imports import desk_of


async def execute(world: World, *statements: str) -> None:
    """As the owner of the tables."""
    owner = await asyncpg.connect(as_owner(world.settings.database_url))
    for statement in statements:
        await owner.execute(statement)
    await owner.close()


async def wait_of(world: World, job_id: Any) -> JobError | None:
    async with world.database.connection() as connection:
        return (await service.read_job(connection, world.tenant_id, job_id)).job.waiting


async def test_a_file_waits_for_room_and_then_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "FULL_WAIT", 0.2)
    monkeypatch.setattr(database, "FULL_WAIT_CAP", 0.8)
    await execute(world, REFUSE, "CREATE TRIGGER full_disk BEFORE INSERT ON record_versions EXECUTE FUNCTION refuse()")
    job_id = await stage(desk_of(world), people(120), chunk=50)
    with capture_logs() as logs:
        async with working(world.settings):
            async with asyncio.timeout(60):
                while (waiting := await wait_of(world, job_id)) is None:
                    await asyncio.sleep(0.02)
            assert waiting.code == "STORAGE_FULL"
            assert "an operator" in waiting.detail
            await asyncio.sleep(2.5)  # many more tries than a chunk has attempts, were each counted
            said = [entry for entry in logs if entry["log_level"] in ("warning", "error")]
            assert [entry["event"] for entry in said] == ["storage_full"]
            await execute(world, "DROP FUNCTION refuse() CASCADE")
            assert await world.finished(job_id) == "completed"
    assert await wait_of(world, job_id) is None
    assert await world.effects(job_id) == {"ok": 120}


async def test_what_cannot_be_recorded_is_not_sent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call whose outcome finds no room would have to be looked into afterwards."""
    monkeypatch.setattr(database, "FULL_WAIT", 0.5)
    await execute(world, REFUSE, "CREATE TRIGGER full_disk BEFORE INSERT ON record_syncs EXECUTE FUNCTION refuse()")
    for start in range(0, 60, 10):
        await world.push(people(10, start=start))
    async with working(world.settings):
        async with asyncio.timeout(60):
            while not await world.sandbox.calls():
                await asyncio.sleep(0.02)
        await asyncio.sleep(1.0)
        calls = [call for call in await world.sandbox.calls() if "upsert" in call["path"]]
        assert len(calls) <= 6
        await execute(world, "DROP FUNCTION refuse() CASCADE")
        async with asyncio.timeout(60):
            while await world.rows("SELECT FROM jobs WHERE finished_at IS NULL"):
                await asyncio.sleep(0.05)
    assert len(await world.sandbox.contacts()) == 60
