"""Rows past their time: all of them go, and nothing else does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from app.auth import service
from app.retention import queries
from app.retention.queries import Limits
from app.settings import Settings
from jobs.retention import KEY, Pruner, prune
from tests.db.conftest import Desk
from tests.jobs.conftest import World, people


@pytest.fixture
async def redis(settings: Settings) -> AsyncIterator[Redis]:
    async with Redis.from_url(settings.redis_url) as client:
        yield client


async def old_changes(world: World, count: int, tenant_id: int | None = None) -> None:
    await world.rows(
        """INSERT INTO circuit_changes (tenant_id, destination_id, at, circuit, before, after, opens, seconds, detail)
        SELECT $1, 1, now() - interval '91 days', 'crm', 'closed', 'open', 1, 1, '' FROM generate_series(1, $2::int)""",
        tenant_id or world.tenant_id,
        count,
    )


async def changes(world: World) -> int:
    (row,) = await world.rows("SELECT count(*)::int AS n FROM circuit_changes")
    return int(row["n"])


async def test_one_pass_removes_more_than_a_batch_of_each_tenant(world: World) -> None:
    async with world.database.connection() as connection:
        other = await service.ensure_tenant(connection, "other")
    await old_changes(world, 4_500)
    await old_changes(world, 1_000, other)
    await world.rows("UPDATE circuit_changes SET at = now() - interval '89 days' WHERE change_id = 1")
    assert await prune(world.database, world.settings)
    assert await changes(world) == 1


async def test_answers_to_the_operator_expire_too(world: World) -> None:
    """They are no tenant's."""
    await world.rows(
        "INSERT INTO idempotency_keys (tenant_id, route, key, fingerprint, status, answer, expires_at) "
        "VALUES (0, 'POST /v1/tenants', 'k', '', 201, 'x', now() - interval '1 second')"
    )
    assert await prune(world.database, world.settings)
    assert await world.rows("SELECT answer FROM idempotency_keys") == [{"answer": None}]


async def test_a_backlog_is_shared_and_gone_on_with_at_once(world: World, redis: Redis) -> None:
    """A pass has its time; whatever is left then is nobody's for a minute, but everybody's now."""
    await old_changes(world, 6_000)
    clock = iter(range(1_000_000))
    hasty = [Pruner(world.database, redis, world.settings, budget=3, monotonic=lambda: next(clock)) for _ in range(2)]
    passes = 0
    while await changes(world):
        assert [await pruner.run_once() for pruner in hasty] == [True, True]
        passes += 1
    assert passes > 1


async def test_one_worker_looks_for_all(world: World, redis: Redis) -> None:
    clock = [0.0]
    pruners = [Pruner(world.database, redis, world.settings, monotonic=lambda: clock[0]) for _ in range(4)]
    assert sorted(await asyncio.gather(*(pruner.run_once() for pruner in pruners))) == [False, False, False, True]
    await redis.delete(KEY)  # its time is over, or its holder was killed and it expired
    assert not any([await pruner.run_once() for pruner in pruners])
    clock[0] = 60.0
    assert sum([await pruner.run_once() for pruner in pruners]) == 1


async def test_a_worker_that_died_in_a_pass_is_replaced(world: World, redis: Redis) -> None:
    await redis.set(KEY, b"1", px=100)
    pruner = Pruner(world.database, redis, world.settings, interval=0.05)
    assert not await pruner.run_once()
    async with asyncio.timeout(10):
        while not await pruner.run_once():
            await asyncio.sleep(0.02)


async def test_without_redis_every_worker_removes(world: World) -> None:
    await old_changes(world, 10)
    async with Redis.from_url("redis://127.0.0.1:1") as nobody:
        assert await Pruner(world.database, nobody, world.settings).run_once()
    assert await changes(world) == 0


async def test_jobs_go_by_hundreds_in_few_statements(world: World) -> None:
    """Small imports end faster than one statement each could trim them."""
    await world.push(people(2))
    await world.rows(
        """INSERT INTO jobs (tenant_id, job_id, kind, type, state, root_job_id, request_id, key_id, total, succeeded,
            failed, retry, finished_at)
        SELECT $1, i, 'import', 'contacts', 'completed', i, 'r', 'k', 1, 1, 0, 0, now() - interval '31 days'
        FROM (SELECT gen_random_uuid() AS i FROM generate_series(1, 2500)) x""",
        world.tenant_id,
    )
    await world.rows(
        """INSERT INTO job_chunks (tenant_id, job_id, first_index, item_count, outcomes)
        SELECT tenant_id, job_id, 0, 1, '' FROM jobs WHERE finished_at < now() - interval '30 days'"""
    )
    statements = []
    async with world.database.connection() as connection:
        connection.add_query_logger(lambda said: statements.append(said.query))
        limits = Limits.from_settings(world.settings)
        while (await queries.trim_jobs(connection, world.tenant_id, limits))[1]:
            pass
    assert len(statements) < 30
    (row,) = await world.rows(
        """SELECT count(trimmed_at)::int AS trimmed, (SELECT count(*)::int FROM job_chunks) AS chunks FROM jobs"""
    )
    assert row == {"trimmed": 2_500, "chunks": 1}


async def test_a_fault_with_one_tenant_spares_the_others(world: World) -> None:
    async with world.database.connection() as connection:
        other = await service.ensure_tenant(connection, "other")
    await old_changes(world, 5)
    await old_changes(world, 5, other)
    await Desk(world.settings, world.database, other).execute(
        f"""CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END';
        CREATE TRIGGER refuse BEFORE DELETE ON circuit_changes
            FOR EACH ROW WHEN (old.tenant_id = {world.tenant_id}) EXECUTE FUNCTION refuse()"""
    )
    await prune(world.database, world.settings)
    assert await changes(world) == 5
