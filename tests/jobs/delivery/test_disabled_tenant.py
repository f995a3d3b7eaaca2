"""A disabled tenant: what it is owed stays where it is, and goes on once it is enabled."""

from __future__ import annotations

import asyncio

from app.auth import service
from jobs.worker import working
from tests.db.staging import stage
from tests.jobs.conftest import World, people
from tests.jobs.imports.test_staged_imports import desk_of


async def test_nothing_of_a_disabled_tenant_moves_until_it_is_enabled(world: World) -> None:
    async with world.database.connection() as connection:
        other = await service.ensure_tenant(connection, "other")
    sync = await world.push(people(3))
    file = await stage(desk_of(world), people(20, start=100))
    async with world.database.connection() as connection:
        await service.set_tenant_disabled(connection, "acme", True)
    async with working(world.settings):
        theirs = await stage(desk_of(world, other), people(2))
        desk = desk_of(world, other)
        async with asyncio.timeout(60):
            while not await desk.rows("SELECT FROM jobs WHERE job_id = $1 AND finished_at IS NOT NULL", theirs):
                await asyncio.sleep(0.02)
        await asyncio.sleep(2 * world.settings.sweep_interval)
        assert await world.sandbox.calls() == []
        assert await world.effects(sync.job_id) == {"pending": 3}
        (job,) = await world.rows("SELECT state FROM jobs WHERE job_id = $1", file)
        assert job["state"] == "queued"
        async with world.database.connection() as connection:
            await service.set_tenant_disabled(connection, "acme", False)
        assert await world.finished(sync.job_id) == "completed"
        assert await world.finished(file) == "completed"
    assert len(await world.sandbox.contacts()) == 23
