"""`consistency=all_destinations`: what one destination finally refuses is taken back here and at the others."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec
import pytest
from uuid_utils.compat import uuid7

from app.dead_letters.queries import Filter
from app.dead_letters.selection import Actor
from app.dead_letters.service import replay, retry
from app.deliveries import queries
from app.deliveries.queries import Claim, DeadLetter, ItemError, Record, Tried
from app.errors import KeyReused
from app.imports.service import Replay
from app.job_status.service import Job
from app.resource_types.catalog import Catalog
from app.vocabulary.states import Consistency
from tests.claims import claim_delivery
from tests.db.conftest import Desk, people, person
from tests.db.sagas.saga_rig import drive, hasten, runner_of
from tests.db.sagas.test_undo import contacts, fields, job

ALL = Consistency.ALL_DESTINATIONS


async def deliver(desk: Desk, destination: int, *, refuse: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    """Whatever is due there arrives, or is refused for good."""
    async with desk.database.connection() as connection:
        while True:
            claim = await claim_delivery(
                connection, desk.tenant_id, destination, token=uuid.uuid4(), lease=30.0, concurrency=8
            )
            if not isinstance(claim, Claim):
                return
            no = [record_id in refuse for record_id in claim.record_ids]
            record = Record(
                states="".join("f" if refused else "o" for refused in no),
                errors={str(n): ItemError("DESTINATION_REJECTED", "no") for n, refused in enumerate(no) if refused},
                attempts=1,
                wait=None,
                absence="clear",
                tried=[
                    Tried(id_, "failed" if refused else "ok", version, 0 if refused else version, None, None, None)
                    for id_, version, refused in zip(claim.record_ids, claim.versions, no, strict=True)
                ],
                dead_letters=[
                    DeadLetter(id_, version, index, "failed", "DESTINATION_REJECTED", "no")
                    for id_, version, index, refused in zip(
                        claim.record_ids, claim.versions, claim.indexes, no, strict=True
                    )
                    if refused
                ],
            )
            await queries.record_delivery(connection, claim, "contacts", record)


async def compensation(desk: Desk, job_id: uuid.UUID) -> Job:
    found = (await job(desk, job_id)).compensated_by
    assert found is not None
    return await job(desk, found)


async def dead_letters(desk: Desk) -> list[dict[str, Any]]:
    return await desk.rows("SELECT * FROM dead_letters ORDER BY dead_letter_id")


async def settle(desk: Desk) -> None:
    await hasten(desk)
    await drive(desk)


async def test_what_one_refuses_is_taken_back_everywhere(desk: Desk) -> None:
    a, b = await desk.add_destination("a"), await desk.add_destination("b")
    await desk.push([person(1, first_name="old")])
    for place in (a, b):
        await deliver(desk, place)
    pushed = await desk.push([person(n, first_name="new") for n in range(150)], consistency=ALL)
    await deliver(desk, a)
    await settle(desk)
    assert (await job(desk, pushed.job_id)).compensated_by is None  # b has not said a word yet
    await deliver(desk, b, refuse={"c00001", "c00007"})
    await settle(desk)

    found = await fields(desk)
    assert len(found) == 149
    assert found["c00001"]["first_name"] == "old"
    assert "c00007" not in found
    undo = await compensation(desk, pushed.job_id)
    assert (undo.kind, undo.undo_of, undo.root_job_id) == ("undo", None, pushed.job_id)
    assert (undo.summary.total, undo.summary.succeeded, undo.progress.items) == (2, 2, 2)
    assert {name: counts.pending for name, counts in undo.effects.items()} == {"a": 2, "b": 2}
    for dead_letter in await dead_letters(desk):
        assert (dead_letter["resolution"], dead_letter["resolved_by"]) == ("dropped", "tranche")
        assert str(undo.job_id) in dead_letter["note"]

    for place in (a, b):
        await deliver(desk, place)
    await settle(desk)
    assert (await job(desk, undo.job_id)).state == "completed"
    merged = (await job(desk, pushed.job_id)).merged
    assert (merged["b"].ok, merged["b"].dropped) == (148, 2), "what stood before is there, not what was refused"
    (saga,) = await desk.rows("SELECT state FROM sagas")
    assert saga["state"] == "done"
    told = await desk.rows("SELECT action, detail FROM audit_log WHERE action LIKE 'consistency.%' ORDER BY audit_id")
    assert [row["action"] for row in told] == ["consistency.settle", "consistency.take_back", "consistency.deliver"]
    assert msgspec.json.decode(told[1]["detail"])["restored"] == 2


async def test_where_nothing_failed_nothing_is_taken_back(desk: Desk) -> None:
    a = await desk.add_destination("a")
    pushed = await desk.push(people(3), consistency=ALL)
    await deliver(desk, a)
    await settle(desk)
    assert (await job(desk, pushed.job_id)).compensated_by is None
    (saga,) = await desk.rows("SELECT state FROM sagas")
    assert saga["state"] == "done"


async def test_without_it_each_destination_stands_for_itself(desk: Desk) -> None:
    a = await desk.add_destination("a")
    await desk.push(people(3))
    await deliver(desk, a, refuse={"c00001"})
    await settle(desk)
    assert len(await fields(desk)) == 3
    assert await desk.rows("SELECT FROM sagas") == []


async def test_what_was_changed_since_is_left_with_its_letter(desk: Desk) -> None:
    """Somebody decided anew about it: a human sees to the rest."""
    a = await desk.add_destination("a")
    pushed = await desk.push(people(3), consistency=ALL)
    await deliver(desk, a, refuse={"c00001", "c00002"})
    await desk.push([person(1, company="X")])
    await settle(desk)
    assert set(await fields(desk)) == {"c00000", "c00001"}
    undo = await compensation(desk, pushed.job_id)
    assert (undo.summary.failed, undo.summary.succeeded) == (1, 1)
    assert {x["record_id"]: x["resolution"] for x in await dead_letters(desk)} == {"c00001": None, "c00002": "dropped"}


async def test_an_item_that_two_refuse_is_taken_back_once(desk: Desk) -> None:
    a, b = await desk.add_destination("a"), await desk.add_destination("b")
    pushed = await desk.push(people(3), consistency=ALL)
    for place in (a, b):
        await deliver(desk, place, refuse={"c00001"})
    await settle(desk)
    undo = await compensation(desk, pushed.job_id)
    assert undo.summary.total == 1
    assert [x["resolution"] for x in await dead_letters(desk)] == ["dropped", "dropped"]
    assert (await contacts(desk))["c00001"]["version"] == 2


async def test_a_letter_that_a_human_has_settled_counts_no_more(desk: Desk) -> None:
    a = await desk.add_destination("a")
    await desk.push(people(2), consistency=ALL)
    await deliver(desk, a, refuse={"c00000", "c00001"})
    await desk.execute("UPDATE dead_letters SET resolution = 'delivered' WHERE record_id = 'c00000'")
    await settle(desk)
    assert set(await fields(desk)) == {"c00000"}


async def send_again(desk: Desk, job_id: uuid.UUID, *, how: str) -> None:
    """Somebody has the dead letters of a job sent again, the one way or the other."""
    actor = Actor(desk.tenant_id, "k", "r")
    if how == "retry":
        await retry(desk.database, actor, job_id, None, desk.settings, new_id=uuid7)
    else:
        await replay(desk.database, actor, Filter(), desk.settings, rate=None, catalog=Catalog(), new_id=uuid7)


@pytest.mark.parametrize("how", ["retry", "replay"])
async def test_what_is_sent_again_is_waited_for_and_its_new_letter_counts(desk: Desk, how: str) -> None:
    a = await desk.add_destination("a")
    pushed = await desk.push(people(2), consistency=ALL)
    await deliver(desk, a, refuse={"c00001"})
    await send_again(desk, pushed.job_id, how=how)
    await settle(desk)
    assert len(await fields(desk)) == 2
    await deliver(desk, a, refuse={"c00001"})
    await settle(desk)
    assert set(await fields(desk)) == {"c00000"}
    assert [x["resolution"] for x in await dead_letters(desk)] == ["replayed", "dropped"]


@pytest.mark.parametrize("how", ["retry", "replay"])
async def test_what_is_sent_again_at_the_last_moment_is_waited_for(desk: Desk, how: str) -> None:
    """After the last look whether all is settled, and before anything is taken back."""
    a = await desk.add_destination("a")
    pushed = await desk.push(people(2), consistency=ALL)
    await deliver(desk, a, refuse={"c00001"})
    await hasten(desk)
    assert await drive(desk, most=1) == 1
    await send_again(desk, pushed.job_id, how=how)
    await settle(desk)
    await deliver(desk, a, refuse={"c00001"})
    await settle(desk)
    assert set(await fields(desk)) == {"c00000"}


async def test_many_refused_items_over_a_large_job(desk: Desk) -> None:
    """Range after range, none left out and none taken twice."""
    a = await desk.add_destination("a")
    pushed = await desk.push(people(1_000), consistency=ALL, settings=None)
    refused = {f"c{n:05}" for n in range(0, 1_000, 3)}
    await deliver(desk, a, refuse=refused)
    await settle(desk)
    assert set(await fields(desk)) == {f"c{n:05}" for n in range(1_000)} - refused
    undo = await compensation(desk, pushed.job_id)
    assert undo.summary.total == len(refused)


async def test_an_import_that_was_undone_meanwhile_has_nothing_left(desk: Desk) -> None:
    from tests.db.sagas.saga_rig import ask

    a = await desk.add_destination("a")
    pushed = await desk.push(people(2), consistency=ALL)
    await ask(desk, pushed.job_id)
    await drive(desk)
    await deliver(desk, a, refuse={"c00001"})
    await settle(desk)
    assert await fields(desk) == {}
    assert {row["version"] for row in (await contacts(desk)).values()} == {2}


async def give_up(desk: Desk) -> None:
    runner = runner_of(desk, saga_attempts=2)
    for _ in range(6):
        await hasten(desk)
        await drive(desk, runner)


async def test_where_taking_back_fails_the_import_shows_it_and_a_retry_goes_on(desk: Desk) -> None:
    """Between the two a human has the dead letters sent again, and one item is refused once more."""
    a, b = await desk.add_destination("a"), await desk.add_destination("b")
    pushed = await desk.push(people(3), consistency=ALL)
    await deliver(desk, a, refuse={"c00001", "c00002"})
    await deliver(desk, b)
    await desk.execute("ALTER TABLE job_chunks ADD CONSTRAINT broken CHECK (first_index <> 0) NOT VALID")
    await give_up(desk)
    failed = await compensation(desk, pushed.job_id)
    assert (failed.state, failed.error and failed.error.code) == ("failed", "INTERNAL")
    assert set(await fields(desk)) == {"c00000", "c00001", "c00002"}

    await desk.execute("ALTER TABLE job_chunks DROP CONSTRAINT broken")
    actor = Actor(desk.tenant_id, "k", "r")
    await retry(desk.database, actor, pushed.job_id, None, desk.settings, new_id=uuid7)
    await deliver(desk, a, refuse={"c00002"})
    for _ in range(2):  # twice is once
        taken = await retry(desk.database, actor, failed.job_id, None, desk.settings, new_id=uuid7)
        assert (taken.job_id, taken.kind, taken.state) == (failed.job_id, "undo", "running")
    await settle(desk)
    for place in (a, b):
        await deliver(desk, place)
    await settle(desk)
    undo = await compensation(desk, pushed.job_id)
    assert (undo.job_id, undo.state, undo.error) == (failed.job_id, "completed", None)
    assert set(await fields(desk)) == {"c00000", "c00001"}
    (log,) = await desk.rows("SELECT actor, subject FROM audit_log WHERE action = 'undo.resume'")
    assert (log["actor"], log["subject"]) == ("k", f"job:{failed.job_id}")


async def test_a_look_that_fails_for_good_is_shown_too(desk: Desk) -> None:
    a = await desk.add_destination("a")
    pushed = await desk.push(people(2), consistency=ALL)
    await deliver(desk, a, refuse={"c00001"})
    await desk.execute("ALTER TABLE deliveries RENAME COLUMN failures TO elsewhere")
    await give_up(desk)
    await desk.execute("ALTER TABLE deliveries RENAME COLUMN elsewhere TO failures")
    failed = await compensation(desk, pushed.job_id)
    assert failed.state == "failed"
    await retry(desk.database, Actor(desk.tenant_id, "k", "r"), failed.job_id, None, desk.settings, new_id=uuid7)
    await settle(desk)
    await deliver(desk, a)
    await settle(desk)
    assert (await compensation(desk, pushed.job_id)).state == "completed"
    assert set(await fields(desk)) == {"c00000"}


async def test_a_dry_run_promises_nothing(desk: Desk) -> None:
    await desk.add_destination("a")
    await desk.push(people(2), consistency=ALL, dry_run=True)
    assert await desk.rows("SELECT FROM sagas") == []


async def test_it_is_part_of_what_a_key_stands_for(desk: Desk) -> None:
    await desk.push(people(1), key="k", consistency=ALL)
    assert isinstance(await desk.send(people(1), key="k", consistency=ALL), Replay)
    with pytest.raises(KeyReused):
        await desk.send(people(1), key="k")
