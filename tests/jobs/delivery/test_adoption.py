"""An account that was there before its first import: what a worker learns of it outlives its turns."""

from __future__ import annotations

import aiohttp

from jobs.worker import working
from tests.jobs.conftest import Sandbox, World, people

CREATE = "/crm/v3/objects/contacts/batch/create"


async def have(sandbox: Sandbox, count: int) -> None:
    """That many people who are at the CRM already, known by their addresses alone."""
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer t"}) as session:
        for start in range(0, count, 100):
            inputs = [
                {"properties": {"email": person["email"]}, "objectWriteTraceId": person["id"]}
                for person in people(min(count - start, 100), start)
            ]
            async with session.post(f"{sandbox.base_url}{CREATE}", json={"inputs": inputs}) as answer:
                assert answer.status == 201, await answer.text()


async def test_each_batch_of_an_account_with_a_history_costs_two_calls(world: World) -> None:
    await have(world.sandbox, 300)
    before = len(await world.sandbox.calls())
    async with working(world.settings):
        for start in range(0, 300, 100):  # one after the other: each is a turn of its own
            job = await world.push(people(100, start))
            assert await world.finished(job.job_id) == "completed"
    made = [call["path"].rsplit("/", 1)[1] for call in (await world.sandbox.calls())[before:]]
    assert made == ["read", "update"] * 3


async def test_each_batch_of_newcomers_costs_a_call_but_for_the_first_look(world: World) -> None:
    async with working(world.settings):
        for start in range(0, 300, 100):
            job = await world.push(people(100, start))
            assert await world.finished(job.job_id) == "completed"
    made = [call["path"].rsplit("/", 1)[1] for call in await world.sandbox.calls()]
    assert made == ["read", "upsert", "upsert", "upsert"]
