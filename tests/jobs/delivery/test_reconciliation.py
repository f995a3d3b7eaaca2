"""What one delivery may have sent another one does not send blindly, and what is sent is what stood at one time."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from app.deliveries import record_states
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


async def test_a_contact_that_changes_while_it_is_read(world: World) -> None:
    """An attribute that is taken away between two statements still belongs to the version that the first one read."""
    async with working(world.settings):
        first = await world.push(people(1, attributes={"old": "1"}))
        await world.finished(first.job_id)
        await world.sandbox.misbehave(reject={"keys": ["c00000"]})
        await world.finished((await world.push(people(1, attributes={"note": "1"}))).job_id)
    await world.push(people(1, attributes={"old": None, "note": "2"}))
    (row,) = await world.rows("SELECT destination_id FROM destinations")

    class Interrupted:
        """A connection on which somebody else comes between the first and the second statement."""

        def __init__(self, connection: Any) -> None:
            self._connection = connection
            self._asked = 0

        async def fetch(self, *words: Any, **options: Any) -> Any:
            self._asked += 1
            if self._asked == 2:
                await world.push(people(1, attributes={"note": None}))
            return await self._connection.fetch(*words, **options)

    async with world.database.connection() as connection:
        interrupted: Any = Interrupted(connection)
        found = await record_states.records_to_send(interrupted, world.tenant_id, row["destination_id"], 1, ["c00000"])
    assert found["c00000"].version == 3
    assert found["c00000"].attributes == {"old": None, "note": "2"}


async def test_an_older_version_that_arrives_late(world: World) -> None:
    """The CRM does the first write after its caller gave up: the second one waits for that, or would be overwritten."""
    await world.sandbox.misbehave(slow={"latency": 2.2, "when": "before", "on": "write", "times": 1})
    async with working(world.settings):
        first = await world.push(people(5, phone="040 1"))
        async with asyncio.timeout(60):
            while not await world.sandbox.calls():
                await asyncio.sleep(0.01)
        second = await world.push(people(5, phone="040 2"))
        assert await world.finished(first.job_id) == "completed"
        assert await world.finished(second.job_id) == "completed"
    effects = await world.sandbox.effects()
    assert [e["properties"]["phone"] for e in effects] == ["040 1"] * 5 + ["040 2"] * 5


async def test_what_was_looked_for_before_another_write_proves_nothing_about_that(world: World) -> None:
    """Both deliveries looked once. One of them looks again and sends, and its answer is lost while the CRM is still at
    it: the other one must not take its own two looks, the first of which was before that, for proof."""
    first = await world.push(people(5, phone="040 1"))
    second = await world.push(people(5, phone="040 2"))
    settings = msgspec.structs.replace(world.settings, reconcile_grace=1.0, crm_total_timeout=1.0)
    await world.sandbox.misbehave(drop_before={"times": 1})
    async with working(settings):
        async with asyncio.timeout(60):
            while len(await reads(world)) < 2:
                await asyncio.sleep(0.01)
        await world.sandbox.misbehave(slow={"latency": 1.5, "when": "before", "on": "write", "times": 1})
        assert await world.finished(first.job_id) == "completed"
        assert await world.finished(second.job_id) == "completed"
    assert len(await world.sandbox.effects()) == 5
    writes = [call["faults"] for call in await world.sandbox.calls() if call["path"].endswith("/upsert")]
    assert writes == [["drop_before"], ["slow"]], "what may be on its way is not sent once more"


async def reads(world: World) -> list[dict[str, Any]]:
    return [call for call in await world.sandbox.calls() if call["path"].endswith("/read")]
