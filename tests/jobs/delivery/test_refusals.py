"""A 2xx that says no, from the import to what an operator sees."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from jobs.worker import working
from tests.contract.scripted import Script, scripted
from tests.jobs.conftest import World, people
from tests.jobs.delivery.test_destination_tester import add


@pytest.fixture
async def script() -> AsyncIterator[Script]:
    async with scripted() as script:
        yield script


async def effects(world: World, job_id: Any) -> dict[str, int]:
    (row,) = await world.rows(
        "SELECT e.* FROM effects e JOIN destinations d USING (tenant_id, destination_id) "
        "WHERE e.tenant_id = $1 AND e.job_id = $2 AND d.name = 'crm'",
        world.tenant_id,
        job_id,
    )
    return {k: v for k, v in row.items() if k not in ("tenant_id", "job_id", "destination_id") and v}


async def test_an_operator_sees_the_body_of_a_call_that_nobody_can_settle(
    world: World, script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    await add(world, "http", script.url, token="secret-of-the-crm")
    script.body = {"ok": False, "error": "something_broke", "you": "secret-of-the-crm"}
    pushed = await world.push(people(2))
    async with working(world.settings):
        assert await world.finished(pushed.job_id) == "completed_with_failures"

    assert await effects(world, pushed.job_id) == {"dead": 2}
    dead_letters = await world.rows("SELECT error_code, error_detail AS detail FROM dead_letters ORDER BY record_id")
    assert [dead_letter["error_code"] for dead_letter in dead_letters] == ["OUTCOME_UNKNOWN"] * 2
    assert '"something_broke"' in dead_letters[0]["detail"]
    assert "settle this dead letter" in dead_letters[0]["detail"]
    assert "secret-of-the-crm" not in dead_letters[0]["detail"]
    assert "something_broke" not in capsys.readouterr().out, "what a CRM answers is not logged"


async def test_who_is_named_failed_and_the_rest_is_read_back(world: World, script: Script) -> None:
    await add(world, "http", script.url, read_path="/read")
    script.answers = [
        (200, {"errors": [{"id": "c00001", "message": "no such country"}]}),
        (200, {"contacts": [{"id": "c00000", "version": 1}]}),
    ]
    pushed = await world.push(people(2))
    async with working(world.settings):
        assert await world.finished(pushed.job_id) == "completed_with_failures"

    assert await effects(world, pushed.job_id) == {"ok": 1, "failed": 1}
    [dead_letter] = await world.rows("SELECT record_id, error_code, error_detail AS detail FROM dead_letters")
    assert (dead_letter["record_id"], dead_letter["error_code"]) == ("c00001", "DESTINATION_REJECTED")
    assert "no such country" in dead_letter["detail"]
    assert [asked.path for asked in script.asked] == ["/contacts", "/read"]


async def test_a_service_that_refuses_all_calls_buries_a_few_and_no_more(world: World, script: Script) -> None:
    """Its circuit opens: a hundred thousand contacts are not left to an operator because of one token."""
    await add(world, "http", script.url, batch_size=1, concurrency=1)
    script.body = {"ok": False, "error": "invalid_auth"}
    pushed = await world.push(people(40))
    async with working(world.settings):
        async with asyncio.timeout(60):
            while not await world.rows("SELECT 1 FROM circuit_changes WHERE after = 'open'"):
                await asyncio.sleep(0.05)
    told = await effects(world, pushed.job_id)
    assert set(told) <= {"retry", "pending"}, "nothing was done, so nothing is lost"
    assert len(script.asked) < 40
