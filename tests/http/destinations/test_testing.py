"""`/v1/destinations/{name}/test` over HTTP, and the command. What a worker does is in `tests/jobs`."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any, TypeAlias

import asyncpg
import msgspec
import pytest
from click.testing import CliRunner, Result

from app.auth import service
from app.cli.client import api_client, connection
from app.cli.destinations import destinations
from app.destinations.testing import service as testing_service
from app.sandbox import KINDS, open_sandbox
from app.settings import Settings
from jobs.worker import working
from tests.http.conftest import Answer, Api

Db: TypeAlias = "asyncpg.Connection[Any]"
PATH = "/v1/destinations/shop/test"


@pytest.fixture
def patient(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a worker that finishes a test on a busy machine, for whom service and command wait as long."""
    monkeypatch.setattr(testing_service, "TAKING", 60.0)
    monkeypatch.setattr(connection, "REQUEST_TIMEOUT", 90.0)
    return msgspec.structs.replace(settings, crm_connect_timeout=60.0, crm_total_timeout=60.0)


async def add(api: Api, url: str = "http://127.0.0.1:9") -> None:
    new = {"name": "shop", "kind": "http", "base_url": url, "token": "t", "options": KINDS["http"]().options}
    added = await api.request("POST", "/v1/destinations", data=msgspec.json.encode(new))
    assert added.status == 201, added.body


async def ask(api: Api, body: Any = None, **headers: str) -> Answer:
    data = None if body is None else msgspec.json.encode(body)
    return await api.request("POST", PATH, data=data, headers={"Content-Type": "application/json"} | headers)


async def test_a_worker_makes_the_test_and_the_answer_waits_for_it(api: Api, patient: Settings) -> None:
    async with open_sandbox("http") as url, working(patient):
        await add(api, url)
        answer = await ask(api, {"canary": True})

    assert answer.status == 200, answer.body
    told = answer.json()
    assert (told["verdict"], told["state"], told["canary"]) == ("works", "done", True)
    assert [step["name"] for step in told["steps"]] == ["read", "write", "read back", "take away", "gone"]
    again = await api.get(f"/v1/destinations/shop/tests/{told['test_id']}")
    assert (again.status, again.json()) == (200, told)
    log = (await api.get("/v1/audit-log")).json()["entries"]
    entry = next(entry for entry in log if entry["action"] == "destination.test")
    assert (entry["subject"], entry["detail"]["canary"]) == ("destination:shop", True)


async def test_without_a_worker_nothing_is_left_to_be_made_later(api: Api, db: Db) -> None:
    await add(api)
    for fields in ({"Prefer": "wait=1"}, {"Prefer": "wait=30"}, {}):
        began = asyncio.get_running_loop().time()
        answer = await ask(api, **fields)
        assert (answer.status, answer.json()["code"]) == (503, "NO_WORKER")
        assert asyncio.get_running_loop().time() - began < 20, "a worker that is there would have taken it"
    assert answer.headers["Retry-After"]
    assert await db.fetchval("SELECT count(*) FROM destination_tests") == 0


async def test_a_test_that_takes_long_is_looked_up(api: Api, db: Db) -> None:
    await add(api)
    asking = asyncio.create_task(ask(api, Prefer="wait=1"))
    while not await db.fetchval("SELECT count(*) FROM destination_tests"):
        await asyncio.sleep(0.02)
    await db.execute("UPDATE destination_tests SET state = 'running', lease_until = now() + interval '1 hour'")
    answer = await asking

    assert answer.status == 202, answer.body
    assert answer.json()["verdict"] is None
    found = await api.get(answer.headers["Location"])
    assert (found.status, found.json()["state"]) == (200, "running")
    assert found.headers["Retry-After"] == "1"


async def test_who_and_what(api: Api, db: Db) -> None:
    await add(api)
    reader = api.as_key(await service.create_key(db, "acme", ["read", "import"]))
    assert (await ask(reader)).status == 403
    assert (await ask(api.as_key(None))).status == 401
    other = api.as_key(await service.create_key(db, "other", ["admin"]))
    assert (await ask(other)).status == 404
    assert (await ask(api, {"canary": "yes"})).status == 400
    assert (await ask(api, {"what": 1})).status == 400
    for path in (f"tests/{uuid.uuid4()}", "tests/none", "tests/"):
        assert (await api.get(f"/v1/destinations/shop/{path}")).status == 404
    await api.request("POST", "/v1/destinations/shop/pause")
    refused = await ask(api, {"canary": True})
    assert (refused.status, refused.json()["code"]) == (409, "CONFLICT")


async def shell(api: Api, *arguments: str) -> Result:
    words = ["test", "shop", *arguments, "--url", api.url, "--key", str(api.key)]
    return await asyncio.to_thread(CliRunner().invoke, destinations, words)


async def test_the_command_says_what_was_seen(api: Api, patient: Settings) -> None:
    async with open_sandbox("http") as url, working(patient):
        await add(api, url)
        result = await shell(api, "--canary")
        assert result.exit_code == 0, result.output
        assert "shop works" in result.output
        assert "It was removed." in result.output
        result = await shell(api, "--json")
        assert result.exit_code == 0, result.output
        assert msgspec.json.decode(result.output)["verdict"] == "works"
        await api.request("PATCH", "/v1/destinations/shop", data=msgspec.json.encode({"token": "bad-token"}))
        result = await shell(api)
        assert result.exit_code == 1
        assert "FAILED" in result.output
        assert "shop does not work" in result.output


async def test_the_command_waits_for_a_test_that_takes_long(
    api: Api, db: Db, patient: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as the service does, though it sends the question only once."""
    monkeypatch.setattr(api_client, "LEAST_TIMEOUT", 0.1)
    async with open_sandbox("http") as url:
        await add(api, url)
        asking = asyncio.create_task(shell(api))
        async with asyncio.timeout(60):
            while not await db.fetchval("SELECT count(*) FROM destination_tests"):
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)
        async with working(patient):
            result = await asking
    assert result.exit_code == 0, result
