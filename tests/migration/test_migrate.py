"""Migrations bear being started anywhere, often, and at the same time."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import pytest

from app.errors import MigrationError
from app.migrations.runner import head, migrate
from tests.conftest import with_path
from tests.migration.test_schema import dump


async def test_many_at_once(empty_url: str) -> None:
    """Twelve releases that start together: one does the work, and all of them may go on."""
    applied = await asyncio.gather(*(migrate(empty_url) for _ in range(12)))
    assert sum(bool(revisions) for revisions in applied) == 1
    assert max(applied, key=len)[-1] == head()
    assert await _version(empty_url) == head()


async def test_a_second_run_does_nothing(empty_url: str) -> None:
    assert await migrate(empty_url)
    before = dump(empty_url)
    assert await migrate(empty_url) == []
    assert dump(empty_url) == before


async def test_a_table_lock_is_not_waited_for(database_url: str) -> None:
    """A long report must not turn a migration into an outage; it says what to do."""
    holder = await asyncpg.connect(database_url)
    try:
        async with holder.transaction():
            await holder.execute("LOCK TABLE schema_version IN ACCESS EXCLUSIVE MODE")
            started = time.monotonic()
            with pytest.raises(MigrationError, match="tranche migrate"):
                await migrate(database_url, lock_timeout=0.3)
            assert time.monotonic() - started < 60, "who holds the lock does not let go"
    finally:
        await holder.close()
    assert await migrate(database_url) == []


async def test_a_lock_in_mid_migration_leaves_nothing(empty_url: str) -> None:
    """All revisions are one transaction: what was created before the lock is gone again."""
    holder = await asyncpg.connect(empty_url)
    try:
        async with holder.transaction():
            await holder.execute("CREATE TABLE idempotency_keys ()")
            with pytest.raises(MigrationError, match="nothing was changed"):
                await migrate(empty_url, lock_timeout=0.3)
            assert await _tables(empty_url) == []
            await holder.execute("DROP TABLE idempotency_keys")
    finally:
        await holder.close()
    assert (await migrate(empty_url))[-1] == head()


async def test_another_migration_is_waited_for(empty_url: str) -> None:
    """And no longer: whoever waits for ever hides what is wrong."""
    from app.migrations import runner as module

    holder = await asyncpg.connect(empty_url)
    try:
        await holder.execute("SELECT pg_advisory_lock($1)", module._LOCK)
        with pytest.raises(MigrationError, match="Another migration"):
            await migrate(empty_url, wait=0.3)
        waiting = asyncio.create_task(migrate(empty_url, wait=20))
        await asyncio.sleep(0.3)
        assert not waiting.done()
    finally:
        await holder.close()
    assert (await waiting)[-1] == head()


async def test_a_database_of_a_newer_release_is_left_alone(database_url: str) -> None:
    """An old release that starts once more must say so, not fail in riddles, and change nothing."""
    connection = await asyncpg.connect(database_url)
    await connection.execute("UPDATE schema_version SET version_num = '9999'")
    await connection.close()
    with pytest.raises(MigrationError, match="9999"):
        await migrate(database_url)
    assert await _version(database_url) == "9999"


@pytest.mark.parametrize("fault", ["no server", "no database"])
async def test_a_database_that_cannot_be_used(database_url: str, fault: str) -> None:
    """One line that names the reason, not a traceback."""
    wrong = with_path(database_url, "nowhere") if fault == "no database" else "postgresql://u@127.0.0.1:9/db"
    with pytest.raises(MigrationError, match=r"cannot be used: .+"):
        await migrate(wrong)


async def _version(database_url: str) -> str | None:
    connection = await asyncpg.connect(database_url)
    try:
        version: str | None = await connection.fetchval("SELECT version_num FROM schema_version")
        return version
    finally:
        await connection.close()


async def _tables(database_url: str) -> list[str]:
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
        )
        return [row["relname"] for row in rows]
    finally:
        await connection.close()
