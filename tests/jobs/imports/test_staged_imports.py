"""Workers on staged files: found without being told, shared fairly, given up when silent, tidied when old."""

from __future__ import annotations

import asyncio
import uuid

import msgspec

from app.auth import service
from app.kit.notifier import Notifier
from jobs.delivery.dispatcher import Dispatcher
from jobs.maintenance import Scheduler
from jobs.retention import prune
from jobs.worker import working
from tests.db.conftest import Desk
from tests.db.staging import outcomes, stage
from tests.jobs.conftest import World, people


def desk_of(world: World, tenant_id: int | None = None) -> Desk:
    return Desk(world.settings, world.database, tenant_id or world.tenant_id)


async def test_a_staged_file_reaches_contacts_and_crm(world: World) -> None:
    """The importer finds it by itself, and deliveries start while it is still being applied."""
    items = people(230)
    job_id = await stage(desk_of(world), items, chunk=50)
    async with working(world.settings):
        assert await world.finished(job_id) == "completed"
    assert await world.effects(job_id) == {"ok": 230}
    assert set(await world.sandbox.contacts()) == {item["id"] for item in items}
    assert len(await outcomes(desk_of(world), job_id)) == 230


async def test_a_staged_file_is_paced_by_the_limit_of_its_key(world: World) -> None:
    """As fast as the limit allows, chunk by chunk; the job says what it waits for, and other tenants go on."""
    settings = msgspec.structs.replace(world.settings, limit_tenant_items="100/5")
    async with world.database.connection() as connection:
        other = await service.ensure_tenant(connection, "small")
    job_id = await stage(desk_of(world), people(300), chunk=50)
    began = asyncio.get_running_loop().time()
    waiting = None
    async with working(settings):
        async with asyncio.timeout(60):
            while waiting is None:
                await asyncio.sleep(0.02)
                ((waiting,),) = [row.values() for row in await world.rows("SELECT waiting FROM jobs")]
        assert "100 items in 5 s for this tenant" in waiting
        theirs = await stage(desk_of(world, other), people(50))
        async with asyncio.timeout(60):
            while await world.rows("SELECT FROM jobs WHERE job_id = $1 AND applied_at IS NULL", theirs):
                await asyncio.sleep(0.02)
        assert await world.rows("SELECT FROM jobs WHERE job_id = $1 AND applied_at IS NULL", job_id)
        assert await world.finished(job_id) == "completed"
    # 100 at once, the last chunk goes into debt: 150 of 20 a second are waited for.
    assert asyncio.get_running_loop().time() - began >= 7.0


async def test_an_announcement_is_heard_at_once(world: World) -> None:
    """No need to wait for the next look around."""
    settings = msgspec.structs.replace(world.settings, sweep_interval=300.0)
    async with working(settings):
        await asyncio.sleep(0.5)
        job_id = await stage(desk_of(world), people(3))
        notifier = Notifier(settings)
        notifier.notify_imports(world.tenant_id, job_id)
        await world.finished(job_id)
        await notifier.close()


async def test_a_small_file_is_not_stuck_behind_a_large_one(world: World) -> None:
    """Neither one of the same tenant nor one of another."""
    settings = msgspec.structs.replace(world.settings, import_concurrency=1)
    async with world.database.connection() as connection:
        other = await service.ensure_tenant(connection, "small")
    large = await stage(desk_of(world), people(3_000), chunk=10)
    async with working(settings):
        while not await world.rows("SELECT FROM job_chunks WHERE job_id = $1", large):
            await asyncio.sleep(0.01)
        mine = await stage(desk_of(world), [{"id": "mine", "email": "mine@example.com"}])
        theirs = await stage(desk_of(world, other), [{"id": "theirs", "email": "theirs@example.com"}])
        async with asyncio.timeout(60):
            while await world.rows("SELECT FROM jobs WHERE job_id = ANY ($1) AND applied_at IS NULL", [mine, theirs]):
                await asyncio.sleep(0.01)
        (row,) = await world.rows("SELECT applied_at, total FROM jobs WHERE job_id = $1", large)
        assert row["applied_at"] is None
        assert row["total"] < 3_000


