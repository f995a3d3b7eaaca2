"""Undo: what stood before comes back as a new version, unless somebody changed the contact since."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import msgspec
import pytest

from app.audit import queries as audit_rows
from app.errors import JobNotUndoable, NotFound
from app.files.staging_codec import decode_sources
from app.job_status.service import Job, read_job
from app.kit.compression import unpack
from app.records import history
from app.records.service import read_record
from app.vocabulary.outcomes_wire import ItemOutcome, decode_items
from tests.db.conftest import Desk, people, person
from tests.db.sagas.saga_rig import ask, drive, due, runner_of, undo
from tests.db.staging import stage
from tests.types import CONTACTS


async def contacts(desk: Desk) -> dict[str, dict[str, Any]]:
    names = ("version", "source_version", *CONTACTS.names, "attributes")
    return {
        row["record_id"]: {name: row[name] for name in names}
        for row in await desk.contacts()
        if row["tenant_id"] == desk.tenant_id
    }


async def fields(desk: Desk) -> dict[str, dict[str, Any]]:
    """Contacts without their version numbers, which only ever grow; tombstones left out."""
    found = await contacts(desk)
    return {
        id_: {name: value for name, value in row.items() if name != "version"}
        for id_, row in found.items()
        if row["email"]
    }


async def outcomes(desk: Desk, job_id: uuid.UUID) -> list[ItemOutcome]:
    rows = await desk.rows("SELECT outcomes FROM job_chunks WHERE job_id = $1 ORDER BY first_index", job_id)
    return [item for row in rows for item in decode_items(unpack(row["outcomes"]))]


async def job(desk: Desk, job_id: uuid.UUID) -> Job:
    async with desk.database.connection() as connection:
        return (await read_job(connection, desk.tenant_id, job_id)).job


async def test_contacts_get_back_what_stood_before(desk: Desk) -> None:
    """Every field, the attributes and the source_version; what was created is gone."""
    await desk.push(
        [
            person(1, first_name="Ada", phone="+49 30 1", attributes={"city": "London", "n": 1}, source_version=5),
            person(2, company="ACME"),
        ]
    )
    before = await fields(desk)
    pushed = await desk.push(
        [
            person(1, email="new@example.com", phone=None, attributes={"city": None, "x": 2}, source_version=9),
            person(2, company="Other", last_name="L"),
            person(3),
        ]
    )
    undo_id = await undo(desk, pushed.job_id)
    assert await fields(desk) == before
    found = await contacts(desk)
    assert {id_: row["version"] for id_, row in found.items()} == {"c00001": 3, "c00002": 3, "c00003": 2}
    tombstone = found["c00003"]
    assert (tombstone["email"], tombstone["attributes"], tombstone["source_version"]) == (None, {}, None)
    told = await job(desk, undo_id)
    assert (told.kind, told.state, told.undo_of) == ("undo", "completed", pushed.job_id)
    assert (told.summary.total, told.summary.succeeded) == (3, 3)
    assert told.progress.not_processed == 0
    assert (await job(desk, pushed.job_id)).undone_by == undo_id
    assert [(o.index, o.id) for o in await outcomes(desk, undo_id)] == [(0, "c00003"), (1, "c00002"), (2, "c00001")]


async def test_what_was_changed_since_is_left_and_told_by_whom(desk: Desk) -> None:
    pushed = await desk.push(people(6, first_name="A"))
    later = await desk.push([person(2, first_name="B"), person(4, company="C")])
    undo_id = await undo(desk, pushed.job_id)
    found = await contacts(desk)
    assert {id_ for id_, row in found.items() if row["email"]} == {"c00002", "c00004"}
    assert found["c00002"]["first_name"] == "B"
    failed = {o.id: o for o in await outcomes(desk, undo_id) if o.status == "failed"}
    assert set(failed) == {"c00002", "c00004"}
    error = failed["c00002"].errors[0]
    assert error.code == "VERSION_CONFLICT"
    for word in ("version 2", str(later.job_id), "key test", "request-"):
        assert word in error.detail
    told = await job(desk, undo_id)
    assert told.state == "completed_with_failures"
    assert (told.summary.total, told.summary.succeeded, told.summary.failed) == (6, 4, 2)


async def test_what_was_confirmed_since_by_a_newer_source_version_is_left(desk: Desk) -> None:
    """The later item changed nothing, but it said that this is how the contact is to be."""
    pushed = await desk.push([person(1, source_version=1), person(2, source_version=1)])
    await desk.push([person(1, source_version=2)])
    undo_id = await undo(desk, pushed.job_id)
    assert set(await fields(desk)) == {"c00001"}
    (failed,) = [o for o in await outcomes(desk, undo_id) if o.status == "failed"]
    assert "source_version 2" in failed.errors[0].detail


async def test_the_rows_that_were_left_can_be_pushed_as_they_would_have_been(desk: Desk) -> None:
    await desk.push([person(1, first_name="Old", attributes={"a": 1})])
    pushed = await desk.push([person(1, first_name="New"), person(2)])
    await desk.push([person(1, first_name="Newer"), person(2, company="X")])
    undo_id = await undo(desk, pushed.job_id)
    (row,) = await desk.rows("SELECT sources FROM job_chunks WHERE job_id = $1", undo_id)
    sources = {
        (item := msgspec.json.decode(piece))["id"]: item for piece in decode_sources(unpack(row["sources"])).values()
    }
    assert sources["c00001"] == {
        "id": "c00001",
        "email": "c00001@example.com",
        "first_name": "Old",
        "last_name": None,
        "phone": None,
        "company": None,
        "attributes": {"a": 1},
    }
    assert sources["c00002"] == {"id": "c00002", "deleted": True}


async def test_asked_twice_it_is_done_once(desk: Desk) -> None:
    pushed = await desk.push(people(3))
    first = await asyncio.gather(*(ask(desk, pushed.job_id) for _ in range(5)))
    assert len(set(first)) == 1
    await drive(desk)
    again = await ask(desk, pushed.job_id)
    assert again == first[0]
    assert await drive(desk) == 0
    assert {row["version"] for row in (await contacts(desk)).values()} == {2}


async def test_an_undo_can_be_undone(desk: Desk) -> None:
    """That is a redo, of what was created too, and it goes on for as long as one likes."""
    await desk.push([person(1, first_name="Old")])
    pushed = await desk.push([person(1, first_name="New"), person(2)])
    after = await fields(desk)
    first = await undo(desk, pushed.job_id)
    before = await fields(desk)
    redo = await undo(desk, first)
    assert await fields(desk) == after
    assert (await job(desk, redo)).root_job_id == pushed.job_id
    await undo(desk, redo)
    assert await fields(desk) == before
    assert {id_: row["version"] for id_, row in (await contacts(desk)).items()} == {"c00001": 5, "c00002": 4}


async def test_imports_can_be_undone_one_after_the_other_newest_first(desk: Desk) -> None:
    """What an undo restored stands as it did before: the import that made it can be undone next, and so on."""
    jobs, stood = [], []
    for number in range(4):
        stood.append(await fields(desk))
        jobs.append((await desk.push([person(1, first_name=f"N{number}"), person(number + 2)])).job_id)
    for number in (3, 2, 1, 0):
        undo_id = await undo(desk, jobs[number])
        assert (await job(desk, undo_id)).state == "completed"
        assert await fields(desk) == stood[number]
    async with desk.database.connection() as connection:
        versions, _ = await history.read_history(connection, desk.tenant_id, CONTACTS, "c00001", after=None, limit=10)
        assert [(v.version, v.undone_by is not None) for v in versions] == [(n, n <= 4) for n in range(8, 0, -1)]
        last, _ = await history.read_history(
            connection, desk.tenant_id, CONTACTS, "c00001", after=(jobs[1], 0), limit=1
        )
    assert [v.undone_by for v in last] == [versions[0].job_id]


async def test_redo_and_undo_mixed_never_lose_a_change(desk: Desk) -> None:
    """B is undone, done again and undone again; then A can be undone, but not while B stands."""
    a = (await desk.push([person(1, first_name="A")])).job_id
    before = await fields(desk)
    b = (await desk.push([person(1, first_name="B")])).job_id
    undo_b = await undo(desk, b)
    redo_b = await undo(desk, undo_b)
    assert (await fields(desk))["c00001"]["first_name"] == "B"
    refused = await ask(desk, a)
    await drive(desk)
    assert (await job(desk, refused)).summary.failed == 1
    assert (await fields(desk))["c00001"]["first_name"] == "B"
    await undo(desk, redo_b)
    assert await fields(desk) == before


async def test_what_somebody_changed_after_an_undo_is_left(desk: Desk) -> None:
    a = (await desk.push([person(1, first_name="A")])).job_id
    b = (await desk.push([person(1, first_name="B")])).job_id
    await undo(desk, b)
    await desk.push([person(1, first_name="C")])
    undo_a = await undo(desk, a)
    assert (await job(desk, undo_a)).summary.failed == 1
    assert (await fields(desk))["c00001"]["first_name"] == "C"


async def test_an_import_revives_what_an_undo_took_away(desk: Desk) -> None:
    """With nothing of its former life, and the undo of that import takes it away again."""
    pushed = await desk.push([person(1, first_name="Ada", attributes={"a": 1}, source_version=7)])
    await undo(desk, pushed.job_id)
    async with desk.database.connection() as connection:
        with pytest.raises(NotFound, match="was undone by job"):
            await read_record(connection, desk.tenant_id, CONTACTS, "c00001")
    again = await desk.push([person(1, company="ACME", source_version=1)])
    found = (await contacts(desk))["c00001"]
    assert (found["version"], found["first_name"], found["company"]) == (3, None, "ACME")
    assert found["attributes"] == {}
    await undo(desk, again.job_id)
    assert await fields(desk) == {}


async def test_a_large_job_is_taken_back_in_pieces_however_often_somebody_dies(desk: Desk) -> None:
    """Two runners that are broken off again and again; nothing is done twice or left out."""
    job_id = await stage(desk, people(2_500), chunk=500)
    from tests.db.staging import process

    await process(desk, job_id)
    changed = await desk.push([person(n, first_name="X") for n in range(0, 2_500, 7)][:300])
    undo_id = await ask(desk, job_id)
    runners = [runner_of(desk), runner_of(desk)]
    for number in range(200):
        found = await due(desk)
        if not found:
            break
        tasks = [asyncio.create_task(r.advance(*saga)) for r in runners for saga in found]
        if number % 2 == 0:
            await asyncio.sleep(0.005 * (number % 7))
            for task in tasks:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    told = await job(desk, undo_id)
    assert (told.summary.total, told.summary.failed) == (2_500, 300)
    assert told.state == "completed_with_failures"
    rows = await outcomes(desk, undo_id)
    assert [o.index for o in rows] == list(range(2_500))
    assert set(await fields(desk)) == {o["id"] for o in msgspec.json.decode(changed.shown)}
    (made,) = await desk.rows(
        "SELECT sum(cardinality(indexes))::int AS n FROM record_versions WHERE job_id = $1", undo_id
    )
    assert made["n"] == 2_200


async def test_changes_under_way_and_undo_do_not_harm_one_another(desk: Desk) -> None:
    """Whatever comes first wins, contact by contact: none is half the one and half the other."""
    await desk.push(people(1_000, first_name="old"))
    pushed = await desk.push(people(1_000, first_name="new", company="new"))
    undo_id = await ask(desk, pushed.job_id)

    async def change() -> None:
        for start in range(0, 1_000, 50):
            await desk.push([person(n, last_name="late") for n in range(start, start + 25)])

    await asyncio.gather(change(), drive(desk))
    failed = {o.id for o in await outcomes(desk, undo_id) if o.status == "failed"}
    for id_, row in (await fields(desk)).items():
        if id_ in failed:
            assert (row["first_name"], row["company"], row["last_name"]) == ("new", "new", "late")
        else:
            assert (row["first_name"], row["company"]) == ("old", None)


async def test_destinations_are_owed_what_was_restored(desk: Desk) -> None:
    """Also where the import itself is still on its way: deliveries name versions, not contents."""
    await desk.add_destination("a")
    await desk.add_destination("b")
    pushed = await desk.push(people(150))
    await desk.push([person(3, first_name="X")])
    undo_id = await undo(desk, pushed.job_id)
    told = await job(desk, undo_id)
    assert told.state == "syncing"
    assert {name: counts.pending for name, counts in told.effects.items()} == {"a": 149, "b": 149}
    rows = await desk.rows("SELECT versions FROM deliveries WHERE job_id = $1", undo_id)
    assert {version for row in rows for version in row["versions"]} == {2}
    (saga,) = await desk.rows("SELECT step, finished_at FROM sagas")
    assert (saga["step"], saga["finished_at"]) == (1, None)  # it waits for them


@pytest.mark.parametrize("state", ["receiving", "queued", "running"])
async def test_what_is_still_at_work_cannot_be_undone_yet(desk: Desk, state: str) -> None:
    pushed = await desk.push(people(1))
    await desk.execute("UPDATE jobs SET state = $1 WHERE job_id = $2", state, pushed.job_id)
    with pytest.raises(JobNotUndoable, match="cancel it"):
        await ask(desk, pushed.job_id)
    assert await due(desk) == []


@pytest.mark.parametrize("kind", ["retry", "replay"])
async def test_what_changed_nothing_cannot_be_undone(desk: Desk, kind: str) -> None:
    pushed = await desk.push(people(1))
    await desk.execute("UPDATE jobs SET kind = $1 WHERE job_id = $2", kind, pushed.job_id)
    with pytest.raises(JobNotUndoable, match="changes no record") as told:
        await ask(desk, pushed.job_id)
    assert str(pushed.job_id) not in told.value.detail, "it would send its reader in a circle"


async def test_a_dry_run_cannot_be_undone(desk: Desk) -> None:
    pushed = await desk.push(people(1), dry_run=True)
    with pytest.raises(JobNotUndoable, match="dry run"):
        await ask(desk, pushed.job_id)


async def test_a_job_that_was_cut_short_can_be_undone(desk: Desk) -> None:
    """What it applied stays when it is canceled; this is how to get rid of that."""
    pushed = await desk.push(people(4))
    await desk.execute("UPDATE jobs SET state = 'canceled', items = 100 WHERE job_id = $1", pushed.job_id)
    told = await job(desk, await undo(desk, pushed.job_id))
    assert (told.state, told.summary.total) == ("completed", 4)
    assert await fields(desk) == {}


async def test_a_job_that_changed_nothing_is_undone_at_once(desk: Desk) -> None:
    await desk.push(people(2))
    pushed = await desk.push(people(2))
    told = await job(desk, await undo(desk, pushed.job_id))
    assert (told.state, told.summary.total, told.progress.items) == ("completed", 0, 0)


async def test_another_tenants_job_cannot_be_undone(desk: Desk) -> None:
    pushed = await desk.push(people(1))
    with pytest.raises(NotFound):
        await ask(Desk(desk.settings, desk.database, desk.tenant_id + 1), pushed.job_id)


async def test_an_undo_that_fails_for_good_says_so_and_keeps_what_it_did(desk: Desk) -> None:
    pushed = await desk.push(people(3))
    undo_id = await ask(desk, pushed.job_id)
    await desk.execute("ALTER TABLE job_chunks ADD CONSTRAINT broken CHECK (first_index <> 0) NOT VALID")
    runner = runner_of(desk, saga_attempts=2)
    for _ in range(5):
        await desk.execute("UPDATE sagas SET due_at = now()")
        await drive(desk, runner)
    told = await job(desk, undo_id)
    assert told.state == "failed"
    assert told.error is not None
    assert told.error.code == "INTERNAL"
    assert set(await fields(desk)) == {"c00000", "c00001", "c00002"}
    (saga,) = await desk.rows("SELECT state, error FROM sagas")
    assert saga["state"] == "compensated"
    assert "broken" in saga["error"]

    # What stood in its way is gone: asked once more, it goes on.
    await desk.execute("ALTER TABLE job_chunks DROP CONSTRAINT broken")
    assert await undo(desk, pushed.job_id) == undo_id
    told = await job(desk, undo_id)
    assert (told.state, told.error, told.summary.total) == ("completed", None, 3)
    assert await fields(desk) == {}


async def test_every_step_is_in_the_audit_log(desk: Desk) -> None:
    pushed = await desk.push(people(3))
    await desk.push([person(1, company="X")])
    undo_id = await undo(desk, pushed.job_id)
    async with desk.database.connection() as connection:
        found = await audit_rows.read(connection, desk.tenant_id, subject=f"job:{undo_id}", before=None, limit=10)
    assert [(e.action, e.actor) for e in found] == [
        ("undo.deliver", "undoer"),
        ("undo.restore", "undoer"),
        ("undo.ask", "undoer"),
    ]
    assert msgspec.json.decode(found[1].detail) == {"restored": 2, "already_taken_back": 0, "changed_since": 1}


async def test_a_history_tells_it_all(desk: Desk) -> None:
    """Newest first, each version with who made it, what stood before, and whether it was taken back."""
    first = await desk.push([person(1, first_name="Ada")])
    second = await desk.push([person(1, first_name="Eve"), person(2)])
    undone = await undo(desk, second.job_id)
    async with desk.database.connection() as connection:
        versions, _ = await history.read_history(connection, desk.tenant_id, CONTACTS, "c00001", after=None, limit=10)
        pages: list[history.Version] = []
        after = None
        for _ in range(5):
            one, after = await history.read_history(
                connection, desk.tenant_id, CONTACTS, "c00001", after=after, limit=1
            )
            pages += one
            if after is None:
                break
        tombstone, _ = await history.read_history(connection, desk.tenant_id, CONTACTS, "c00002", after=None, limit=10)
        with pytest.raises(NotFound):
            await history.read_history(connection, desk.tenant_id, CONTACTS, "nobody", after=None, limit=10)
    assert [(v.version, v.kind, v.job_id, v.undone_by) for v in versions] == [
        (3, "undo", undone, None),
        (2, "import", second.job_id, undone),
        (1, "import", first.job_id, None),
    ]
    assert msgspec.json.encode(pages) == msgspec.json.encode(versions)
    newest, changed, created = versions
    assert newest.before == changed.after
    assert newest.after == changed.before == created.after
    assert (newest.key_id, newest.request_id, created.key_id) == ("undoer", "u-1", "test")
    assert (created.before, created.deleted) == (None, False)
    assert [(v.deleted, v.after is None, v.undone_by) for v in tombstone] == [
        (True, True, None),
        (False, False, undone),
    ]
