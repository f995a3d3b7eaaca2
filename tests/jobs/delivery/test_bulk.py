"""Large syncs to Salesforce go by jobs of Bulk API 2.0: all arrives once, whoever is stopped and whatever is lost."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import msgspec
import pytest

from app.destinations import service as destination_service
from app.kit.encryption import Vault
from app.resource_types.catalog import Catalog
from app.sandbox import ANY, open_sandbox, salesforce_bulk
from app.sandbox.salesforce_bulk import Jobs
from app.syncs import creation
from jobs.crm.port import BulkJob, Headers, Health
from jobs.crm.salesforce.bulk import BulkJobs
from jobs.worker import working
from tests.conftest import LOOPBACK
from tests.jobs.breaker.test_circuits import until
from tests.jobs.conftest import Sandbox, World, people


class Late:
    """A Salesforce that is added when the records are there already."""

    def __init__(self, world: World, sandbox: Sandbox) -> None:
        self.world = world
        self.sandbox = sandbox

    async def sync(self, mode: creation.Mode = "missing") -> uuid.UUID:
        async with self.world.database.connection() as connection:
            made = await creation.create(
                connection,
                self.world.tenant_id,
                "late",
                creation.SyncRequest(mode=mode),
                catalog=Catalog(),
                request_id="sync-1",
                actor="test",
            )
        assert made.job_id is not None
        return made.job_id

    async def written(self) -> Counter[str]:
        return Counter(effect["key"] for effect in await self.sandbox.effects() if effect["changed"])

    async def running(self) -> bool:
        return bool(await self.world.rows("SELECT FROM deliveries WHERE task IS NOT NULL"))

    async def held(self) -> list[dict[str, Any]]:
        url = f"{self.sandbox.base_url}/__sandbox__/contacts?object=Contact"
        async with self.sandbox._session.get(url) as answer:
            return list((await answer.json())["contacts"])

    async def paths(self) -> Counter[str]:
        """What was called to write, and how often."""
        calls = [call["path"] for call in await self.sandbox.calls()]
        return Counter("job" if path.endswith("/jobs/ingest") else "collection" for path in calls if _writes(path))


def _writes(path: str) -> bool:
    return path.endswith("/jobs/ingest") or "/composite/sobjects/" in path


@pytest.fixture
async def late(world: World) -> AsyncIterator[Late]:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(open_sandbox("salesforce", fields=[ANY]))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        async with working(world.settings):
            for start in range(0, 600, 300):
                assert await world.finished((await world.push(people(300, start, last_name="L"))).job_id) == "completed"
        new = destination_service.NewDestination(
            name="late",
            kind="salesforce",
            base_url=url,
            token="00D",
            options={"bulk_from": 200, "fields": {"company": None}},
        )
        async with world.database.connection() as connection:
            await destination_service.add_destination(
                connection, Vault(world.settings.secret_key), world.tenant_id, new, private=LOOPBACK
            )
        yield Late(world, Sandbox(url, session))


async def test_a_large_sync_is_one_job(late: Late) -> None:
    async with working(late.world.settings):
        assert await late.world.finished(await late.sync()) == "completed"
        assert await late.paths() == {"job": 1}
        assert set((await late.written()).values()) == {1}
        assert len(await late.written()) == 600
        rows = await late.world.rows(
            "SELECT count(*)::int AS n, bool_and(created) AS made FROM record_syncs WHERE remote_id LIKE '003%'"
        )
        assert rows == [{"n": 600, "made": True}]
        # Everything again, after a change of its fields: each record is known there by now.
        assert await late.world.finished(await late.sync("all")) == "completed"
        assert await late.paths() == {"job": 2}
        few = await late.world.push(people(5, last_name="M"))
        assert await late.world.finished(few.job_id) == "completed"
        assert await late.paths() == {"job": 2, "collection": 1}


async def test_whom_the_job_does_not_write_a_collection_does_or_refuses(late: Late) -> None:
    await late.sandbox.misbehave(reject={"keys": ["c00007"], "message": "no such country"})
    async with working(late.world.settings):
        assert await late.world.finished(await late.sync()) == "completed_with_failures"
    assert await late.paths() == {"job": 1, "collection": 1}
    assert len(await late.written()) == 599
    (row,) = await late.world.rows("SELECT record_id, error_detail FROM dead_letters")
    assert row["record_id"] == "c00007"
    assert "no such country" in row["error_detail"]


@pytest.mark.parametrize("when", ["before it is known to run", "while it runs"])
async def test_another_worker_goes_on_with_the_job(late: Late, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(salesforce_bulk, "_RUNS", 3600.0)
    job_id = await late.sync()
    async with working(late.world.settings):

        async def begun() -> bool:
            rows = await late.world.rows("SELECT task FROM deliveries WHERE task IS NOT NULL")
            return bool(rows) and (
                when != "while it runs" or any(c["path"].endswith("AAA") for c in await late.sandbox.calls())
            )

        await until(begun)
    assert len(await late.written()) == 0
    monkeypatch.setattr(salesforce_bulk, "_RUNS", 0.0)
    async with working(late.world.settings):
        assert await late.world.finished(job_id) == "completed"
    assert set((await late.written()).values()) == {1}
    assert len(await late.written()) == 600
    (row,) = await late.world.rows("SELECT count(*)::int AS n FROM deliveries WHERE task IS NOT NULL")
    assert row["n"] == 0


async def test_what_changes_while_a_job_runs_is_sent_after_it(late: Late, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks after the job for a while, and it is slower than any grace."""
    late.world.settings = msgspec.structs.replace(late.world.settings, reconcile_grace=0.1)
    monkeypatch.setattr(salesforce_bulk, "_RUNS", 3600.0)
    job_id = await late.sync()
    async with working(late.world.settings):
        await until(late.running)
    changed = await late.world.push([*people(1, last_name="New"), {"id": "c00001", "deleted": True}])
    async with working(late.world.settings):
        await asyncio.sleep(1.5)
        assert len(await late.written()) == 0
        monkeypatch.setattr(salesforce_bulk, "_RUNS", 0.0)
        assert await late.world.finished(job_id) == "completed"
        assert await late.world.finished(changed.job_id) == "completed"
    held = {r["key"]: r["properties"] for r in await late.held()}
    assert held["c00000"]["LastName"] == "New"
    assert "c00001" not in held
    assert len(held) == 599


