"""Delivery at its edges: what two hands do at once, and what cannot be used."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import msgspec

from app.db import delivering
from app.db.delivering import Claim, Record, Recorded, Tried
from tests.jobs.conftest import World, people


@asynccontextmanager
async def holding(world: World, query: str) -> AsyncIterator[None]:
    """Somebody else's transaction, open with the locks of one statement."""
    other = await asyncpg.connect(world.settings.database_url)
    try:
        async with other.transaction():
            await other.execute(query)
            yield
    finally:
        await other.close()


async def waiting(world: World, count: int) -> None:
    """Until so many sessions of this database wait for a lock."""
    query = """SELECT count(*)::int AS n FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'"""
    async with asyncio.timeout(10):
        while (await world.rows(query))[0]["n"] < count:
            await asyncio.sleep(0.01)


async def take(world: World, *, lease: float = 30.0) -> Claim:
    """The next delivery, claimed as a worker would."""
    (row,) = await world.rows("SELECT destination_id FROM destinations WHERE state = 'active'")
    async with world.database.connection() as connection:
        claim = await delivering.claim_delivery(
            connection,
            world.tenant_id,
            row["destination_id"],
            token=uuid.uuid4(),
            lease=lease,
            concurrency=8,
        )
    assert claim is not None
    return claim


async def record_ok(world: World, claim: Claim) -> Recorded | None:
    """Every contact of the claim arrived."""
    tried = [
        Tried(name, "ok", version, version, None, None, None)
        for name, version in zip(claim.contact_ids, claim.versions, strict=True)
    ]
    record = Record(
        states="o" * len(tried), errors={}, attempts=1, wait=None, absence="clear", tried=tried, letters=[]
    )
    async with world.database.connection() as connection:
        return await delivering.record_delivery(connection, claim, record)


async def release_lost(world: World) -> int:
    async with world.database.connection() as connection:
        return await delivering.release_lost(connection)


async def test_releasing_a_lost_delivery_while_another_of_its_job_is_recorded(world: World) -> None:
    """Both write the job and its counters, and neither is the victim of a deadlock."""
    world.settings = msgspec.structs.replace(world.settings, chunk_size=2)
    answer = await world.push(people(4))
    held, _lost = await take(world), await take(world, lease=-1)
    async with holding(world, "SELECT FROM jobs FOR UPDATE"):
        releasing = asyncio.create_task(release_lost(world))
        await waiting(world, 1)
        recording = asyncio.create_task(record_ok(world, held))
        await waiting(world, 2)
    assert await releasing == 1
    assert await recording == Recorded(answer.job_id, None, None)
    assert await world.effects(answer.job_id) == {"ok": 2, "unknown": 2}
