"""Delivery end to end inside one process: rows in, effects at the CRM out, whatever happens between."""

from __future__ import annotations

import asyncio

import msgspec

from app.destinations import service
from jobs.worker import working
from tests.jobs.conftest import World, people


async def test_contacts_arrive_once(world: World) -> None:
    """250 contacts go out in three calls and each leaves exactly one effect."""
    async with working(world.settings):
        answer = await world.push(people(250, first_name="Ada"))
        assert await world.finished(answer.job_id) == "completed"
    effects = await world.sandbox.effects()
    assert sorted(e["key"] for e in effects) == [f"c{i:05}" for i in range(250)]
    assert len([c for c in await world.sandbox.calls() if c["path"].endswith("upsert")]) == 3
    assert await world.effects(answer.job_id) == {"ok": 250}
    contacts = await world.sandbox.contacts()
    assert contacts["c00007"]["properties"]["firstname"] == "Ada"


async def test_unchanged_contacts_are_not_sent_again(world: World) -> None:
    async with working(world.settings):
        first = await world.push(people(3))
        await world.finished(first.job_id)
        calls = len(await world.sandbox.calls())
        again = await world.push(people(3))
        assert again.to_notify == []
        changed = await world.push([*people(2), {"id": "c00002", "email": "new@example.com"}])
        assert await world.finished(changed.job_id) == "completed"
    assert len(await world.sandbox.calls()) == calls + 1
    assert (await world.sandbox.effects())[-1]["key"] == "c00002"


async def test_a_rejected_item_harms_no_other(world: World) -> None:
    """One item of a batch is refused by the CRM: it alone fails, with a dead letter that says why."""
    await world.sandbox.misbehave(reject={"emails": ["c00004@example.com"]})
    async with working(world.settings):
        answer = await world.push(people(10))
        assert await world.finished(answer.job_id) == "completed_with_failures"
    assert await world.effects(answer.job_id) == {"ok": 9, "failed": 1}
    (dead_letter,) = await world.rows("SELECT * FROM dead_letters")
    assert (dead_letter["record_id"], dead_letter["state"], dead_letter["error_code"]) == (
        "c00004",
        "failed",
        "DESTINATION_REJECTED",
    )
    assert dead_letter["item_index"] == 4


async def test_passing_trouble_is_retried_by_itself(world: World) -> None:
    await world.sandbox.misbehave(status={"code": 503, "times": 2})
    async with working(world.settings):
        answer = await world.push(people(5))
        assert await world.finished(answer.job_id) == "completed"
    assert len(await world.sandbox.effects()) == 5
    (delivery,) = await world.rows("SELECT attempt, errors FROM deliveries")
    assert delivery["attempt"] == 3
    assert delivery["errors"] == "{}"


async def test_attempts_run_out(world: World) -> None:
    """What cannot be delivered becomes `dead` and leaves a dead letter; nothing waits for ever."""
    await world.sandbox.misbehave(status={"code": 503})
    settings = msgspec.structs.replace(world.settings, delivery_attempts=3, breaker_min_calls=1000)
    async with working(settings):
        answer = await world.push(people(2))
        assert await world.finished(answer.job_id) == "completed_with_failures"
    assert await world.effects(answer.job_id) == {"dead": 2}
    dead_letters = await world.rows("SELECT * FROM dead_letters ORDER BY item_index")
    assert [(x["error_code"], x["attempts"]) for x in dead_letters] == [("RETRIES_EXHAUSTED", 3)] * 2


async def test_a_429_costs_no_attempt(world: World) -> None:
    await world.sandbox.misbehave(rate_limit={"policyName": "SECONDLY", "times": 2})
    async with working(world.settings):
        answer = await world.push(people(2))
        async with asyncio.timeout(60):
            while not (await world.rows("SELECT blocked_code FROM destinations"))[0]["blocked_code"]:
                await asyncio.sleep(0.02)
        (blocked,) = await world.rows("SELECT blocked_code FROM destinations")
        assert blocked["blocked_code"] == "DESTINATION_RATE_LIMIT"
        assert await world.finished(answer.job_id) == "completed"
    (delivery,) = await world.rows("SELECT attempt FROM deliveries")
    assert delivery["attempt"] == 1
    (cleared,) = await world.rows("SELECT blocked_until FROM destinations")
    assert cleared["blocked_until"] is None


async def test_a_lost_answer_is_read_back_not_sent_again(world: World) -> None:
    """The CRM did the work and dropped the answer: the items are unknown, read back, and found."""
    await world.sandbox.misbehave(accept_then_drop={"times": 1})
    async with working(world.settings):
        answer = await world.push(people(50))
        assert await world.finished(answer.job_id) == "completed"
    assert len(await world.sandbox.effects()) == 50
    paths = [c["path"].rsplit("/", 1)[1] for c in await world.sandbox.calls()]
    assert paths == ["read", "upsert", "read"], "the first look is for records that were there before"


