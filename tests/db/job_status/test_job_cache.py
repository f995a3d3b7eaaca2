"""What pollers are shown of a job: one sees it as it stands, a crowd as it stood a moment ago, nobody goes back."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from app.job_status.live.job_cache import PATIENT, JobViews
from tests.db.conftest import Desk, people
from tests.db.staging import stage

_BUMP = "UPDATE jobs SET revision = revision + 1 WHERE job_id = $1"


@pytest.fixture
async def views(desk: Desk) -> AsyncIterator[JobViews]:
    made = JobViews(desk.database)
    yield made
    await made.close()


async def running(desk: Desk) -> uuid.UUID:
    job_id = await stage(desk, people(2))
    await desk.execute("UPDATE jobs SET state = 'running' WHERE job_id = $1", job_id)
    return job_id


async def crowd(views: JobViews, desk: Desk, job_id: uuid.UUID) -> None:
    for _ in range(40):
        await views.read(desk.tenant_id, job_id)


async def test_a_crowd_sees_what_is_new_within_its_patience(desk: Desk, views: JobViews) -> None:
    job_id = await running(desk)
    await crowd(views, desk, job_id)
    await desk.execute(_BUMP, job_id)
    seen = []
    for _ in range(int(PATIENT / 0.02) + 20):
        seen.append((await views.read(desk.tenant_id, job_id)).revision)
        await asyncio.sleep(0.02)
    assert seen == sorted(seen)
    assert seen[-1] == seen[0] + 1


async def test_one_of_a_crowd_who_knows_more_is_told_no_less(desk: Desk, views: JobViews) -> None:
    """Somebody who saw the newer revision elsewhere does not go back behind it."""
    job_id = await running(desk)
    await crowd(views, desk, job_id)
    await desk.execute(_BUMP, job_id)
    (row,) = await desk.rows("SELECT revision FROM jobs WHERE job_id = $1", job_id)
    view = await views.read(desk.tenant_id, job_id, at_least=row["revision"])
    assert view.revision == row["revision"]


async def test_the_end_comes_to_a_crowd_too(desk: Desk, views: JobViews) -> None:
    job_id = await running(desk)
    await crowd(views, desk, job_id)
    await desk.execute(
        "UPDATE jobs SET state = 'completed', finished_at = now(), revision = revision + 1 WHERE job_id = $1", job_id
    )
    async with asyncio.timeout(3 * PATIENT):
        while not (await views.read(desk.tenant_id, job_id)).finished:
            await asyncio.sleep(0.02)
    assert views.advise(desk.tenant_id, job_id, await views.read(desk.tenant_id, job_id)) is None


async def test_one_who_asks_alone_sees_the_end_at_once(desk: Desk, views: JobViews) -> None:
    job_id = await running(desk)
    assert not (await views.read(desk.tenant_id, job_id)).finished
    await desk.execute(
        "UPDATE jobs SET state = 'completed', finished_at = now(), revision = revision + 1 WHERE job_id = $1", job_id
    )
    assert (await views.read(desk.tenant_id, job_id)).finished


async def test_a_crowd_costs_no_query_each(desk: Desk, views: JobViews) -> None:
    """With every connection taken, it is still told what was read a moment ago."""
    job_id = await running(desk)
    await crowd(views, desk, job_id)
    await views.read(desk.tenant_id, job_id, at_least=None)
    async with desk.database.connection() as connection, connection.transaction():
        await connection.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        async with asyncio.timeout(PATIENT / 2):
            for _ in range(100):
                await views.read(desk.tenant_id, job_id)
