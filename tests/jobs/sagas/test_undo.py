"""Undo and consistency all the way: workers, destinations, and what they hold in the end."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import aiohttp
import pytest
from uuid_utils.compat import uuid7

from app.destinations import service as destination_service
from app.kit.encryption import Vault
from app.kit.notifier import Notifier
from app.sandbox import ANY, open_sandbox
from app.undo import service as undo_service
from app.vocabulary.states import Consistency
from jobs.worker import working
from tests.conftest import LOOPBACK
from tests.jobs.conftest import Sandbox, World, people


async def ask(world: World, job_id: uuid.UUID) -> uuid.UUID:
    asked = await undo_service.undo(
        world.database, world.tenant_id, job_id, key_id="undoer", request_id="undo", new_id=uuid7
    )
    notifier = Notifier(world.settings)
    notifier.notify_imports(world.tenant_id, asked.job_id)
    await asyncio.sleep(0.1)
    await notifier.close()
    return asked.job_id


async def names(sandbox: Sandbox) -> dict[str, str | None]:
    return {id_: c["properties"].get("firstname") for id_, c in (await sandbox.contacts()).items()}


@pytest.fixture
async def second(world: World) -> AsyncIterator[Sandbox]:
    """Another CRM of the same tenant: the destination `other`."""
    async with open_sandbox(fields=[ANY]) as base_url, aiohttp.ClientSession() as session:
        async with world.database.connection() as connection:
            await destination_service.add_destination(
                connection,
                Vault(world.settings.secret_key),
                world.tenant_id,
                destination_service.NewDestination(name="other", kind="hubspot", base_url=base_url, token="pat-good"),
                private=LOOPBACK,
            )
        yield Sandbox(base_url, session)


async def test_destinations_get_back_what_they_had(world: World, second: Sandbox) -> None:
    async with working(world.settings):
        await world.finished((await world.push(people(120, first_name="old"))).job_id)
        pushed = (await world.push(people(120, first_name="new"))).job_id
        await world.finished(pushed)
        await world.finished((await world.push(people(20, first_name="late"))).job_id)
        undo_id = await ask(world, pushed)
        assert await world.finished(undo_id) == "completed_with_failures"
    expected = {f"c{n:05}": "late" if n < 20 else "old" for n in range(120)}
    assert await names(world.sandbox) == expected
    assert await names(second) == expected


async def test_an_import_that_is_still_on_its_way_can_be_undone(world: World) -> None:
    """Its deliveries then bring what was restored: the CRM ends with that, however the two overtake one another."""
    async with working(world.settings):
        await world.finished((await world.push(people(300, first_name="old"))).job_id)
        await world.sandbox.misbehave(latency={"latency": 0.05, "jitter": 0.1})
        pushed = (await world.push(people(300, first_name="new"))).job_id
        await asyncio.sleep(0.1)
        undo_id = await ask(world, pushed)
        assert await world.finished(undo_id) == "completed"
        assert await world.finished(pushed) == "completed"
    assert set((await names(world.sandbox)).values()) == {"old"}


async def test_a_new_undo_is_begun_at_once(world: World) -> None:
    """By the wake-up; looking around by itself would take ten minutes."""
    from msgspec.structs import replace

    settings = replace(world.settings, saga_interval=600.0, sweep_interval=600.0)
    async with working(world.settings):
        pushed = (await world.push(people(3))).job_id
        await world.finished(pushed)
    await world.rows("UPDATE destinations SET state = 'removed'")
    async with working(settings):
        await asyncio.sleep(1.0)
        undo_id = await ask(world, pushed)
        assert await world.finished(undo_id) == "completed"


async def test_a_worker_that_is_stopped_leaves_the_undo_to_the_next(world: World) -> None:
    async with working(world.settings):
        pushed = (await world.push(people(1_000, first_name="new"))).job_id
        await world.finished(pushed)
    await world.rows("UPDATE destinations SET state = 'removed'")
    undo_id = await ask(world, pushed)
    for _ in range(5):
        async with working(world.settings):
            await asyncio.sleep(0.05)
    async with working(world.settings):
        assert await world.finished(undo_id) == "completed"
    count = "SELECT sum(cardinality(indexes))::int AS n FROM record_versions WHERE job_id = $1"
    (row,) = await world.rows(count, undo_id)
    assert row["n"] == 1_000


async def test_what_one_destination_refuses_the_other_gives_back(world: World, second: Sandbox) -> None:
    async with working(world.settings):
        await world.finished((await world.push(people(50, first_name="old"))).job_id)
        await second.misbehave(reject={"keys": ["c00003", "c00033"]})
        options = {"consistency": Consistency.ALL_DESTINATIONS}
        pushed = (await world.push(people(50, first_name="new"), **options)).job_id
        assert await world.finished(pushed) == "completed_with_failures"
        await second.recover()
        async with asyncio.timeout(60):
            while not await world.rows("SELECT FROM sagas WHERE finished_at IS NOT NULL"):
                await asyncio.sleep(0.05)
    expected = {f"c{n:05}": "old" if n in (3, 33) else "new" for n in range(50)}
    assert await names(world.sandbox) == expected
    assert await names(second) == expected
    left = await world.rows("SELECT FROM dead_letters WHERE resolution IS NULL")
    assert left == []
