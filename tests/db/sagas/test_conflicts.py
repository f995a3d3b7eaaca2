"""What an undo left because somebody changed it since: a dead letter, which a replay takes back after all."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import msgspec
import pytest
from uuid_utils.compat import uuid7

from app.dead_letters import views
from app.dead_letters.queries import Filter
from app.dead_letters.replay import NothingTaken, Taken
from app.dead_letters.selection import Actor, Wanted
from app.dead_letters.service import drop, replay, retry
from app.errors import Invalid, NothingToRetry
from app.imports import processing_queries
from app.records import history
from app.resource_types.catalog import Catalog
from app.sagas import queries as sagas
from app.undo.not_reached import list_not_reached
from app.vocabulary.states import DeadLetterKind
from tests.db.conftest import Desk, people, person
from tests.db.sagas.saga_rig import ask, drive, hasten, runner_of, undo
from tests.db.sagas.test_consistency import ALL, compensation, deliver, settle
from tests.db.sagas.test_undo import contacts, fields, job, outcomes
from tests.types import CONTACTS

CONFLICTS = Filter(kind=DeadLetterKind.UNDO)


def actor(desk: Desk) -> Actor:
    return Actor(desk.tenant_id, "operator-key", "r-9")


async def take(desk: Desk, wanted: Wanted = CONFLICTS) -> Taken | NothingTaken:
    return await replay(desk.database, actor(desk), wanted, desk.settings, rate=None, catalog=Catalog(), new_id=uuid7)


async def taken(desk: Desk, wanted: Wanted = CONFLICTS) -> Taken:
    found = await take(desk, wanted)
    assert isinstance(found, Taken)
    return found


async def dead_letters(desk: Desk) -> list[dict[str, Any]]:
    return await desk.rows("SELECT * FROM dead_letters WHERE destination_id IS NULL ORDER BY dead_letter_id")


async def show(desk: Desk, dead_letter_id: int) -> views.DeadLetterDetail:
    async with desk.database.connection() as connection:
        return await views.read_dead_letter(connection, desk.tenant_id, dead_letter_id, Catalog())


async def leave_two(desk: Desk) -> tuple[uuid.UUID, uuid.UUID, uuid.UUID]:
    """An import that changed c1 and created c2, one that changed both since, and the undo of the first."""
    await desk.push([person(1, first_name="Old", attributes={"a": 1}, source_version=4)])
    pushed = await desk.push([person(1, first_name="New", company="ACME"), person(2), person(3)])
    later = await desk.push([person(1, first_name="Newer"), person(2, company="X")])
    return pushed.job_id, later.job_id, await undo(desk, pushed.job_id)


async def test_each_record_that_was_left_has_a_dead_letter_that_names_it_all(desk: Desk) -> None:
    pushed, later, undo_id = await leave_two(desk)
    second, first = await dead_letters(desk)
    assert {x["record_id"]: (x["version"], x["item_index"]) for x in (first, second)} == {
        "c00001": (2, 2),
        "c00002": (1, 1),
    }
    for row in (first, second):
        assert (row["job_id"], row["root_job_id"], row["request_id"]) == (undo_id, pushed, "u-1")
        assert (row["state"], row["error_code"], row["resolution"]) == ("failed", "VERSION_CONFLICT", None)
    shown = await show(desk, first["dead_letter_id"])
    assert (shown.kind, shown.destination, shown.choices) == ("undo", None, ["replay", "drop"])
    assert shown.undone is not None
    assert (shown.undone.job_id, shown.undone.item_index) == (pushed, 0)
    by = shown.undone.changed_by
    assert (by.version, by.job_id, by.item_index, by.kind, by.key_id) == (3, later, 0, "import", "test")
    payload = msgspec.json.decode(msgspec.json.encode(shown.payload))
    assert (payload["id"], payload["first_name"], payload["company"], payload["attributes"]) == (
        "c00001",
        "Old",
        None,
        {"a": 1},
    )
    removed = (await show(desk, second["dead_letter_id"])).payload
    assert msgspec.json.decode(msgspec.json.encode(removed)) == {"id": "c00002", "deleted": True}
    assert shown.failed_version is not None
    assert shown.failed_version.job_id == pushed
    alone = (await job(desk, undo_id)).left_alone
    assert msgspec.to_builtins(alone) == {"open": 2, "restored": 0, "dropped": 0}


async def test_a_replay_restores_them_once_and_for_every_destination(desk: Desk) -> None:
    a, b = await desk.add_destination("a"), await desk.add_destination("b")
    pushed, _, undo_id = await leave_two(desk)
    for place in (a, b):
        await deliver(desk, place)
    done = await taken(desk)
    assert (done.kind, done.state, done.taken, done.items, done.remaining) == ("undo", "syncing", 2, 2, 0)
    assert done.effects == {"a": "pending", "b": "pending"}
    found = await contacts(desk)
    restored = found["c00001"]
    assert (restored["version"], restored["first_name"], restored["company"]) == (4, "Old", None)
    assert (restored["attributes"], restored["source_version"]) == ({"a": 1}, 4)
    assert (found["c00002"]["version"], found["c00002"]["email"]) == (3, None)
    assert [(x["resolution"], x["replay_job_id"]) for x in await dead_letters(desk)] == [("replayed", done.job_id)] * 2
    sent = await desk.rows(
        "SELECT destination_id, record_ids, versions FROM deliveries WHERE job_id = $1 ORDER BY 1", done.job_id
    )
    assert [(x["destination_id"], dict(zip(x["record_ids"], x["versions"], strict=True))) for x in sent] == [
        (a, {"c00001": 4, "c00002": 3}),
        (b, {"c00001": 4, "c00002": 3}),
    ]
    again = await take(desk)
    assert isinstance(again, NothingTaken)
    again = await take(desk, [x["dead_letter_id"] for x in await dead_letters(desk)])
    assert isinstance(again, NothingTaken)
    assert again.jobs == [done.job_id]
    assert (await contacts(desk))["c00001"]["version"] == 4
    for place in (a, b):
        await deliver(desk, place)
    made = await job(desk, done.job_id)
    assert (made.state, made.undo_of, made.root_job_id) == ("completed", pushed, pushed)
    assert (await job(desk, pushed)).undone_by == undo_id
    assert (await job(desk, pushed)).compensated_by is None
    alone = (await job(desk, undo_id)).left_alone
    assert msgspec.to_builtins(alone) == {"open": 0, "restored": 2, "dropped": 0}
    async with desk.database.connection() as connection:
        past, _ = await history.read_history(connection, desk.tenant_id, CONTACTS, "c00001", after=None, limit=10)
    assert [(one.version, one.kind, one.undone_by) for one in past] == [
        (4, "undo", None),
        (3, "import", None),
        (2, "import", done.job_id),
        (1, "import", None),
    ]


async def test_the_replay_of_one_that_was_changed_again_overwrites_nothing(desk: Desk) -> None:
    """It is left once more, with a dead letter of the same chain that names the newer change; whoever has seen that
    takes it back."""
    _, _, undo_id = await leave_two(desk)
    newest = await desk.push([person(1, phone="+49 30 1")])
    (letter,) = [x for x in await dead_letters(desk) if x["record_id"] == "c00001"]
    first = await taken(desk, [letter["dead_letter_id"]])
    assert first.state == "completed_with_failures"
    kept = (await contacts(desk))["c00001"]
    assert (kept["version"], kept["first_name"]) == (4, "Newer")
    (failed,) = await outcomes(desk, first.job_id)
    assert (failed.status, failed.error_code) == ("failed", "VERSION_CONFLICT")
    (again,) = [x for x in await dead_letters(desk) if x["record_id"] == "c00001" and x["resolution"] is None]
    assert (again["chain_id"], again["job_id"]) == (letter["dead_letter_id"], first.job_id)
    shown = await show(desk, again["dead_letter_id"])
    assert shown.undone is not None
    assert (shown.undone.changed_by.job_id, shown.undone.changed_by.version) == (newest.job_id, 4)
    assert [link.resolution for link in shown.chain] == ["replayed", None]
    alone = (await job(desk, undo_id)).left_alone
    assert msgspec.to_builtins(alone) == {"open": 2, "restored": 0, "dropped": 0}
    second = await taken(desk, [again["dead_letter_id"]])
    assert second.state == "completed"
    restored = (await contacts(desk))["c00001"]
    assert (restored["version"], restored["first_name"], restored["phone"]) == (5, "Old", None)
    alone = (await job(desk, undo_id)).left_alone
    assert msgspec.to_builtins(alone) == {"open": 1, "restored": 1, "dropped": 0}


async def test_one_that_was_confirmed_again_is_left_too(desk: Desk) -> None:
    """A newer source_version makes no version, but somebody has decided anew."""
    pushed = await desk.push([person(1, source_version=1)])
    await desk.push([person(1, company="X", source_version=2)])
    await undo(desk, pushed.job_id)
    await desk.push([person(1, source_version=3)])
    assert (await taken(desk)).state == "completed_with_failures"
    assert (await fields(desk))["c00001"]["company"] == "X"


@pytest.mark.parametrize("count", [2, 8])
async def test_of_several_at_once_one_restores(desk: Desk, count: int) -> None:
    pushed = await desk.push(people(200, first_name="A"))
    await desk.push(people(200, first_name="B"))
    await undo(desk, pushed.job_id)
    ids = [x["dead_letter_id"] for x in await dead_letters(desk)]
    wanted: list[Wanted] = [CONFLICTS if n % 2 else ids for n in range(count)]
    answers = await asyncio.gather(*[take(desk, one) for one in wanted])
    jobs = [answer.job_id for answer in answers if isinstance(answer, Taken)]
    assert len(jobs) == 1
    found = await contacts(desk)
    assert {row["version"] for row in found.values()} == {3}
    assert await desk.rows("SELECT FROM jobs WHERE kind = 'undo' AND retakes IS NOT NULL OFFSET 1") == []


async def test_imports_meanwhile_are_never_overwritten(desk: Desk) -> None:
    """Record by record, whichever comes first: an import is later than the replay, or the replay leaves it."""
    pushed = await desk.push(people(300, first_name="A"))
    await desk.push(people(300, first_name="B"))
    await undo(desk, pushed.job_id)

    async def change() -> None:
        for start in range(0, 300, 20):
            await desk.push([person(n, last_name="late") for n in range(start, start + 20)])

    done, _ = await asyncio.gather(taken(desk), change())
    assert {row["last_name"] for row in (await contacts(desk)).values()} == {"late"}
    counts = (await job(desk, done.job_id)).summary
    still_open = [x for x in await dead_letters(desk) if x["resolution"] is None]
    assert (counts.total, counts.failed) == (300, len(still_open))


async def test_a_replay_that_dies_at_its_end_has_done_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    await leave_two(desk)
    before, rows = await contacts(desk), await desk.counts()

    async def die(*_: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(processing_queries, "end_import", die)
        with pytest.raises(RuntimeError, match="killed"):
            await take(desk)
    assert (await contacts(desk), await desk.counts()) == (before, rows)
    assert {x["resolution"] for x in await dead_letters(desk)} == {None}
    assert (await taken(desk)).state == "completed"


async def test_who_sends_everything_again_or_retries_the_job_restores_nothing(desk: Desk) -> None:
    _, _, undo_id = await leave_two(desk)
    assert isinstance(await take(desk, Filter(kind=DeadLetterKind.DELIVERY)), NothingTaken)
    with pytest.raises(NothingToRetry):
        await retry(desk.database, actor(desk), undo_id, None, desk.settings, new_id=uuid7)
    assert {x["resolution"] for x in await dead_letters(desk)} == {None}


async def test_both_kinds_are_replayed_in_two_requests(desk: Desk) -> None:
    a = await desk.add_destination("a")
    await leave_two(desk)
    await deliver(desk, a, refuse={"c00003"})
    ids = [row["dead_letter_id"] for row in await desk.rows("SELECT dead_letter_id FROM dead_letters")]
    assert len(ids) > 2
    with pytest.raises(Invalid, match="two requests"):
        await take(desk, ids)
    assert {row["resolution"] for row in await desk.rows("SELECT resolution FROM dead_letters")} == {None}


async def test_one_job_takes_those_of_one_undone_job(desk: Desk) -> None:
    pushed = [(await desk.push([person(n)])).job_id for n in (1, 2, 3)]
    await desk.push([person(n, company="X") for n in (1, 2, 3)])
    for one in pushed:
        await undo(desk, one)
    left = []
    while isinstance(found := await take(desk), Taken):
        assert found.taken == 1
        left.append(found.remaining)
    assert left == [2, 1, 0]
    assert await fields(desk) == {}


async def test_dropping_one_leaves_the_record(desk: Desk) -> None:
    _, _, undo_id = await leave_two(desk)
    ids = [x["dead_letter_id"] for x in await dead_letters(desk)]
    answer = await drop(desk.database, actor(desk), ids[:1], "it is right")
    assert answer.decided == 1
    assert (await dead_letters(desk))[0]["note"] == "it is right"
    alone = (await job(desk, undo_id)).left_alone
    assert msgspec.to_builtins(alone) == {"open": 1, "restored": 0, "dropped": 1}
    assert (await fields(desk))["c00002"]["company"] == "X"


async def test_imports_can_be_undone_further_after_a_replay(desk: Desk) -> None:
    """The replay's version counts as what it restored, so that the import before can be undone as well."""
    first = await desk.push([person(1, first_name="A")])
    second = await desk.push([person(1, first_name="B")])
    third = await desk.push([person(1, first_name="C")])
    await undo(desk, second.job_id)
    done = await taken(desk)
    assert (await fields(desk))["c00001"]["first_name"] == "A"
    assert (await job(desk, await undo(desk, first.job_id))).state == "completed"
    assert await fields(desk) == {}
    # What the replay overwrote is there as long as nobody changes it: to have it, undo the replay.
    await desk.push([person(2, first_name="A")])
    fourth = await desk.push([person(2, first_name="B")])
    await desk.push([person(2, first_name="C")])
    await undo(desk, fourth.job_id)
    done = await taken(desk)
    await undo(desk, done.job_id)
    assert (await fields(desk))["c00002"]["first_name"] == "C"
    assert third.job_id != done.job_id


