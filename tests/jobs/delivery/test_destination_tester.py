"""Tests of destinations, from the row to what a worker saw. Every stand-in is real on the wire."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import uuid_utils.compat

from app.destinations import service as destination_service
from app.destinations.testing import service as testing_service
from app.destinations.testing.rules import Step, Verdict, judge
from app.destinations.testing.service import DestinationTest, DestinationTestRequest
from app.errors import Conflict, NotFound, NoWorker
from app.kit.encryption import Vault
from app.sandbox import KINDS, open_sandbox
from app.settings import Settings
from jobs.worker import working
from tests.conftest import LOOPBACK
from tests.contract.scripted import Script, scripted
from tests.jobs.conftest import World

CANARY = DestinationTestRequest(canary=True)


async def add(
    world: World,
    kind: str,
    url: str,
    *,
    name: str = "crm",
    token: str = "good",
    types: list[str] | None = None,
    **options: Any,
) -> None:
    new = destination_service.NewDestination(
        name=name, kind=kind, base_url=url, token=token, types=types, options=options
    )
    async with world.database.connection() as connection:
        await destination_service.add_destination(
            connection, Vault(world.settings.secret_key), world.tenant_id, new, private=LOOPBACK
        )


async def ask(world: World, asked: DestinationTestRequest = CANARY, name: str = "crm") -> uuid.UUID:
    async with world.database.connection() as connection:
        return await testing_service.ask(
            connection,
            world.tenant_id,
            name,
            asked,
            request_id="request-of-the-test",
            actor="tester",
            new_id=uuid_utils.compat.uuid7,
        )


async def run(
    world: World, asked: DestinationTestRequest = CANARY, *, name: str = "crm", settings: Settings | None = None
) -> DestinationTest:
    test_id = await ask(world, asked, name)
    async with working(settings or world.settings):
        found = await testing_service.wait(world.database, world.tenant_id, name, test_id, seconds=30)
    assert found.state == "done"
    return found


def seen(found: DestinationTest) -> dict[str, bool | None]:
    return {step.name: step.ok for step in found.steps}


@asynccontextmanager
async def stand_in(
    kind: str, fields: tuple[str, ...] = ("tranche_id", "Tranche_Id__c")
) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Its URL, and options that fit it; `fields` are declared, as the owner of the account would."""
    async with open_sandbox(kind, fields=fields) as url:
        yield url, KINDS[kind]().options


async def control(url: str, method: str, path: str, body: Any = None) -> Any:
    import aiohttp

    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"{url}/__sandbox__/{path}", json=body) as answer,
    ):
        assert answer.status == 200, await answer.text()
        return await answer.json()


@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_a_harmless_test_writes_nothing(world: World, kind: str) -> None:
    async with stand_in(kind) as (url, options):
        await add(world, kind, url, **options)
        found = await run(world, DestinationTestRequest())

        assert found.verdict == Verdict.WORKS, found.steps
        assert all(step.ok for step in found.steps)
        calls = (await control(url, "GET", "calls"))["calls"]
        assert calls
        assert {call["on"] for call in calls} == {"read"}
        assert {call["request_id"] for call in calls} == {"request-of-the-test"}
        assert (await control(url, "GET", "ledger"))["total"] == 0


@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_a_canary_is_written_read_back_and_taken_away(world: World, kind: str) -> None:
    async with stand_in(kind) as (url, options):
        await add(world, kind, url, **options)
        found = await run(world)

        assert found.verdict == Verdict.WORKS, found.steps
        assert list(seen(found))[-4:] == ["write", "read back", "take away", "gone"]
        written, gone = (await control(url, "GET", "ledger"))["effects"]
        assert written["key"] == gone["key"] == f"tranche-canary-{found.test_id.hex}"
        assert (written["created"], gone["deleted"]) == (True, True)
        assert (await control(url, "GET", "contacts"))["total"] == 0


@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_a_canary_is_of_a_type_that_the_destination_takes(world: World, kind: str) -> None:
    async with stand_in(kind) as (url, options):
        await add(world, kind, url, types=["companies"], **options)
        found = await run(world)

        assert found.verdict == Verdict.WORKS, found.steps
        written, gone = (await control(url, "GET", "ledger"))["effects"]
        assert {written["object"], gone["object"]} <= {"companies", "Account"}