async def test_an_unknown_item_that_never_arrived_is_sent_after_two_absences(world: World) -> None:
    await world.sandbox.misbehave(drop_before={"times": 1})
    async with working(world.settings):
        answer = await world.push(people(3))
        assert await world.finished(answer.job_id) == "completed"
    paths = [c["path"].rsplit("/", 1)[1] for c in await world.sandbox.calls()]
    assert paths == ["upsert", "read", "read", "upsert"]
    assert len(await world.sandbox.effects()) == 3


async def test_a_batch_refused_whole_is_split_to_its_guilty_item(world: World) -> None:
    await world.sandbox.misbehave(reject_batch={"keys": ["c00013"]})
    async with working(world.settings):
        answer = await world.push(people(40))
        assert await world.finished(answer.job_id) == "completed_with_failures"
    assert await world.effects(answer.job_id) == {"ok": 39, "failed": 1}
    assert len(await world.sandbox.effects()) == 39


async def test_later_versions_overtake_earlier_ones(world: World) -> None:
    """Ten versions waiting: the destination gets the contact as it stands, and no older state after it."""
    answers = [await world.push(people(1, first_name=f"v{i}")) for i in range(10)]
    async with working(world.settings):
        for answer in answers:
            assert await world.finished(answer.job_id) == "completed"
    effects = await world.sandbox.effects()
    assert [e["properties"]["firstname"] for e in effects] == ["v9"]


async def test_versions_never_go_backwards_while_imports_go_on(world: World) -> None:
    """Many deliveries of the same contacts at a slow CRM with several lanes: each sees rising versions only."""
    await world.sandbox.misbehave(latency={"latency": 0.02, "jitter": 0.05})
    async with working(world.settings):
        answers = []
        for i in range(15):
            answers.append(await world.push(people(20, phone=f"{i}")))
            await asyncio.sleep(0.03)
        for answer in answers:
            await world.finished(answer.job_id)
    last: dict[str, int] = {}
    for effect in await world.sandbox.effects():
        seen = int(effect["properties"]["phone"])
        assert seen > last.get(effect["key"], -1)
        last[effect["key"]] = seen
    assert set(last.values()) == {14}


async def test_a_removed_destination_skips_what_it_was_owed(world: World) -> None:
    await world.sandbox.misbehave(status={"code": 503})
    answer = await world.push(people(2))
    async with world.database.connection() as connection:
        await service.set_destination_state(connection, world.tenant_id, "hubspot", "removed")
    async with working(world.settings):
        assert await world.finished(answer.job_id) == "completed"
    assert await world.effects(answer.job_id) == {"skipped": 2}
    assert await world.sandbox.calls() == []


async def test_a_removed_attribute_is_cleared_at_the_destination(world: World) -> None:
    """Also when the removal was not the last change, and nobody synced in between."""
    async with working(world.settings):
        first = await world.push(people(2, attributes={"city": "Ulm", "team": "red"}))
        await world.finished(first.job_id)
    await world.push(people(1, attributes={"city": None}))
    answer = await world.push(people(1, attributes={"team": "blue"}))
    async with working(world.settings):
        await world.finished(answer.job_id)
    contacts = await world.sandbox.contacts()
    assert not contacts["c00000"]["properties"].get("city")
    assert contacts["c00000"]["properties"]["team"] == "blue"
    assert contacts["c00001"]["properties"]["city"] == "Ulm"


async def test_a_paused_destination_waits_and_goes_on(world: World) -> None:
    async with world.database.connection() as connection:
        await service.set_destination_state(connection, world.tenant_id, "hubspot", "paused")
    async with working(world.settings):
        answer = await world.push(people(2))
        await asyncio.sleep(1)
        assert await world.sandbox.calls() == []
        async with world.database.connection() as connection:
            await service.set_destination_state(connection, world.tenant_id, "hubspot", "active")
        assert await world.finished(answer.job_id) == "completed"


async def test_two_workers_share_the_work_without_doubling_it(world: World) -> None:
    await world.sandbox.misbehave(latency={"latency": 0.01})
    async with working(world.settings), working(world.settings):
        answers = [await world.push(people(100, start=i * 100)) for i in range(20)]
        for answer in answers:
            assert await world.finished(answer.job_id) == "completed"
    effects = await world.sandbox.effects()
    assert len(effects) == 2000
    assert len({e["key"] for e in effects}) == 2000


async def test_stopping_a_worker_ends_its_calls_first(world: World) -> None:
    """A graceful stop in the middle of a slow call records its answer; nothing is sent twice."""
    await world.sandbox.misbehave(latency={"latency": 0.5})
    async with working(world.settings):
        answer = await world.push(people(5))
        async with asyncio.timeout(60):
            while not (await world.rows("SELECT FROM deliveries WHERE state = 'sending'")):
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
    assert await world.effects(answer.job_id) == {"ok": 5}
    assert len(await world.sandbox.effects()) == 5
