"""The accept transaction and its housekeeping at their edges."""

from __future__ import annotations

import asyncio

import asyncpg
import msgspec
import pytest

from app.errors import Overloaded
from app.kit.postgres.database import Database
from tests.db.conftest import Desk, forget_answers, people, told


async def test_a_batch_that_cannot_be_recorded_is_refused_for_what_it_is(desk: Desk) -> None:
    """Somebody locks the table of jobs: that is no rival request, and the key is free once it is over."""
    hasty = msgspec.structs.replace(desk.settings, db_lock_timeout=0.2)
    usual, desk.database = desk.database, Database(hasty, application_name="tests")
    other = await asyncpg.connect(desk.settings.database_url)
    try:
        async with other.transaction():
            await other.execute("LOCK TABLE jobs IN SHARE MODE")
            with pytest.raises(Overloaded):
                await desk.send(people(1), key="k")
        assert told(await desk.push(people(1), key="k")) == [("ok", "created", 1)]
    finally:
        await other.close()
        await desk.database.close()
        desk.database = usual


async def test_housekeeping_keeps_up_with_many_answers(desk: Desk) -> None:
    """More than one stroke's worth expired since the last time: all of it goes, and two at once do not mind."""
    await desk.push(people(1), key="k")
    await desk.execute(
        """INSERT INTO idempotency_keys (tenant_id, route, key, fingerprint, job_id, status, answer, expires_at)
        SELECT tenant_id, route, 'old' || g, fingerprint, job_id, status, answer,
            now() - make_interval(secs => CASE WHEN g <= 2500 THEN 1 ELSE 100 END)
        FROM idempotency_keys, generate_series(1, 5000) AS g"""
    )

    async def forget() -> None:
        await forget_answers(desk, 50.0)

    await asyncio.gather(forget(), forget())
    left = await desk.rows("SELECT key, answer FROM idempotency_keys ORDER BY key")
    assert len(left) == 2501
    assert [row["key"] for row in left if row["answer"] is not None] == ["k"]


@pytest.mark.parametrize(
    ("good", "bad", "owed", "state"),
    [
        (2, 0, True, "syncing"),
        (1, 1, True, "syncing"),
        (0, 2, True, "completed_with_failures"),
        (2, 0, False, "completed"),
        (0, 0, False, "completed"),
        (1, 1, False, "completed_with_failures"),
    ],
)
async def test_where_a_job_begins(desk: Desk, good: int, bad: int, owed: bool, state: str) -> None:
    """At its end, unless some destination is owed what was changed."""
    if owed:
        await desk.add_destination("hubspot")
    await desk.push([*people(good), *[{"id": f"bad{n}"} for n in range(bad)]])
    (job,) = await desk.rows("SELECT state, finished_at IS NULL AS open FROM jobs")
    assert job == {"state": state, "open": state == "syncing"}