async def test_a_replay_needs_no_versions(desk: Desk) -> None:
    """They may be past their retention by then."""
    _, later, _ = await leave_two(desk)
    await desk.execute("DELETE FROM record_versions WHERE job_id <> $1", later)
    done = await taken(desk, CONFLICTS)
    assert done.state == "completed"
    assert (await fields(desk))["c00001"]["first_name"] == "Old"


async def test_a_compensation_that_is_resumed_names_each_record_once(desk: Desk) -> None:
    a = await desk.add_destination("a")
    pushed = await desk.push(people(3), consistency=ALL)
    await deliver(desk, a, refuse={"c00001", "c00002"})
    await desk.push([person(1, company="X")])
    await settle(desk)
    made = await compensation(desk, pushed.job_id)
    (letter,) = await dead_letters(desk)
    assert (letter["record_id"], letter["job_id"]) == ("c00001", made.job_id)
    await desk.execute("UPDATE jobs SET state = 'failed' WHERE job_id = $1", made.job_id)
    await desk.execute("UPDATE sagas SET state = 'compensated', finished_at = now()")
    await retry(desk.database, actor(desk), made.job_id, None, desk.settings, new_id=uuid7)
    await settle(desk)
    first, second = await dead_letters(desk)
    assert (first["resolution"], second["resolution"]) == ("superseded", None)
    assert second["chain_id"] == first["dead_letter_id"]
    alone = (await job(desk, made.job_id)).left_alone
    assert msgspec.to_builtins(alone) == {"open": 1, "restored": 0, "dropped": 0}
    done = await taken(desk)
    assert (await job(desk, done.job_id)).undo_of == pushed.job_id
    assert (await job(desk, pushed.job_id)).compensated_by == made.job_id
    await deliver(desk, a)
    assert set(await fields(desk)) == {"c00000"}


