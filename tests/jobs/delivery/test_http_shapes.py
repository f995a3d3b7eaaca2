"""Contacts on their whole way to services that do not have the default shape: one record per call, tasks, lines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest

from app.destinations import service
from app.kit.encryption import Vault
from app.sandbox import open_sandbox
from jobs.worker import working
from tests.conftest import LOOPBACK
from tests.jobs.conftest import Sandbox, World, people

ITEM = {"email": "{fields.email}", "phone": "{fields.phone}", "custom": "{attributes}"}
REST: dict[str, Any] = {
    "path": "/rest/{type}",
    "item": {"external_id": "{id}", **ITEM},
    "body": "{record}",
    "results": "status",
    "result_remote_id": "data.id",
    "update": {"path": "/rest/{type}/{remote_id}"},
    "delete": {"path": "/rest/{type}/{remote_id}"},
    "read": {
        "path": "/rest/{type}",
        "query": {"external_id": "{id}"},
        "records": "data",
        "id": "external_id",
        "remote_id": "id",
    },
}
BY_KEY: dict[str, Any] = {
    "path": "/by-key/{type}/{id}",
    "method": "PUT",
    "item": ITEM,
    "body": "{record}",
    "results": "status",
    "repeatable": True,
    "delete": {"path": "/by-key/{type}/{id}"},
}
BATCH = {"item": {"id": "{id}", "version": "{version}", "email": "{fields.email}", "phone": "{fields.phone}"}}
TASKS: dict[str, Any] = {
    **BATCH,
    "path": "/tasks/{type}",
    "body": {"contacts": "{records}"},
    "results": "required",
    "task": {"path": "/tasks/contacts/{task}", "id": "task"},
    "repeatable": True,
    "batch_size": 20,
}
LINES: dict[str, Any] = {
    **BATCH,
    "path": "/lines/{type}",
    "format": "ndjson",
    "body": "{records}",
    "results": "required",
    "repeatable": True,
    "batch_size": 20,
}
SHAPES = {"rest": REST, "by_key": BY_KEY, "tasks": TASKS, "lines": LINES}


@pytest.fixture
async def there() -> AsyncIterator[Sandbox]:
    async with open_sandbox("http") as url, aiohttp.ClientSession() as session:
        yield Sandbox(url, session)


async def add(world: World, there: Sandbox, options: dict[str, Any]) -> None:
    async with world.database.connection() as connection:
        await service.set_destination_state(connection, world.tenant_id, "hubspot", "removed")
        new = service.NewDestination(name="crm", kind="http", base_url=there.base_url, token="good", options=options)
        await service.add_destination(
            connection, Vault(world.settings.secret_key), world.tenant_id, new, private=LOOPBACK
        )
    world.settings = msgspec.structs.replace(world.settings, reconcile_grace=0.2)


@pytest.mark.parametrize("said_as", ["RateLimit", "X-RateLimit-Reset"])
@pytest.mark.parametrize("shape", SHAPES)
async def test_a_batch_arrives_once_although_answers_are_lost_and_a_limit_is_met(
    world: World, there: Sandbox, shape: str, said_as: str
) -> None:
    await add(world, there, SHAPES[shape])
    code = 403 if said_as == "X-RateLimit-Reset" else 429
    await there.misbehave(
        accept_then_drop={"times": 1, "on": "write"},
        status={"times": 1, "on": "write", "apply": True},
        rate_limit={"times": 1, "on": "write", "retry_after": 0.5, "said_as": said_as, "code": code},
    )
    async with working(world.settings):
        answer = await world.push(people(40, phone="001-808"))
        assert await world.finished(answer.job_id) == "completed"

    effects = await there.effects()
    assert {e["key"] for e in effects} == {f"c{i:05}" for i in range(40)}
    assert len([e for e in effects if e["changed"]]) == 40, "a contact was written twice"
    assert all(e["properties"]["phone"] == "001-808" for e in effects)


@pytest.mark.parametrize("shape", ["rest", "by_key"])
async def test_an_update_a_clearing_and_a_removal_reach_the_record(world: World, there: Sandbox, shape: str) -> None:
    await add(world, there, SHAPES[shape])
    async with working(world.settings):
        for items in (
            people(1, phone="1", attributes={"tier": "gold", "n": 1}),
            people(1, phone=None, attributes={"tier": None}),
            [{"id": "c00000", "deleted": True}],
        ):
            answer = await world.push(items)
            assert await world.finished(answer.job_id) == "completed"

    made, changed, removed = await there.effects()
    assert (made["properties"]["phone"], made["properties"]["custom"]) == ("1", {"tier": "gold", "n": 1})
    assert "phone" not in changed["properties"]
    assert changed["properties"]["custom"] == {"n": 1}
    assert (made["id"], removed["deleted"]) == (changed["id"], True)
    methods = [call["method"] for call in await there.calls() if call["on"] == "write"]
    assert methods == (["POST", "PATCH", "DELETE"] if shape == "rest" else ["PUT", "PUT", "DELETE"])


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_refused_record_harms_no_neighbour(world: World, there: Sandbox, shape: str) -> None:
    await add(world, there, SHAPES[shape])
    await there.misbehave(reject={"keys": ["c00003"]})
    async with working(world.settings):
        answer = await world.push(people(10))
        assert await world.finished(answer.job_id) == "completed_with_failures"
    assert {e["key"] for e in await there.effects()} == {f"c{i:05}" for i in range(10)} - {"c00003"}


async def test_a_record_that_somebody_removed_there_is_reported_and_then_created_anew(
    world: World, there: Sandbox
) -> None:
    await add(world, there, REST)
    async with working(world.settings):
        answer = await world.push(people(1, phone="1"))
        assert await world.finished(answer.job_id) == "completed"
        [made] = await there.effects()
        await there.remove(made["id"])

        answer = await world.push(people(1, phone="2"))
        assert await world.finished(answer.job_id) == "completed_with_failures"
        (dead,) = await world.rows("SELECT error_detail FROM dead_letters WHERE tenant_id = $1", world.tenant_id)
        assert "does not have this record any more" in dead["error_detail"]

        answer = await world.push(people(1, phone="3"))
        assert await world.finished(answer.job_id) == "completed"
    last = (await there.effects())[-1]
    assert (last["created"], last["properties"]["phone"]) == (True, "3")
    assert last["id"] != made["id"]
