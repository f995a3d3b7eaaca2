"""What one delivery may have sent, another one of the same contact does not send again without looking."""

from __future__ import annotations

from jobs.worker import working
from tests.jobs.conftest import World, people


async def test_an_answer_that_another_delivery_lost(world: World) -> None:
    """Both deliveries are of the contact as it stands: the first one's answer is lost, the second one reads back."""
    first = await world.push(people(10, phone="040 1"))
    second = await world.push(people(10, phone="040 2"))
    await world.sandbox.misbehave(accept_then_drop={"times": 1})
    async with working(world.settings):
        assert await world.finished(first.job_id) == "completed"
        assert await world.finished(second.job_id) == "completed"
    effects = await world.sandbox.effects()
    assert [e["properties"]["phone"] for e in effects] == ["040 2"] * 10, "each is sent once"
    calls = [call["path"].rsplit("/", 1)[1] for call in await world.sandbox.calls()]
    assert calls.count("upsert") == 1
    assert "read" in calls


async def test_what_was_sent_never_arrived(world: World) -> None:
    """Nobody has it: after the grace it is sent, once for both deliveries."""
    first = await world.push(people(10, phone="040 1"))
    second = await world.push(people(10, phone="040 2"))
    await world.sandbox.misbehave(drop_before={"times": 1})
    async with working(world.settings):
        assert await world.finished(first.job_id) == "completed"
        assert await world.finished(second.job_id) == "completed"
    effects = await world.sandbox.effects()
    assert [e["properties"]["phone"] for e in effects] == ["040 2"] * 10
