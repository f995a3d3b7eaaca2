"""A staged file is processed chunk by chunk, and comes to what one batch of all its items would have come to."""

from __future__ import annotations

import asyncio
import random
import uuid
from typing import Any

import asyncpg
import msgspec
import pytest

from app.auth import service
from app.errors import DatabaseUnavailable
from app.imports.cancel import queries
from app.resources.decoding import UnreadablePiece
from app.vocabulary.outcomes_wire import FieldError
from app.vocabulary.states import ErrorCode
from jobs.imports.steps import Advance
from tests.db.conftest import Desk, people, person
from tests.db.staging import job, outcomes, process, processor, stage


async def test_chunks_come_to_records_history_and_deliveries(desk: Desk) -> None:
    """Indexes are those of the file; each chunk leaves outcomes and deliveries; nothing stays staged."""
    await desk.add_destination("hubspot")
    job_id = await stage(desk, [*people(25), {"id": "bad"}], chunk=10)
    await process(desk, job_id)
    found = await outcomes(desk, job_id)
    assert [o["index"] for o in found] == list(range(26))
    assert [o["status"] for o in found] == ["ok"] * 25 + ["failed"]
    made = await desk.history()
    assert [(r["item_index"], r["record_id"]) for r in made] == [(n, f"c{n:05}") for n in range(25)]
    row = await job(desk, job_id)
    assert (row["state"], row["total"], row["succeeded"], row["failed"]) == ("syncing", 26, 25, 1)
    assert msgspec.json.decode(row["results"]) == {"created": 25}
    assert row["step"] is None
    assert row["applied_at"] is not None
    pending = await desk.rows("SELECT indexes, record_ids FROM deliveries ORDER BY first_index")
    assert [i for d in pending for i in d["indexes"]] == list(range(25))
    assert (await desk.rows("SELECT pending FROM effects"))[0]["pending"] == 25
    assert await desk.rows("SELECT FROM staged_chunks") == []


async def test_without_a_destination_the_job_ends_with_its_last_chunk(desk: Desk) -> None:
    job_id = await stage(desk, people(5), chunk=2)
    await process(desk, job_id)
    row = await job(desk, job_id)
    assert (row["state"], row["total"]) == ("completed", 5)
    assert row["finished_at"] is not None


async def test_a_file_without_items_ends(desk: Desk) -> None:
    job_id = await stage(desk, [])
    await process(desk, job_id)
    assert (await job(desk, job_id))["state"] == "completed"


def draw_items(rng: random.Random, count: int) -> list[dict[str, Any] | bytes]:
    """Items of few ids: equal ones, differing ones, and some that fail by themselves."""
    found: list[dict[str, Any] | bytes] = []
    for _ in range(count):
        number = rng.randrange(count)
        kind = rng.randrange(12)
        item = person(number, first_name=rng.choice(["Ada", "Bo"]))
        if kind == 0:
            item["email"] = "nonsense"
        elif kind == 1:
            item["if_version"] = rng.choice([0, 1, 7])
        elif kind == 2:
            item["source_version"] = rng.randrange(3)
        elif kind == 3:
            item["attributes"] = rng.choice([{"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": None}])
        found.append(b'{"id": 5' if kind == 4 else item)
    return found


@pytest.mark.parametrize("options", [{}, {"last_wins": True}, {"dry_run": True}, {"atomic": True}], ids=str)
@pytest.mark.parametrize("seed", range(6))
async def test_cut_into_chunks_a_file_means_the_same(desk: Desk, seed: int, options: dict[str, bool]) -> None:
    """Whatever the chunks, every item gets the outcome it has in one batch, and the contacts are the same."""
    rng = random.Random(seed)
    items = draw_items(rng, 60)
    body = b'{"items":[' + b",".join(i if isinstance(i, bytes) else msgspec.json.encode(i) for i in items) + b"]}"
    if any(isinstance(i, bytes) for i in items):
        # One request cannot say where a broken item ends, so the batch has it whole but wrong.
        items = [b'{"id": 5}' if isinstance(i, bytes) else i for i in items]
        body = body.replace(b'{"id": 5', b'{"id": 5}')
    before = people(20, company="Old")
    await desk.push(before)
    whole = await desk.push(body, **options)
    expected = msgspec.json.decode(whole.body)["items"]
    records = (
        "SELECT record_id, version, document, cleared, source_version FROM records WHERE tenant_id = $1 ORDER BY 1"
    )
    one = await desk.rows(records, desk.tenant_id)

    async with desk.database.connection() as connection:
        other = await service.ensure_tenant(connection, "other")
    twin = Desk(desk.settings, desk.database, other)
    await twin.push(before)
    job_id = await stage(twin, items, chunk=rng.choice([1, 7, 25]), **options)
    await process(twin, job_id)
    assert await outcomes(twin, job_id) == expected
    assert await desk.rows(records, other) == one
    row = await job(desk, job_id)
    for field in ("total", "succeeded", "failed", "retry"):
        assert row[field] == getattr(whole.summary, field)
    whole_row = await job(desk, whole.job_id)
    assert row["results"] == whole_row["results"]
    assert row["state"] == whole_row["state"]
    failures = "SELECT failures FROM job_chunks WHERE job_id = $1"
    counted: dict[str, int] = {}
    for chunk in await desk.rows(failures, job_id):
        for code, cluster in msgspec.json.decode(chunk["failures"]).items():
            counted[code] = counted.get(code, 0) + cluster["count"]
    (kept,) = await desk.rows(failures, whole.job_id)
    assert counted == {c: f["count"] for c, f in msgspec.json.decode(kept["failures"]).items()}
    assert await desk.rows("SELECT FROM staged_chunks") == []
    assert await desk.rows("SELECT FROM staged_repeats") == []


