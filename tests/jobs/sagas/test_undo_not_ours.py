"""An undo takes back what the import did, no more: records and values that were there before stay there."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from app.job_status.items.item_filter import DestinationOutcome, Filter
from app.job_status.items.queries import JobRef
from app.job_status.items.service import read_items
from app.job_status.service import read_job
from app.records.service import read_record
from jobs.worker import working
from tests.jobs.conftest import Sandbox, World
from tests.jobs.sagas.test_undo import ask, second
from tests.types import CONTACTS

__all__ = ["JobRef", "second"]

EMAIL = {"id": "c1", "email": "ada@example.com"}
TYPED = {"phone": "+1 999", "firstname": "Ada", "email": "old@example.com"}


async def push(world: World, **fields: Any) -> uuid.UUID:
    answer = await world.push([EMAIL | fields])
    await world.finished(answer.job_id)
    return answer.job_id


async def undo(world: World, job_id: uuid.UUID) -> uuid.UUID:
    undo_id = await ask(world, job_id)
    assert await world.finished(undo_id) == "completed"
    return undo_id


async def item(world: World, job_id: uuid.UUID, destination: str = "hubspot") -> DestinationOutcome:
    async with world.database.connection() as connection:
        page = await read_items(JobRef(connection, world.tenant_id, job_id), Filter(), first=0, limit=10)
    return page.items[0].destinations[destination]


async def held(sandbox: Sandbox) -> dict[str, Any] | None:
    record = (await sandbox.contacts()).get("c1")
    return None if record is None else dict(record["properties"])


async def test_a_record_that_was_there_before_is_not_archived(world: World, second: Sandbox) -> None:
    """Where our call made the record it goes, where somebody else did it stays, and the item says so."""
    await world.sandbox.edit("c1", **TYPED)
    async with working(world.settings):
        pushed = await push(world, company="X", attributes={"plan": "gold"})
        undone = await undo(world, pushed)
    found = await held(world.sandbox)
    assert found is not None, "the undo deleted a record that the import did not create"
    assert (found["phone"], found["firstname"]) == ("+1 999", "Ada")
    assert await held(second) is None
    there = await item(world, undone)
    assert there.state == "ok"
    assert there.not_restored == ["attributes.plan", "company", "email"]
    assert "there before" in (there.detail or "")
    assert (await item(world, undone, "other")).not_restored is None
    async with world.database.connection() as connection:
        job = (await read_job(connection, world.tenant_id, undone)).job
    assert job.not_restored == {"hubspot": 1}


async def test_known_values_go_back_and_unknown_ones_are_listed(world: World, second: Sandbox) -> None:
    await world.sandbox.edit("c1", **TYPED)
    async with working(world.settings):
        await push(world, first_name="Grace", attributes={"plan": "gold"})
        pushed = await push(
            world, first_name="Mary", phone="040 1", last_name=None, attributes={"plan": "lead", "tier": 3}
        )
        assert (await held(world.sandbox) or {})["phone"] == "040 1"
        undone = await undo(world, pushed)
        async with world.database.connection() as connection:
            contact = await read_record(connection, world.tenant_id, CONTACTS, "c1")
    found = await held(world.sandbox) or {}
    assert (found["firstname"], found["plan"]) == ("Grace", "gold")
    assert (found["phone"], found["tier"]) == ("040 1", "3"), "what stood there before is not known"
    there = await item(world, undone)
    assert there.not_restored == ["attributes.tier", "last_name", "phone"]
    assert contact.destinations["hubspot"].not_restored == ["attributes.tier", "last_name", "phone"]
    assert contact.destinations["hubspot"].created is False
    # The record of the other CRM is ours: what the import named first was not there before.
    assert await held(second) == {"firstname": "Grace", "plan": "gold", "email": "ada@example.com", "tranche_id": "c1"}
    assert (await item(world, undone, "other")).not_restored is None
    assert contact.destinations["other"].created is True


async def test_a_field_named_again_is_ours_again(world: World) -> None:
    await world.sandbox.edit("c1", **TYPED)
    async with working(world.settings):
        await push(world)
        await undo(world, await push(world, phone="040 1"))
        await push(world, phone="040 2")
        async with world.database.connection() as connection:
            contact = await read_record(connection, world.tenant_id, CONTACTS, "c1")
    assert (await held(world.sandbox) or {})["phone"] == "040 2"
    assert contact.destinations["hubspot"].not_restored is None


async def test_an_undo_brings_back_what_an_import_cleared_and_clears_what_was_cleared(world: World) -> None:
    async with working(world.settings):
        await push(world, phone="040 1", company=None)
        pushed = await push(world, phone=None, company="X")
        await undo(world, pushed)
    found = await held(world.sandbox) or {}
    assert found["phone"] == "040 1"
    assert "company" not in found


async def test_an_undone_undo_clears_nothing_a_second_time(world: World) -> None:
    """What somebody typed since it was cleared is theirs; what has a value of ours by then is cleared again."""
    await world.sandbox.edit("c1", **TYPED)
    async with working(world.settings):
        await push(world, company="X", attributes={"plan": "gold"})
        cleared = await push(world, phone=None, company=None, attributes={"region": None})
        undone = await undo(world, cleared)
        await world.sandbox.edit("c1", phone="+1 555", region="EMEA")
        again = await undo(world, undone)
        found = await held(world.sandbox) or {}
        assert (found["phone"], found["region"], found.get("company")) == ("+1 555", "EMEA", None)
        # And so on, to and fro.
        await undo(world, await undo(world, again))
        await push(world, first_name="Grace")
    found = await held(world.sandbox) or {}
    assert (found["phone"], found["region"], found.get("company")) == ("+1 555", "EMEA", None)


async def test_an_undone_undo_clears_what_was_never_cleared_there(world: World) -> None:
    """The destination heard nothing of the import before it was undone."""
    await world.sandbox.edit("c1", **TYPED)
    async with working(world.settings):
        await push(world)
        await world.rows("UPDATE destinations SET state = 'paused'")
        cleared = (await world.push([EMAIL | {"phone": None}])).job_id
        undone = await ask(world, cleared)
        while not await world.rows("SELECT FROM jobs WHERE job_id = $1 AND state = 'syncing'", undone):
            await asyncio.sleep(0.02)
        await world.rows("UPDATE destinations SET state = 'active'")
        assert await world.finished(undone) == "completed"
        assert (await held(world.sandbox) or {})["phone"] == "+1 999"
        await undo(world, undone)
    assert "phone" not in (await held(world.sandbox) or {})


async def test_what_was_typed_into_a_field_that_the_undone_import_never_brought_there_stays(world: World) -> None:
    """The import was refused there, so the field is not ours, though our call made the record."""
    async with working(world.settings):
        await push(world)
        await world.sandbox.misbehave(reject={"keys": ["c1"]})
        pushed = await push(world, phone="040 1")
        await world.sandbox.recover()
        await world.sandbox.edit("c1", phone="+1 555")
        undone = await undo(world, pushed)
    assert (await held(world.sandbox) or {})["phone"] == "+1 555"
    assert (await item(world, undone)).not_restored is None


async def test_who_made_a_record_is_unknown_after_a_lost_answer_so_it_stays(world: World) -> None:
    await world.sandbox.misbehave(accept_then_drop={"times": 1, "on": "write"})
    async with working(world.settings):
        pushed = await push(world, phone="040 1")
        undone = await undo(world, pushed)
    assert await held(world.sandbox) is not None
    there = await item(world, undone)
    assert there.not_restored == ["email", "phone"]
    assert "not known" in (there.detail or "")


async def test_a_record_that_somebody_made_anew_is_not_ours(world: World) -> None:
    """It was archived by hand and made again by hand: another record, which our call only updated."""
    async with working(world.settings):
        pushed = await push(world, phone="040 1")
        ours = (await world.sandbox.contacts())["c1"]["id"]
        await world.sandbox.remove(ours)
        await world.sandbox.edit("c1", firstname="Ada")
        later = await push(world, phone="040 2")
        await undo(world, later)
        await undo(world, pushed)
    assert (await held(world.sandbox) or {})["firstname"] == "Ada"


@pytest.mark.parametrize("by_hand", [True, False], ids=["taken away by hand", "by an undo"])
async def test_a_record_that_our_call_made_anew_is_ours(world: World, by_hand: bool) -> None:
    if by_hand:
        await world.sandbox.edit("c1", **TYPED)
    async with working(world.settings):
        first = await push(world, phone="040 1")
        if by_hand:
            await world.sandbox.remove((await world.sandbox.contacts())["c1"]["id"])
            later = await push(world, phone="040 2")
            await undo(world, later)
            await undo(world, first)
        else:
            await undo(world, first)
            await undo(world, await push(world, phone="040 2"))
    assert await held(world.sandbox) is None


async def test_an_undo_that_is_overtaken_still_says_what_it_could_not_restore(world: World) -> None:
    """The later import goes out with it: the undo's item is settled by that call."""
    await world.sandbox.edit("c1", **TYPED)
    async with working(world.settings):
        await push(world)
        pushed = await push(world, phone="040 1")
        await world.rows("UPDATE destinations SET state = 'paused'")
        undone = await ask(world, pushed)
        while (await world.rows("SELECT state FROM jobs WHERE job_id = $1", undone))[0]["state"] != "syncing":
            pass
        later = await world.push([EMAIL | {"company": "X"}])
        await world.rows("UPDATE destinations SET state = 'active'")
        assert await world.finished(later.job_id) == "completed"
        assert await world.finished(undone) == "completed"
    found = await held(world.sandbox) or {}
    assert (found["phone"], found["company"]) == ("040 1", "X")
    assert (await item(world, undone)).not_restored == ["phone"]