async def test_there_is_no_canary_of_a_type_of_a_tenant(world: World) -> None:
    async with stand_in("http") as (url, options):
        await world.rows(
            """INSERT INTO resource_types (tenant_id, type_id, name, definition)
            VALUES (1, 100, 'products', '{"schema":{"properties":{}}}') RETURNING 1"""
        )
        await add(world, "http", url, types=["products"], **options)
        found = await run(world)

        assert seen(found)["canary"] is None
        assert (await control(url, "GET", "ledger"))["total"] == 0


@pytest.mark.parametrize("kind", ["hubspot", "salesforce"])
async def test_an_account_without_our_field_fails_before_anything_is_written(world: World, kind: str) -> None:
    async with stand_in(kind, fields=()) as (url, options):
        await add(world, kind, url, **options)
        found = await run(world)

        assert found.verdict == Verdict.FAILS
        assert seen(found)["canary"] is None
        assert "tranche_id" in found.steps[0].detail.lower()
        assert (await control(url, "GET", "ledger"))["total"] == 0


@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_a_refused_token_fails_before_anything_is_written(world: World, kind: str) -> None:
    async with stand_in(kind) as (url, options):
        await add(world, kind, url, token="bad-token", **options)
        found = await run(world)

        assert found.verdict == Verdict.FAILS
        assert found.steps[0].status == 401
        assert seen(found)["canary"] is None
        assert (await control(url, "GET", "ledger"))["total"] == 0


async def test_nobody_listens_there(world: World) -> None:
    await add(world, "http", "http://127.0.0.1:9")
    found = await run(world)
    assert found.verdict == Verdict.FAILS
    assert "no answer" in found.steps[0].detail.lower()


async def test_a_test_goes_no_further_than_deliveries_may(world: World, script: Script) -> None:
    await add(world, "http", script.url)
    found = await run(world, settings=msgspec.structs.replace(world.settings, destination_private=""))
    assert found.verdict == Verdict.FAILS
    assert "not called" in found.steps[0].detail
    assert script.asked == []


async def test_a_set_up_that_no_worker_can_use_is_said(world: World) -> None:
    await add(world, "hubspot", "http://127.0.0.1:9")
    await world.rows('UPDATE destinations SET options = \'{"time_zone": "Nowhere"}\' RETURNING 1')
    found = await run(world)
    assert (found.verdict, found.steps[0].name) == (Verdict.FAILS, "set-up")
    assert "time_zone" in found.steps[0].detail


@pytest.fixture
async def script() -> AsyncIterator[Script]:
    async with scripted() as script:
        yield script


async def test_without_a_way_to_read_only_the_canary_shows_that_contacts_are_taken(
    world: World, script: Script
) -> None:
    await add(world, "http", script.url)
    script.status, script.body = 405, {}
    found = await run(world, DestinationTestRequest())
    assert (found.verdict, seen(found)) == (Verdict.UNCLEAR, {"reach": None})
    assert [asked.method for asked in script.asked] == ["HEAD", "GET"]
    script.status = 200
    found = await run(world)
    assert script.bodies[-1]["contacts"][0]["deleted"] is True
    # A bare 200 shows nothing: json-server answers so, and stores something else.
    assert (found.verdict, seen(found)) == (
        Verdict.UNCLEAR,
        {"reach": None, "write": None, "read back": None, "take away": None},
    )
    async with stand_in("http") as (url, _):
        await add(world, "http", url, name="talks")
        found = await run(world, name="talks")
    assert (found.verdict, seen(found)) == (
        Verdict.WORKS,
        {"reach": None, "write": True, "read back": None, "take away": True},
    )


async def test_a_service_that_answers_200_to_everything_does_not_work(world: World, script: Script) -> None:
    """Each of these was taken for ok once."""
    await add(world, "http", script.url)
    for body in ({"ok": False, "error": "invalid_auth"}, {"errors": [{"message": "no"}]}, {"failCount": 1}):
        script.body = body
        assert (await run(world)).verdict == Verdict.FAILS, body
    script.status, script.body = 202, {"taskUid": 4}
    assert (await run(world)).verdict == Verdict.FAILS