async def test_many_workers_share_a_job(desk: Desk) -> None:
    """Every item is applied once, though eight work on it at the same time."""
    await desk.add_destination("hubspot")
    job_id = await stage(desk, people(2_000), chunk=50)
    worked = [0] * 8

    async def work(number: int) -> None:
        worker = processor(desk)
        while True:
            advance = await worker.advance(desk.tenant_id, job_id)
            if advance is Advance.DONE:
                return
            worked[number] += advance is Advance.WORKED
            if advance is Advance.WAITING:
                await asyncio.sleep(0.01)

    await asyncio.gather(*(work(n) for n in range(8)))
    assert sum(n > 0 for n in worked) > 1
    assert (await job(desk, job_id))["succeeded"] == 2_000
    versions = await desk.rows("SELECT version, count(*) AS n FROM records GROUP BY 1")
    assert [(r["version"], r["n"]) for r in versions] == [(1, 2_000)]
    assert [o["index"] for o in await outcomes(desk, job_id)] == list(range(2_000))
    pending = await desk.rows("SELECT sum(cardinality(record_ids)) AS n FROM deliveries")
    assert pending[0]["n"] == 2_000


async def test_connections_cut_at_any_moment_repeat_and_skip_nothing(desk: Desk) -> None:
    """Workers whose connection is killed again and again come to the same as undisturbed ones."""
    await desk.add_destination("hubspot")
    items = [person(n % 900, first_name=f"n{n // 900}") if n % 3 else person(n % 900) for n in range(1_000)]
    job_id = await stage(desk, items, chunk=20)
    rng = random.Random(4)
    killer = await asyncpg.connect(desk.settings.database_url)
    kills = 0

    async def kill() -> None:
        nonlocal kills
        while kills < 25 and not all(w.done() for w in working):
            await asyncio.sleep(rng.uniform(0.01, 0.08))
            kills += await killer.fetchval(
                "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'"
            )

    async def work() -> None:
        worker = processor(desk)
        while True:
            try:
                if await worker.advance(desk.tenant_id, job_id) is Advance.DONE:
                    return
            except (DatabaseUnavailable, asyncpg.PostgresError):
                await asyncio.sleep(0.001)

    working = [asyncio.create_task(work()) for _ in range(3)]
    await asyncio.wait_for(asyncio.gather(kill(), *working), 120)
    await killer.close()
    assert kills > 3
    async with desk.database.connection() as connection:
        calm = Desk(desk.settings, desk.database, await service.ensure_tenant(connection, "calm"))
    twin = await stage(calm, items, chunk=20)
    await process(calm, twin)
    assert await outcomes(desk, job_id) == await outcomes(calm, twin)
    for rows in (await desk.contacts(), await desk.history()):
        names = ("item_index", "record_id", "version", "first_name")
        found = {
            tenant: sorted([[row[name] for name in names] for row in rows if row["tenant_id"] == tenant], key=str)
            for tenant in (desk.tenant_id, calm.tenant_id)
        }
        assert found[desk.tenant_id] == found[calm.tenant_id]
    counts = "SELECT total, succeeded, failed, retry, results FROM jobs WHERE job_id = $1"
    assert await desk.rows(counts, job_id) == await desk.rows(counts, twin)


