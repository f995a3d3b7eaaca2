"""Undo of what was created: destinations archive it, and have it again when it comes back."""

from __future__ import annotations

import asyncio

from app.vocabulary.states import Consistency
from jobs.worker import working
from tests.jobs.conftest import Sandbox, World, people
from tests.jobs.sagas.test_undo import ask, names, second

__all__ = ["second"]


async def test_what_an_import_created_is_taken_away_at_the_destinations(world: World, second: Sandbox) -> None:
    """And comes back there when it is imported anew."""
    async with working(world.settings):
        await world.finished((await world.push(people(10, first_name="old"))).job_id)
        pushed = (await world.push(people(60, first_name="new"))).job_id
        await world.finished(pushed)
        assert await world.finished(await ask(world, pushed)) == "completed"
        assert await names(world.sandbox) == await names(second) == {f"c{n:05}": "old" for n in range(10)}
        again = (await world.push(people(2, start=20, first_name="again"))).job_id
        assert await world.finished(again) == "completed"
    assert (await names(world.sandbox))["c00020"] == (await names(second))["c00021"] == "again"


async def test_an_undo_that_is_undone_brings_everything_back(world: World) -> None:
    async with working(world.settings):
        await world.finished((await world.push(people(5, first_name="old"))).job_id)
        pushed = (await world.push(people(10, first_name="new"))).job_id
        await world.finished(pushed)
        after = await names(world.sandbox)
        undo_id = await ask(world, pushed)
        await world.finished(undo_id)
        assert await world.finished(await ask(world, undo_id)) == "completed"
    assert await names(world.sandbox) == after


async def test_what_was_never_there_need_not_be_taken_away(world: World, second: Sandbox) -> None:
    """One destination refuses a new contact: the other loses it again, and nothing is open at the end."""
    async with working(world.settings):
        await second.misbehave(reject={"keys": ["c00003"]})
        options = {"consistency": Consistency.ALL_DESTINATIONS}
        await world.finished((await world.push(people(5), **options)).job_id)
        async with asyncio.timeout(60):
            while not await world.rows("SELECT FROM sagas WHERE state = 'done'"):
                await asyncio.sleep(0.05)
    assert set(await names(world.sandbox)) == set(await names(second)) == {f"c{n:05}" for n in (0, 1, 2, 4)}
    (undo,) = await world.rows("SELECT state FROM jobs WHERE kind = 'undo'")
    assert undo["state"] == "completed"