async def test_a_stopped_worker_leaves_whole_chunks(world: World) -> None:
    """What another worker finds is either applied or not begun."""
    job_id = await stage(desk_of(world), people(2_000), chunk=20)
    async with working(world.settings):
        while not await world.rows("SELECT FROM job_chunks WHERE job_id = $1", job_id):
            await asyncio.sleep(0.01)
    (row,) = await world.rows("SELECT total FROM jobs WHERE job_id = $1", job_id)
    (left,) = await world.rows("SELECT sum(item_count)::int AS n FROM staged_chunks WHERE job_id = $1", job_id)
    assert row["total"] + left["n"] == 2_000
    assert left["n"] > 0
    async with working(world.settings):
        assert await world.finished(job_id) == "completed"
    (made,) = await world.rows("SELECT sum(cardinality(indexes))::int AS n FROM record_versions")
    assert made["n"] == 2_000


def scheduler_of(world: World) -> Scheduler:
    class Nobody:
        def serve(self, tenant_id: int, destination_id: int) -> None:
            """Nothing is delivered here."""

    nobody: Dispatcher = Nobody()  # type: ignore[assignment]  # only `serve` is ever called
    return Scheduler(world.database, nobody, world.settings)


async def test_an_upload_whose_receiver_fell_silent_is_given_up(world: World) -> None:
    """Its job says why, nothing stays staged, and its key is free again."""
    job_id = await stage(desk_of(world), people(5))
    async with world.database.connection() as connection:
        await connection.execute(
            "UPDATE jobs SET state = 'receiving', step = NULL, receiving_until = now() + interval '1 h'"
        )
        await scheduler_of(world).run_once()
        assert await world.rows("SELECT FROM jobs WHERE state = 'receiving'")
        await connection.execute("UPDATE jobs SET receiving_until = now() - interval '1 s'")
    await scheduler_of(world).run_once()
    (row,) = await world.rows("SELECT state, error FROM jobs WHERE job_id = $1", job_id)
    assert row["state"] == "canceled"
    assert msgspec.json.decode(row["error"])["code"] == "UPLOAD_INTERRUPTED"
    assert await world.rows("SELECT FROM staged_chunks") == []


async def test_outcomes_go_when_their_time_is_over_but_not_before(world: World) -> None:
    """The job stays with its summary; one that still has something under way keeps all of it."""
    async with working(world.settings):
        old = (await world.push(people(3))).job_id
        await world.finished(old)
        young = (await world.push(people(6)[3:])).job_id
        await world.finished(young)
    async with world.database.connection() as connection:
        await connection.execute("UPDATE jobs SET finished_at = now() - interval '2 h' WHERE job_id = $1", old)
        open_job = (await world.push([{"id": "open", "email": "open@example.com"}])).job_id
        await connection.execute(
            "UPDATE jobs SET state = 'canceled', finished_at = now() - interval '2 h' WHERE job_id = $1", open_job
        )
    await prune(world.database, msgspec.structs.replace(world.settings, job_retention=3600.0))

    async def kept(job_id: uuid.UUID) -> tuple[int, int, bool]:
        (row,) = await world.rows(
            """SELECT trimmed_at IS NOT NULL AS trimmed,
                (SELECT count(*)::int FROM job_chunks c WHERE c.job_id = j.job_id) AS chunks,
                (SELECT count(*)::int FROM deliveries d WHERE d.job_id = j.job_id) AS deliveries
            FROM jobs j WHERE j.job_id = $1""",
            job_id,
        )
        return row["chunks"], row["deliveries"], row["trimmed"]

    assert await kept(old) == (0, 0, True)
    assert await kept(young) == (1, 1, False)
    assert await kept(open_job) == (1, 1, False)
    (row,) = await world.rows("SELECT succeeded FROM jobs WHERE job_id = $1", old)
    assert row["succeeded"] == 3