@pytest.mark.parametrize("now", [{"bulk_from": None}, {"bulk_from": 5_000}])
async def test_a_job_is_ended_though_none_would_be_begun_now(
    late: Late, now: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(salesforce_bulk, "_RUNS", 3600.0)
    job_id = await late.sync()
    async with working(late.world.settings):
        await until(late.running)
    monkeypatch.setattr(salesforce_bulk, "_RUNS", 0.0)
    change = destination_service.DestinationChange(options=now)
    async with late.world.database.connection() as connection:
        vault = Vault(late.world.settings.secret_key)
        await destination_service.change_destination(connection, vault, late.world.tenant_id, "late", change)
    async with working(late.world.settings):
        assert await late.world.finished(job_id) == "completed"
    assert set((await late.written()).values()) == {1}
    assert len(await late.written()) == 600


async def test_a_job_that_was_never_started_is_aborted(late: Late, monkeypatch: pytest.MonkeyPatch) -> None:
    start, lost = BulkJobs.start, []

    async def lose(self: BulkJobs, task: str, headers: Headers) -> BulkJob:
        if lost:
            return await start(self, task, headers)
        lost.append(task)
        return BulkJob(task=None, state=None, health=Health.CRM_FAULT, detail="the request was lost", timed_out=True)

    monkeypatch.setattr(BulkJobs, "start", lose)
    async with working(late.world.settings):
        assert await late.world.finished(await late.sync()) == "completed"
    assert len(lost) == 1
    assert set((await late.written()).values()) == {1}
    assert len(await late.written()) == 600


async def test_a_job_that_nobody_knows_any_more_is_settled_by_reading(
    late: Late, monkeypatch: pytest.MonkeyPatch
) -> None:
    late.world.settings = msgspec.structs.replace(late.world.settings, reconcile_grace=0.1)
    find, gone = Jobs.find, []

    def forget(self: Jobs, portal: str, job_id: str) -> Any:
        job = find(self, portal, job_id)
        if job is not None and job.state == "JobComplete":
            gone.append(job_id)
            return None
        return job

    monkeypatch.setattr(Jobs, "find", forget)
    async with working(late.world.settings):
        assert await late.world.finished(await late.sync()) == "completed"
        await asyncio.sleep(0)
    assert set(gone)
    assert set((await late.written()).values()) == {1}
    assert len(await late.written()) == 600