async def test_a_canceled_job_is_left_alone(desk: Desk) -> None:
    """What was applied stays, the chunk under way is undone, and the rest is not begun."""
    job_id = await stage(desk, people(30), chunk=10)
    worker = processor(desk)
    while (await job(desk, job_id))["total"] == 0:
        await worker.advance(desk.tenant_id, job_id)
    blocker = await asyncpg.connect(desk.settings.database_url)
    async with blocker.transaction():
        await blocker.execute("SELECT FROM jobs WHERE job_id = $1 FOR UPDATE", job_id)
        under_way = asyncio.create_task(worker.advance(desk.tenant_id, job_id))
        await asyncio.sleep(0.3)
        await blocker.execute(
            "UPDATE jobs SET state = 'canceled', step = NULL, finished_at = now() WHERE job_id = $1", job_id
        )
    await blocker.close()
    assert await under_way is Advance.DONE
    assert await worker.advance(desk.tenant_id, job_id) is Advance.DONE
    assert (await desk.rows("SELECT count(*)::int AS n FROM records"))[0]["n"] == 10
    assert len(await outcomes(desk, job_id)) == 10
    assert (await job(desk, job_id))["state"] == "canceled"


async def test_contacts_locked_for_long_are_for_the_client_to_send_again(desk: Desk) -> None:
    """First the chunk waits and others go on; when that was tried often enough its items are `retry`."""
    settings = msgspec.structs.replace(desk.settings, db_lock_timeout=0.05, import_attempts=2)
    hurried = Desk(settings, type(desk.database)(settings, application_name="tests"), desk.tenant_id)
    await desk.push([person(0)])
    job_id = await stage(desk, people(4), chunk=2)
    blocker = await asyncpg.connect(desk.settings.database_url)
    async with blocker.transaction():
        await blocker.execute("SELECT FROM records WHERE record_id = 'c00000' FOR UPDATE")
        worker = processor(hurried)
        async with asyncio.timeout(60):
            while await worker.advance(desk.tenant_id, job_id) is not Advance.DONE:
                await asyncio.sleep(0.02)
    await blocker.close()
    await hurried.database.close()
    first, second, *others = await outcomes(desk, job_id)
    for waiting in (first, second):
        assert (waiting["status"], waiting["error_code"]) == ("retry", "LOCK_TIMEOUT")
        assert waiting["retry_after_seconds"] >= 1
    assert [o["status"] for o in others] == ["ok", "ok"]
    assert (await job(desk, job_id))["state"] == "completed_with_failures"


async def test_a_job_whose_row_is_held_waits_for_its_end(desk: Desk) -> None:
    """A worker that was stopped in the middle holds it for up to a minute: the others are not in trouble by that."""
    settings = msgspec.structs.replace(desk.settings, db_lock_timeout=0.05)
    hurried = Desk(settings, type(desk.database)(settings, application_name="tests"), desk.tenant_id)
    job_id = await stage(desk, people(4))
    worker = processor(hurried)
    while await desk.rows("SELECT FROM staged_chunks"):
        await worker.advance(desk.tenant_id, job_id)
    blocker = await asyncpg.connect(desk.settings.database_url)
    async with blocker.transaction():
        await blocker.execute("SELECT FROM jobs WHERE job_id = $1 FOR UPDATE", job_id)
        assert await worker.advance(desk.tenant_id, job_id) is Advance.WAITING
        assert (await job(desk, job_id))["state"] == "running"
    await blocker.close()
    assert await worker.advance(desk.tenant_id, job_id) is Advance.DONE
    assert (await job(desk, job_id))["state"] == "completed"
    await hurried.database.close()


async def test_what_is_staged_of_repeated_ids_keeps_no_job_from_its_end(desk: Desk) -> None:
    """It goes afterwards, and what cannot go yet is left to the sweeper: there may be millions of rows."""
    settings = msgspec.structs.replace(desk.settings, db_lock_timeout=0.05)
    hurried = Desk(settings, type(desk.database)(settings, application_name="tests"), desk.tenant_id)
    job_id = await stage(desk, [person(1), person(2), person(1)], chunk=1)
    worker = processor(hurried)
    while (await job(desk, job_id))["step"] != "resolve":
        await worker.advance(desk.tenant_id, job_id)
    blocker = await asyncpg.connect(desk.settings.database_url)
    async with blocker.transaction():
        await blocker.execute("SELECT FROM staged_repeats WHERE item_index = 2 FOR UPDATE")
        await process(hurried, job_id)
    await blocker.close()
    assert (await job(desk, job_id))["state"] == "completed"
    (left,) = await desk.rows("SELECT item_index FROM staged_repeats")
    assert left["item_index"] == 2
    async with hurried.database.connection() as connection:
        assert await queries.orphaned_stages(connection, desk.tenant_id) == [job_id]
        assert await queries.remove_staged(connection, desk.tenant_id, job_id)
    await hurried.database.close()