async def test_what_a_failed_undo_did_not_reach_is_listed(desk: Desk) -> None:
    pushed = await desk.push(people(3))
    undo_id = await ask(desk, pushed.job_id)
    await desk.execute("ALTER TABLE job_chunks ADD CONSTRAINT broken CHECK (first_index <> 0) NOT VALID")
    runner = runner_of(desk, saga_attempts=2)
    for _ in range(5):
        await desk.execute("UPDATE sagas SET due_at = now()")
        await drive(desk, runner)
    failed = await job(desk, undo_id)
    assert failed.error is not None
    assert f"/v1/jobs/{undo_id}/not-reached" in failed.error.detail
    found: list[tuple[str, int]] = []
    position: int | None = None
    async with desk.database.connection() as connection:
        while True:
            page, position = await list_not_reached(connection, desk.tenant_id, undo_id, before=position, limit=2)
            found += [(one.record_id, one.item_index) for one in page]
            if position is None:
                break
    assert found == [("c00002", 2), ("c00001", 1), ("c00000", 0)]
    await desk.execute("ALTER TABLE job_chunks DROP CONSTRAINT broken")
    await undo(desk, pushed.job_id)
    async with desk.database.connection() as connection:
        assert await list_not_reached(connection, desk.tenant_id, undo_id, before=None, limit=2) == ([], None)


async def test_what_a_failed_compensation_did_not_reach_is_counted_and_listed(desk: Desk) -> None:
    a = await desk.add_destination("a")
    pushed = await desk.push(people(4), consistency=ALL)
    await deliver(desk, a, refuse={"c00001", "c00003"})
    await desk.execute("ALTER TABLE job_chunks ADD CONSTRAINT broken CHECK (first_index <> 0) NOT VALID")
    for _ in range(5):
        await hasten(desk)
        await drive(desk, runner_of(desk, saga_attempts=2))
    await desk.execute("UPDATE sagas SET state = 'failed'")
    failed = await compensation(desk, pushed.job_id)
    async with desk.database.connection() as connection:
        found, position = await list_not_reached(connection, desk.tenant_id, failed.job_id, before=None, limit=10)
        (saga,) = await sagas.read_failed(connection, desk.tenant_id, 10)
    assert [(one.record_id, one.job_id, one.item_index) for one in found] == [
        ("c00003", pushed.job_id, 3),
        ("c00001", pushed.job_id, 1),
    ]
    assert position is None
    assert (saga.undo_job_id, saga.restored, saga.conflicts, saga.not_reached) == (failed.job_id, 0, 0, 2)
