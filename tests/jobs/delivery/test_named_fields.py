"""A destination is told only what was said: fields that no import named keep what somebody typed there."""

from __future__ import annotations

from typing import Any

from jobs.worker import working
from tests.jobs.conftest import World

EMAIL = {"id": "c1", "email": "ada@example.com"}
TYPED = {"firstname": "Ada", "phone": "+1 999", "company": "Analytical Engines", "region": "EMEA"}


async def push(world: World, **fields: Any) -> str:
    """The state in which an import of c1 with these fields ended."""
    return await world.finished((await world.push([EMAIL | fields])).job_id)


async def held(world: World) -> dict[str, Any]:
    found: dict[str, Any] = (await world.sandbox.contacts())["c1"]["properties"]
    return found


async def test_an_import_leaves_fields_alone_that_it_never_named(world: World) -> None:
    """A record that was there before, and an import that knows its e-mail address."""
    await world.sandbox.edit("c1", **TYPED)
    async with working(world.settings):
        assert await push(world) == "completed"
    assert await held(world) == TYPED | {"email": "ada@example.com", "tranche_id": "c1"}


async def test_what_somebody_typed_later_survives_an_import_of_another_field(world: World) -> None:
    async with working(world.settings):
        await push(world, first_name="Ada")
        await world.sandbox.edit("c1", phone="+1 555", region="EMEA")
        assert await push(world, company="Analytical Engines") == "completed"
    found = await held(world)
    assert (found["phone"], found["region"], found["company"]) == ("+1 555", "EMEA", "Analytical Engines")


async def test_null_clears_what_was_there_and_does_so_once(world: World) -> None:
    """Also where Tranche itself never held a value; what is typed afterwards stays."""
    await world.sandbox.edit("c1", **TYPED)
    async with working(world.settings):
        await push(world)
        assert await push(world, phone=None, attributes={"region": None}) == "completed"
        found = await held(world)
        assert "phone" not in found
        assert "region" not in found
        assert found["company"] == TYPED["company"]
        await world.sandbox.edit("c1", phone="+1 555", region="APAC")
        assert await push(world, first_name="Grace") == "completed"
    found = await held(world)
    assert (found["firstname"], found["phone"], found["region"]) == ("Grace", "+1 555", "APAC")


async def test_a_new_contact_with_nulls_clears_them(world: World) -> None:
    await world.sandbox.edit("c1", **TYPED)
    async with working(world.settings):
        await push(world, phone=None, company=None)
    assert await held(world) == {"firstname": "Ada", "region": "EMEA", "email": "ada@example.com", "tranche_id": "c1"}


async def test_a_field_that_is_cleared_is_cleared_after_a_refusal_too(world: World) -> None:
    await world.sandbox.edit("c1", **TYPED)
    async with working(world.settings):
        await world.sandbox.misbehave(reject={"keys": ["c1"]})
        assert await push(world, phone=None) == "completed_with_failures"
        await world.sandbox.recover()
        assert await push(world, first_name="Grace") == "completed"
    found = await held(world)
    assert "phone" not in found
    assert (found["firstname"], found["company"]) == ("Grace", TYPED["company"])


async def test_a_lost_answer_and_its_second_look_leave_unnamed_fields_alone(world: World) -> None:
    await world.sandbox.edit("c1", **TYPED)
    async with working(world.settings):
        await push(world, first_name="Grace")
        await world.sandbox.misbehave(accept_then_drop={"times": 1, "on": "write"})
        assert await push(world, company=None) == "completed"
        await world.sandbox.misbehave(drop_before={"times": 1, "on": "write"})
        assert await push(world, first_name="Mary") == "completed"
    assert await held(world) == {
        "firstname": "Mary",
        "phone": "+1 999",
        "region": "EMEA",
        "email": "ada@example.com",
        "tranche_id": "c1",
    }


async def test_nulls_again_are_no_news(world: World) -> None:
    async with working(world.settings):
        await push(world, phone=None, attributes={"region": None})
        again = await world.push([EMAIL | {"phone": None, "attributes": {"region": None}}])
    assert again.to_notify == []


async def test_all_attributes_at_once(world: World) -> None:
    """Null instead of an object clears the keys that were ours, and no other."""
    async with working(world.settings):
        await push(world, attributes={"region": "EMEA", "plan": "gold"})
        await world.sandbox.edit("c1", colour="red")
        assert await push(world, attributes=None) == "completed"
    found = await held(world)
    assert {"region", "plan"}.isdisjoint(found)
    assert found["colour"] == "red"