async def test_rows_that_are_no_items_fail_and_are_kept(desk: Desk) -> None:
    """A ragged row costs itself alone, and can be given back as it was sent."""
    from app.files.staging_codec import decode_sources
    from app.kit.compression import unpack

    ragged = UnreadablePiece([FieldError(ErrorCode.INVALID_FIELD, "", "line 3: the row has 2 cells")], cells=["a", "b"])
    job_id = await stage(desk, [person(1), ragged, {"id": "c2", "email": "nonsense"}])
    await process(desk, job_id)
    assert [o["status"] for o in await outcomes(desk, job_id)] == ["ok", "failed", "failed"]
    (row,) = await desk.rows("SELECT sources FROM job_chunks WHERE job_id = $1", job_id)
    kept = decode_sources(unpack(row["sources"]))
    assert set(kept) == {1, 2}
    assert isinstance(kept[1], UnreadablePiece)
    assert kept[1].cells == ["a", "b"]
    assert kept[2] == b'{"id":"c2","email":"nonsense"}'


async def test_an_atomic_file_is_applied_whole_or_not_at_all(desk: Desk) -> None:
    good = await stage(desk, people(30), chunk=7, atomic=True)
    bad = await stage(desk, [*people(30, first_name="Ada"), {"id": "x"}], chunk=7, atomic=True)
    await process(desk, good)
    await process(desk, bad)
    assert {o["result"] for o in await outcomes(desk, good)} == {"created"}
    refused = await outcomes(desk, bad)
    assert [o["error_code"] for o in refused] == ["ATOMIC_ABORTED"] * 30 + ["MISSING_FIELD"]
    assert {(r["first_name"], r["version"]) for r in await desk.contacts()} == {(None, 1)}


async def test_a_wrong_word_is_not_found_among_jobs(desk: Desk) -> None:
    """A job that nobody knows, or that another tenant has, is done."""
    assert await processor(desk).advance(desk.tenant_id, uuid.uuid4()) is Advance.DONE


async def test_a_fault_of_ours_ends_in_failed_not_in_for_ever(desk: Desk) -> None:
    """What nobody foresaw is tried again, then the job says so; what was applied stays, the staged chunks can go."""
    await desk.execute(
        """CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN RAISE EXCEPTION 'a fault of ours'; END $$"""
    )
    await desk.execute(
        "CREATE TRIGGER fault BEFORE INSERT ON records FOR EACH ROW"
        " WHEN (NEW.record_id = 'c00007') EXECUTE FUNCTION fault()"
    )
    settings = msgspec.structs.replace(desk.settings, import_attempts=2)
    job_id = await stage(desk, people(10), chunk=5)
    worker = processor(desk, settings)
    async with asyncio.timeout(60):
        while await worker.advance(desk.tenant_id, job_id) is not Advance.DONE:
            await asyncio.sleep(0.02)
    row = await job(desk, job_id)
    assert (row["state"], row["total"], row["items"]) == ("failed", 5, 10)
    assert msgspec.json.decode(row["error"])["code"] == "INTERNAL"
    assert row["finished_at"] is not None
    async with desk.database.connection() as connection:
        assert await queries.orphaned_stages(connection, desk.tenant_id) == [job_id]


async def test_one_lane_is_left_for_small_files_while_whole_files_are_gone_over(desk: Desk) -> None:
    """With two lanes, two large files are not checked at the same time."""
    jobs = [await stage(desk, people(2, company=str(n))) for n in range(2)]
    blocker = await asyncpg.connect(desk.settings.database_url)
    worker = processor(desk, msgspec.structs.replace(desk.settings, import_concurrency=2))
    async with blocker.transaction():
        await blocker.execute("LOCK TABLE staged_repeats, staged_chunks IN ACCESS EXCLUSIVE MODE")
        checking = asyncio.create_task(worker.advance(desk.tenant_id, jobs[0]))
        await asyncio.sleep(0.3)
        assert not checking.done()
        assert await worker.advance(desk.tenant_id, jobs[1]) is Advance.WAITING
    await blocker.close()
    assert await checking is Advance.WORKED
    assert await worker.advance(desk.tenant_id, jobs[1]) is Advance.WORKED
