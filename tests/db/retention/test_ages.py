"""What is removed by its age, table by table: all of it, and nothing that somebody is still shown."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec
import pytest
from uuid_utils.compat import uuid7

from app.errors import JobNotUndoable
from app.job_status.service import read_job
from app.records.history import Version, read_history
from app.undo import service as undo_service
from jobs.retention import prune
from tests.db.conftest import Desk, people, person
from tests.types import CONTACTS

YEAR = 31_536_000.0


async def age(desk: Desk, job_id: uuid.UUID, years: float = 2) -> None:
    """As if the job had ended, and changed what it did, so long ago."""
    for table, column in (("jobs", "finished_at"), ("record_versions", "changed_at")):
        await desk.rows(
            f"UPDATE {table} SET {column} = {column} - $2 * interval '1 year' WHERE job_id = $1", job_id, years
        )


async def pruned(desk: Desk, **settings: Any) -> None:
    """Whatever lets go of something else has done so."""
    for _ in range(3):
        assert await prune(desk.database, msgspec.structs.replace(desk.settings, **settings))


async def history_of(desk: Desk, record_id: str) -> list[Version]:
    async with desk.database.connection() as connection:
        versions, _ = await read_history(connection, desk.tenant_id, CONTACTS, record_id, after=None, limit=100)
    return versions


async def undo(desk: Desk, job_id: uuid.UUID) -> None:
    await undo_service.undo(desk.database, desk.tenant_id, job_id, key_id="k", request_id="r", new_id=uuid7)


async def kept(desk: Desk) -> set[tuple[str, int]]:
    return {(row["record_id"], row["version"]) for row in await desk.history()}


async def test_versions_go_once_they_are_superseded_for_so_long(desk: Desk) -> None:
    first = (await desk.push(people(3, first_name="a"))).job_id
    second = (await desk.push(people(2, first_name="b"))).job_id
    third = (await desk.push(people(1, first_name="c"))).job_id
    ids = [item["id"] for item in people(3)]
    await age(desk, first, 3)
    await age(desk, second, 2)
    await pruned(desk)
    assert len(await kept(desk)) == 6  # for ever, by default
    await pruned(desk, history_retention=YEAR)
    # The version that the newest change took the place of is not superseded for a year.
    assert await kept(desk) == {(ids[0], 3), (ids[0], 2), (ids[1], 2), (ids[2], 1)}
    told = await history_of(desk, ids[0])
    assert [(v.version, v.before is not None, v.before_kept) for v in told] == [(3, True, True), (2, False, False)]
    (only,) = await history_of(desk, ids[2])
    assert (only.version, only.before, only.before_kept) == (1, None, True)
    for job_id in (first, second):
        with pytest.raises(JobNotUndoable, match="no longer kept"):
            await undo(desk, job_id)
    await undo(desk, third)


async def test_a_chunk_is_rewritten_or_goes_as_a_whole(desk: Desk) -> None:
    """Blocks of many versions, of which some are superseded, twice or three times."""
    jobs = [
        (await desk.push(people(count, first_name=name))).job_id
        for count, name in ((400, "a"), (300, "b"), (150, "c"), (150, "d"))
    ]
    for job_id in jobs:
        await age(desk, job_id)
    before = {(row["record_id"], row["version"]): row for row in await desk.history()}
    await pruned(desk, history_retention=YEAR)
    after = {(row["record_id"], row["version"]): row for row in await desk.history()}
    current = {(row["record_id"], row["version"]) for row in await desk.contacts()}
    assert set(after) == current
    for place, row in after.items():
        assert row == before[place] | {"prev_job_id": None, "prev_item_index": None}
    rows = await desk.rows("SELECT job_id FROM record_versions")
    assert {row["job_id"] for row in rows} == {jobs[0], jobs[1], jobs[3]}
    (signed,) = await desk.rows("SELECT cardinality(signatures) AS n FROM record_versions WHERE job_id = $1", jobs[0])
    assert signed["n"] == 100


async def test_what_is_being_undone_keeps_its_history(desk: Desk) -> None:
    first = (await desk.push(people(2, first_name="a"))).job_id
    second = (await desk.push(people(2, first_name="b"))).job_id
    await age(desk, first)
    await age(desk, second)
    await undo(desk, second)
    await pruned(desk, history_retention=YEAR)
    assert len(await kept(desk)) == 4


async def test_a_job_goes_when_no_version_names_it(desk: Desk) -> None:
    failed = (await desk.push([{"id": "x", "email": "nobody"}])).job_id
    child = uuid7()
    await desk.rows(
        """INSERT INTO jobs (tenant_id, job_id, kind, type, state, root_job_id, request_id, key_id, total, succeeded,
            failed, retry, finished_at)
        VALUES ($1, $2, 'retry', 'contacts', 'completed', $3, 'r', 'k', 1, 1, 0, 0, now())""",
        desk.tenant_id,
        child,
        failed,
    )
    made = (await desk.push(people(1))).job_id
    superseded = (await desk.push([person(7)])).job_id
    newest = (await desk.push([person(7) | {"first_name": "new"}])).job_id
    young = (await desk.push([{"id": "y", "email": "nobody"}])).job_id
    for job_id in (failed, made, superseded, newest):
        await age(desk, job_id)
        await desk.rows(
            "INSERT INTO effects (tenant_id, job_id, destination_id, ok) VALUES ($1, $2, 1, 1)", desk.tenant_id, job_id
        )
    await desk.rows(
        """INSERT INTO sagas (tenant_id, saga_id, workflow, subject, state, actor, finished_at)
        SELECT $1, gen_random_uuid(), 'consistency', j, 'done', 'k', now() FROM unnest($2::uuid[]) j""",
        desk.tenant_id,
        [failed, made],
    )

    async def left() -> tuple[set[uuid.UUID], set[uuid.UUID], set[uuid.UUID]]:
        found = [
            await desk.rows(f"SELECT {column} AS job_id FROM {table}")
            for table, column in (("jobs", "job_id"), ("effects", "job_id"), ("sagas", "subject"))
        ]
        jobs, effects, sagas = ({row["job_id"] for row in rows} for rows in found)
        return jobs, effects, sagas

    await pruned(desk, job_summary_retention=YEAR)
    assert (await left())[0] == {failed, child, made, superseded, newest, young}  # the root waits for its retry
    await age(desk, child)
    await pruned(desk, job_summary_retention=YEAR)
    assert await left() == ({made, superseded, newest, young}, {made, superseded, newest}, {made})
    await pruned(desk, job_summary_retention=YEAR, history_retention=YEAR)
    assert (await left())[0] == {made, newest, young}  # the newest versions of records name these


async def dead_letter(desk: Desk, job_id: uuid.UUID, delivery_id: int, *, years: float | None) -> None:
    """Settled so many years ago; `None`: it is open."""
    await desk.rows(
        """INSERT INTO dead_letters (tenant_id, destination_id, type_id, record_id, version, job_id, item_index,
            delivery_id, state, error_code, error_detail, attempts, request_id, root_job_id, resolution, resolved_at)
        VALUES ($1, 1, 1, 'c', 1, $2, 0, $3::int, 'failed', 'DESTINATION_REJECTED', 'no', 1, 'r', $2,
            CASE WHEN $4::float8 IS NOT NULL THEN 'dropped' END, now() - $4 * interval '1 year')""",
        desk.tenant_id,
        job_id,
        delivery_id,
        years,
    )
    await desk.rows(
        """INSERT INTO delivery_calls (tenant_id, delivery_id, attempt, call, asked, event_id, sent_at, milliseconds,
            detail) VALUES ($1, $2, 1, 1, 'push', 'e', now(), 1, '')""",
        desk.tenant_id,
        delivery_id,
    )


async def test_settled_dead_letters_go_with_their_evidence(desk: Desk) -> None:
    old, shown = [(await desk.push(people(1, first_name=name))).job_id for name in "ab"]
    await age(desk, old)
    await dead_letter(desk, old, 1, years=2)
    await dead_letter(desk, old, 2, years=None)
    await dead_letter(desk, old, 3, years=0.5)
    await dead_letter(desk, shown, 4, years=2)  # the items of its job are still shown
    destination_id = await desk.add_destination("hubspot")
    await desk.rows("UPDATE dead_letters SET destination_id = $1", destination_id)
    for job_id in (old, shown):
        await desk.rows(
            "INSERT INTO effects (tenant_id, job_id, destination_id, failed) VALUES ($1, $2, $3, 1)",
            desk.tenant_id,
            job_id,
            destination_id,
        )
    await pruned(desk)
    assert {row["delivery_id"] for row in await desk.rows("SELECT delivery_id FROM dead_letters")} == {2, 3, 4}
    assert {row["delivery_id"] for row in await desk.rows("SELECT delivery_id FROM delivery_calls")} == {2, 3, 4}
    async with desk.database.connection() as connection:
        # Nobody knows any more what became of all of its items, so nothing is said.
        assert (await read_job(connection, desk.tenant_id, old)).job.merged is msgspec.UNSET
        assert (await read_job(connection, desk.tenant_id, shown)).job.merged is not msgspec.UNSET
    await pruned(desk, dead_letter_retention=0.0)
    assert len(await desk.rows("SELECT FROM dead_letters")) == 3


async def test_the_audit_log_goes_by_its_age(desk: Desk) -> None:
    """More than a batch, in one pass."""
    await desk.rows("DELETE FROM audit_log")
    await desk.rows(
        """INSERT INTO audit_log (tenant_id, at, actor, action, subject)
        SELECT $1, now() - CASE WHEN n <= 2500 THEN 400 ELSE 300 END * interval '1 day', 'k', 'a', 'job:1'
        FROM generate_series(1, 2600) n""",
        desk.tenant_id,
    )
    assert await prune(desk.database, msgspec.structs.replace(desk.settings, audit_retention=0.0))
    assert len(await desk.rows("SELECT FROM audit_log")) == 2_600
    assert await prune(desk.database, desk.settings)
    assert len(await desk.rows("SELECT FROM audit_log")) == 100


async def test_what_a_removed_destination_held_goes(desk: Desk) -> None:
    """But not while something is under way there, nor what a dead letter's outcome is read from."""
    gone, busy, live = [await desk.add_destination(name) for name in ("gone", "busy", "live")]
    for destination_id in (gone, busy, live):
        await desk.rows(
            """INSERT INTO record_syncs (tenant_id, destination_id, type_id, record_id, synced_version, state,
                state_version) SELECT $1, $2, 1, 'c' || n, 1, 'ok', 1 FROM generate_series(1, 1500) n""",
            desk.tenant_id,
            destination_id,
        )
    job_id = (await desk.push([{"id": "x", "email": "nobody"}])).job_id
    await dead_letter(desk, job_id, 1, years=None)
    await desk.rows("UPDATE dead_letters SET destination_id = $1, record_id = 'c7'", gone)
    await desk.rows("UPDATE destinations SET state = 'removed' WHERE destination_id = ANY ($1)", [gone, busy])
    await desk.rows(
        """INSERT INTO deliveries (tenant_id, destination_id, type_id, job_id, request_id, first_index, last_index,
            record_ids, versions, indexes, states) VALUES ($1, $2, 1, $3, 'r', 0, 0, '{c1}', '{1}', '{0}', 'p')""",
        desk.tenant_id,
        busy,
        job_id,
    )
    await pruned(desk)
    rows = await desk.rows("SELECT destination_id, count(*)::int AS n FROM record_syncs GROUP BY destination_id")
    assert {row["destination_id"]: row["n"] for row in rows} == {gone: 1, busy: 1500, live: 1500}


async def test_what_records_held_before_us_goes_with_the_history(desk: Desk) -> None:
    """An undo wants it no longer than the versions; the rest of the row stays."""
    crm = await desk.add_destination("crm")
    await desk.rows(
        """INSERT INTO record_syncs (tenant_id, destination_id, type_id, record_id, synced_version, state,
            state_version, remote_id, created, adopted_at, before_image)
        SELECT $1, $2, 1, 'c' || n, 1, 'ok', 1, n::text, false,
            now() - CASE WHEN n <= 1500 THEN 400 ELSE 300 END * interval '1 day', '[]'
        FROM generate_series(1, 1600) n""",
        desk.tenant_id,
        crm,
    )
    kept = "SELECT count(*)::int AS n, count(before_image)::int AS images FROM record_syncs"
    assert await prune(desk.database, msgspec.structs.replace(desk.settings, history_retention=0.0))
    assert await desk.rows(kept) == [{"n": 1600, "images": 1600}]
    assert await prune(desk.database, msgspec.structs.replace(desk.settings, history_retention=365 * 86_400.0))
    assert await desk.rows(kept) == [{"n": 1600, "images": 100}]
