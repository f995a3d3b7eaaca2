"""Syncs: a destination that is added late gets what is there, once, whoever is stopped meanwhile."""

import asyncio
import uuid
from collections import Counter
from typing import Any

import aiohttp
import msgspec
import pytest

from app.destinations import service as destination_service
from app.errors import Conflict, Invalid, NotFound
from app.imports.cancel.service import cancel
from app.kit.encryption import Vault
from app.resource_types.catalog import Catalog
from app.resources.types.companies import COMPANIES
from app.sandbox import ANY, open_sandbox
from app.syncs import creation
from jobs.delivery import sync_runner
from jobs.worker import working
from tests.conftest import LOOPBACK
from tests.jobs.breaker.test_circuits import until
from tests.jobs.conftest import Sandbox, World, people


async def add(world: World, url: str, kind: str = "hubspot") -> None:
    async with world.database.connection() as connection:
        await destination_service.add_destination(
            connection,
            Vault(world.settings.secret_key),
            world.tenant_id,
            destination_service.NewDestination(
                name="late", kind=kind, base_url=url, token="pat-late", options={"batch_size": 20}
            ),
            private=LOOPBACK,
        )


async def sync(world: World, **asked: Any) -> uuid.UUID:
    async with world.database.connection() as connection:
        asked_for = await creation.create(
            connection,
            world.tenant_id,
            asked.pop("name", "late"),
            creation.SyncRequest(**asked),
            catalog=Catalog(),
            request_id="sync-1",
            actor="test",
        )
        assert asked_for.job_id is not None
        return asked_for.job_id


def keys(effects: list[dict[str, Any]]) -> Counter[str]:
    return Counter(effect["key"] for effect in effects if effect["changed"])


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_runner, "_MOST_RECORDS", 60)
    monkeypatch.setattr(sync_runner, "_MOST_WAITING", 3)


async def test_a_destination_that_is_added_late_gets_everything_once(world: World, small_steps: None) -> None:
    world.settings = msgspec.structs.replace(world.settings, chunk_size=20)
    async with open_sandbox(fields=[ANY]) as url, aiohttp.ClientSession() as session, working(world.settings):
        late = Sandbox(url, session)
        first = await world.push(people(300))
        await world.push([{"id": f"f{n}", "name": f"Firm {n}"} for n in range(30)], COMPANIES)
        gone = await world.push([{"id": "c00007", "deleted": True}])
        for job in (first, gone):
            assert await world.finished(job.job_id) == "completed"
        await add(world, url)
        changed = await world.push(people(10, 20, company="New"))
        assert await world.finished(changed.job_id) == "completed"
        job_id = await sync(world)
        assert await world.finished(job_id) == "completed"
        found = keys(await late.effects())
        assert set(found.values()) == {1}, "nothing was sent twice"
        assert len(found) == 300 - 1 + 30
        [row] = await world.rows("SELECT kind, total, items, succeeded, sync FROM jobs WHERE job_id = $1", job_id)
        assert row["kind"] == "sync"
        assert row["total"] == row["items"] == row["succeeded"] == 300 - 1 - 10 + 30, "without those that it has"
        assert row["sync"] is None

        before = len(await late.calls())
        again = await sync(world)
        assert await world.finished(again) == "completed"
        assert len(await late.calls()) == before, "it lacks nothing"
        everything = await sync(world, mode="all", type="companies")
        assert await world.finished(everything) == "completed"
        assert [call["n"] for call in (await late.calls())[before:]] == [20, 10]


async def test_whoever_is_stopped_leaves_it_to_others(world: World, small_steps: None) -> None:
    world.settings = msgspec.structs.replace(world.settings, chunk_size=20)
    async with open_sandbox(fields=[ANY]) as url, aiohttp.ClientSession() as session:
        late = Sandbox(url, session)
        async with working(world.settings):
            assert await world.finished((await world.push(people(600))).job_id) == "completed"
        await add(world, url)
        await late.misbehave(latency={"latency": 0.05})
        job_id = await sync(world)
        for _ in range(2):
            async with working(world.settings):
                sent = len(await late.effects())

                async def moves(sent: int = sent) -> bool:
                    return len(await late.effects()) > sent

                await until(moves)
        async with working(world.settings):
            assert await world.finished(job_id) == "completed"
        found = keys(await late.effects())
        assert len(found) == 600
        assert set(found.values()) == {1}


async def test_what_is_imported_meanwhile_does_not_wait_behind_it(world: World, small_steps: None) -> None:
    world.settings = msgspec.structs.replace(world.settings, chunk_size=20)
    async with open_sandbox(fields=[ANY]) as url, aiohttp.ClientSession() as session, working(world.settings):
        late = Sandbox(url, session)
        assert await world.finished((await world.push(people(1_000))).job_id) == "completed"
        await add(world, url)
        await late.misbehave(latency={"latency": 0.1})
        job_id = await sync(world)
        await until(lambda: _some(late))
        fresh = await world.push([{"id": "fresh", "email": "fresh@example.com"}])
        assert await world.finished(fresh.job_id) == "completed"
        [row] = await world.rows("SELECT state FROM jobs WHERE job_id = $1", job_id)
        assert row["state"] == "running", "the sync goes on"
        await cancel(world.database, world.tenant_id, job_id, actor="test")
        await asyncio.sleep(1)
        assert len(keys(await late.effects())) < 1_000, "it was canceled"


async def _some(sandbox: Sandbox) -> bool:
    return bool(await sandbox.effects())


async def test_what_cannot_be_synced_is_refused(world: World) -> None:
    with pytest.raises(NotFound):
        await sync(world, name="nowhere")
    with pytest.raises(Invalid, match="'products'"):
        await sync(world, name="hubspot", type="products")
    async with world.database.connection() as connection:
        nothing = await creation.create(
            connection,
            world.tenant_id,
            "hubspot",
            creation.SyncRequest(),
            catalog=Catalog(),
            request_id="sync-1",
            actor="test",
        )
    assert (nothing.job_id, nothing.records) == (None, 0), "there are no records"
    await world.push(people(3))
    job_id = await sync(world, name="hubspot")
    with pytest.raises(Conflict, match=str(job_id)):
        await sync(world, name="hubspot")
