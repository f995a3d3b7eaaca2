"""A fault of the account is one fault: it holds the destination, and no contact is refused, halved or buried for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest

from app.destinations import service
from app.imports.service import Accepted207
from app.kit.encryption import Vault
from app.kit.notifier import Notifier
from app.sandbox import open_sandbox
from app.settings import Settings
from jobs.worker import working
from tests.jobs.breaker.test_circuits import shown, until
from tests.jobs.conftest import Sandbox, World, make_world, people
from tests.jobs.delivery.test_delivery_edges import replace_destination

PREPARED = {"hubspot": ["tranche_id"], "salesforce": ["Tranche_Id__c"]}


@pytest.fixture
def kind() -> str:
    return "hubspot"


@pytest.fixture
async def sandbox(kind: str) -> AsyncIterator[Sandbox]:
    """As an account is that nobody prepared for us."""
    async with open_sandbox(kind) as base_url, aiohttp.ClientSession() as session:
        yield Sandbox(base_url, session)


@pytest.fixture
async def world(settings: Settings, sandbox: Sandbox) -> AsyncIterator[World]:
    # On a busy machine a call may take long, and one without an answer is another fault.
    patient = msgspec.structs.replace(settings, crm_connect_timeout=60.0, crm_total_timeout=60.0)
    async for made in make_world(patient, sandbox):
        yield made


async def declare(sandbox: Sandbox, *names: str) -> None:
    async with aiohttp.ClientSession() as session:
        url = f"{sandbox.base_url}/__sandbox__/schema"
        async with session.put(url, json={"declared": list(names)}) as answer:
            assert answer.status == 200


async def change(world: World, **options: Any) -> None:
    """What `tranche destinations change` does, and the wake-up that the API sends after it."""
    async with world.database.connection() as connection:
        found = await service.change_destination(
            connection,
            Vault(world.settings.secret_key),
            world.tenant_id,
            "hubspot",
            service.DestinationChange(options=options),
        )
    notifier = Notifier(world.settings)
    notifier.notify(world.tenant_id, [found], reason="test:change")
    await asyncio.sleep(0.1)
    await notifier.close()


def held(world: World) -> Any:
    async def look() -> bool:
        return (await shown(world)).error_code == "CIRCUIT_OPEN"

    return look


def effects_are(world: World, job: Accepted207, counts: dict[str, int]) -> Any:
    async def look() -> bool:
        return await world.effects(job.job_id) == counts

    return look


async def dead_letters(world: World) -> list[dict[str, Any]]:
    return await world.rows("SELECT record_id FROM dead_letters WHERE tenant_id = $1", world.tenant_id)


@pytest.mark.parametrize("kind", ["hubspot", "salesforce"])
@pytest.mark.parametrize("lacking", ["the key", "an attribute"])
async def test_a_thousand_contacts_meet_an_account_that_is_not_set_up(world: World, kind: str, lacking: str) -> None:
    """At most five calls, whatever waits; when the account is mended a probe finds it, and all arrives."""
    await replace_destination(world, kind=kind)
    if lacking == "an attribute":
        await declare(world.sandbox, *PREPARED[kind])
    settings = msgspec.structs.replace(world.settings, breaker_open=1.5, breaker_open_cap=1.5)
    async with working(settings):
        job = await world.push(people(1000, last_name="L", company="stays", attributes={"Plan": "gold"}))
        await until(held(world))
        await asyncio.sleep(0.5)
        calls = await world.sandbox.calls()
        assert len(calls) <= 5, [c["path"] for c in calls]
        assert {c["status"] for c in calls if c["on"] == "write"} <= {400, 404}
        destination = await shown(world)
        assert destination.circuit.state == "open"
        name = PREPARED[kind][0] if lacking == "the key" else {"hubspot": "plan", "salesforce": "Plan__c"}[kind]
        assert destination.detail is not None
        assert name in destination.detail
        remedy = "--option" if lacking == "the key" else '--field "Plan="'
        assert remedy in destination.detail
        assert await world.sandbox.effects() == []
        assert await dead_letters(world) == []
        counts = await world.effects(job.job_id)
        assert set(counts) <= {"pending", "retry"}
        assert sum(counts.values()) == 1000

        await declare(world.sandbox, *PREPARED[kind], "plan", "Plan__c")
        assert await world.finished(job.job_id) == "completed"
    assert len({e["key"] for e in await world.sandbox.effects()}) == 1000
    assert await dead_letters(world) == []
    rows = await world.rows("SELECT max(attempt) AS most FROM deliveries")
    assert rows == [{"most": 1}], "a fault of the set-up costs no attempt"


async def test_an_option_that_mends_it_is_tried_at_once(world: World) -> None:
    """However long the circuit would stay open."""
    await declare(world.sandbox, "tranche_id")
    settings = msgspec.structs.replace(world.settings, breaker_open=60.0)
    async with working(settings):
        job = await world.push(people(300, attributes={"Plan": "gold"}))
        await until(held(world))
        await change(world, fields={"Plan": None})
        assert await world.finished(job.job_id) == "completed"
    effects = await world.sandbox.effects()
    assert len(effects) == 300
    assert not any("plan" in e["properties"] for e in effects)
    assert (await shown(world)).error_code is None


async def test_one_contact_that_names_what_is_missing_holds_it_and_is_not_hunted(world: World) -> None:
    await declare(world.sandbox, "tranche_id")
    settings = msgspec.structs.replace(world.settings, breaker_open=60.0)
    async with working(settings):
        job = await world.push([*people(99), *people(1, start=99, attributes={"Tier": "gold"})])
        await until(effects_are(world, job, {"retry": 100}))
        assert [c["on"] for c in await world.sandbox.calls()] == ["read", "write"]
        (row, *_) = await world.rows("SELECT errors::text AS errors FROM deliveries")
        assert "DESTINATION_UNAVAILABLE" in row["errors"]
        await declare(world.sandbox, "tranche_id", "tier")
        await change(world, rate=500.0)
        assert await world.finished(job.job_id) == "completed"
    assert len(await world.sandbox.effects()) == 100


async def test_what_was_sent_without_an_answer_holds_it_where_reading_is_refused(world: World) -> None:
    """Nothing could ever settle it, and a destination that looks well would say nothing of that."""
    await declare(world.sandbox, "tranche_id")
    settings = msgspec.structs.replace(world.settings, breaker_open=60.0)
    await world.sandbox.misbehave(
        accept_then_drop={"times": 1, "on": "write"}, status={"code": 400, "on": "read", "seconds": 30}
    )
    async with working(settings):
        job = await world.push(people(3))
        await until(held(world))
        assert "Reading records back is refused" in str((await shown(world)).detail)
        await until(effects_are(world, job, {"unknown": 3}))
        await world.sandbox.recover()
        await change(world, rate=500.0)
        assert await world.finished(job.job_id) == "completed"
    assert len(await world.sandbox.effects()) == 3