async def test_a_server_that_stores_anything_does_not_work(world: World, script: Script) -> None:
    """It answers with what it was sent: nothing is there under our key."""
    await add(world, "http", script.url, read_path="/contacts/read")
    script.body = {"contacts": [], "id": 3}
    found = await run(world)
    assert found.verdict == Verdict.FAILS
    assert seen(found) == {"read": True, "write": True, "read back": False, "take away": True, "gone": True}


async def test_what_cannot_be_taken_away_is_not_written(world: World, script: Script) -> None:
    await add(world, "http", script.url, deleted_field=None)
    found = await run(world)
    assert seen(found)["canary"] is None
    assert {asked.method for asked in script.asked} == {"HEAD"}


async def test_what_could_not_be_taken_away_is_named(world: World, script: Script) -> None:
    await add(world, "http", script.url, archive_path="/gone", results="optional")
    script.answers = [(200, {}), (200, {}), (500, {})]
    found = await run(world)
    assert found.verdict == Verdict.FAILS
    assert f"Remove the record tranche-canary-{found.test_id.hex}" in found.steps[-1].detail


async def test_circuits_and_pauses_are_said_and_hold_no_test_back(world: World) -> None:
    async with stand_in("http") as (url, options):
        await add(world, "http", url, **options)
        await world.rows(
            "INSERT INTO circuit_changes (tenant_id, destination_id, circuit, before, after, opens, seconds, detail) "
            "SELECT tenant_id, destination_id, 'connection', 'closed', 'open', 1, 600, 'timed out' "
            "FROM destinations WHERE name = 'crm' RETURNING 1"
        )
        found = await run(world)
        assert found.verdict == Verdict.WORKS, found.steps
        assert (found.steps[0].name, found.steps[0].ok) == ("deliveries", None)
        assert "open" in found.steps[0].detail

        async with world.database.connection() as connection:
            await destination_service.set_destination_state(connection, world.tenant_id, "crm", "paused")
        found = await run(world, DestinationTestRequest())
        assert "paused" in found.steps[0].detail
        with pytest.raises(Conflict, match="paused"):
            await ask(world)


async def test_a_test_that_no_worker_takes_is_withdrawn(world: World) -> None:
    """Or a record would be written long after everybody went home."""
    await add(world, "http", "http://127.0.0.1:9")
    test_id = await ask(world)
    with pytest.raises(NoWorker):
        await testing_service.wait(world.database, world.tenant_id, "crm", test_id, seconds=0.2)
    with pytest.raises(NotFound):
        await testing_service.wait(world.database, world.tenant_id, "crm", test_id, seconds=0.2)
    assert await world.rows("SELECT action FROM audit_log WHERE action = 'destination.test'")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("created_at = now() - interval '2 minutes'", "in time"),
        ("state = 'running', lease_until = now() - interval '1 second'", "stopped"),
    ],
)
async def test_a_test_that_was_left_is_not_made_later(world: World, script: Script, change: str, words: str) -> None:
    await add(world, "http", script.url)
    test_id = await ask(world)
    await world.rows(f"UPDATE destination_tests SET {change} RETURNING 1")
    async with working(world.settings):
        found = await testing_service.wait(world.database, world.tenant_id, "crm", test_id, seconds=20)
    assert found.verdict == Verdict.FAILS
    assert words in found.steps[0].detail
    assert script.asked == []


async def test_a_tenant_has_a_few_tests_at_a_time_and_old_ones_go(world: World) -> None:
    await add(world, "http", "http://127.0.0.1:9")
    for _ in range(testing_service.MOST_OPEN):
        await ask(world)
    with pytest.raises(Conflict, match="running already"):
        await ask(world)
    await world.rows("UPDATE destination_tests SET created_at = now() - interval '25 hours' RETURNING 1")
    await ask(world)
    assert len(await world.rows("SELECT 1 FROM destination_tests")) == 1


@pytest.mark.parametrize(
    ("steps", "verdict"),
    [
        ([], Verdict.UNCLEAR),
        ([None], Verdict.UNCLEAR),
        ([None, True], Verdict.WORKS),
        ([True, False, None], Verdict.FAILS),
    ],
    ids=str,
)
def test_one_failed_step_is_enough(steps: list[bool | None], verdict: Verdict) -> None:
    assert judge(Step(name="x", ok=ok, detail="") for ok in steps) == verdict
    assert msgspec.json.decode(msgspec.json.encode(verdict)) == verdict.value
