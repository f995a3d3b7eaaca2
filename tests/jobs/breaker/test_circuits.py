"""Circuits that operators set, and what is known of their changes."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import Any

import msgspec
from aiohttp import web

from app.auth import service as auth_service
from app.destinations import service as destination_service
from app.destinations.circuits import service as circuit_service
from app.destinations.circuits.service import CircuitOrder
from app.kit.encryption import Vault
from app.kit.notifier import Notifier
from jobs.worker import working
from tests.conftest import LOOPBACK
from tests.jobs.conftest import World, people
from tests.jobs.delivery.test_delivery_edges import replace_destination

BREAKER: dict[str, Any] = {"breaker_min_calls": 4, "breaker_open": 0.4, "breaker_open_cap": 0.4}


async def order(world: World, state: Any, seconds: float | None = None, *, wake: bool = True) -> None:
    async with world.database.connection() as connection:
        found = await circuit_service.set_circuit(
            connection, world.tenant_id, "hubspot", CircuitOrder(state=state, seconds=seconds), actor="key-1"
        )
    if wake:
        notifier = Notifier(world.settings)
        notifier.notify(world.tenant_id, [found], reason=f"test:{state}:{seconds}")
        await asyncio.sleep(0.1)
        await notifier.close()


async def shown(world: World) -> destination_service.Destination:
    async with world.database.connection() as connection:
        (found,) = await destination_service.list_destinations(connection, world.tenant_id)
    return found


async def changes(world: World, tenant_id: int | None = None) -> list[tuple[str, str, str]]:
    rows = await world.rows(
        "SELECT circuit, before, after FROM circuit_changes WHERE tenant_id = $1 ORDER BY change_id",
        tenant_id or world.tenant_id,
    )
    return [(row["circuit"], row["before"], row["after"]) for row in rows]


async def until(look: Any, seconds: float = 45) -> None:
    async with asyncio.timeout(seconds):
        while not await look():
            await asyncio.sleep(0.02)


async def listen(world: World, tenant_id: int) -> None:
    await world.rows(
        "INSERT INTO webhook_endpoints (tenant_id, url, events, secret) "
        "VALUES ($1, 'https://example.com', '{circuit.opened,circuit.closed}', '')",
        tenant_id,
    )


async def events(world: World, tenant_id: int) -> list[dict[str, Any]]:
    rows = await world.rows("SELECT body FROM webhook_messages WHERE tenant_id = $1 ORDER BY message_id", tenant_id)
    return [msgspec.json.decode(row["body"]) for row in rows]


async def test_opened_by_hand_nothing_is_sent_until_its_time_is_over(world: World) -> None:
    async with working(world.settings):
        await order(world, "open", 600)
        destination = await shown(world)
        assert (destination.error_code, destination.detail) == ("CIRCUIT_OPEN", "opened by an operator")
        assert 500 < destination.retry_after_seconds <= 600

        async def applied() -> bool:
            return await changes(world) == [("connection", "closed", "open")]

        await until(applied)
        job = await world.push(people(5))
        await asyncio.sleep(0.8)
        assert await world.sandbox.calls() == []
        assert (await shown(world)).circuit.state == "open"
        ordered = time.time()
        await order(world, "open", 1.5)
        assert await world.finished(job.job_id) == "completed"
    calls = [datetime.fromisoformat(call["at"]).timestamp() for call in await world.sandbox.calls()]
    # The circuit itself is over a tenth before the destination is free again; a stand-in writes down milliseconds.
    assert min(calls) >= ordered + 1.5 - 0.11
    (delivery,) = await world.rows("SELECT attempt FROM deliveries")
    assert delivery["attempt"] == 1
    actions = await world.rows(
        "SELECT actor, action, subject, detail::text FROM audit_log WHERE action LIKE 'circuit.%'"
    )
    assert actions == [
        {
            "actor": "key-1",
            "action": "circuit.open",
            "subject": "destination:hubspot",
            "detail": f'{{"seconds": {seconds}}}',
        }
        for seconds in ("600.000000", "1.500000")
    ]
    (row,) = await world.rows("SELECT circuit_override FROM destinations")
    assert row["circuit_override"] is None


async def test_closed_by_hand_it_is_tried_at_once(world: World) -> None:
    """A circuit that would stay open for a minute, though the CRM is well again."""
    settings = msgspec.structs.replace(world.settings, **(BREAKER | {"breaker_open": 60.0, "breaker_open_cap": 60.0}))
    await world.sandbox.misbehave(status={"code": 500})
    async with working(settings):
        jobs = [await world.push(people(100, start=100 * n)) for n in range(8)]

        async def open_() -> bool:
            return (await shown(world)).circuit.state == "open"

        await until(open_)
        destination = await shown(world)
        assert 30 < destination.circuit.retry_after_seconds <= 60
        assert destination.circuit.openings_24h == 1
        assert destination.circuit.detail
        await world.sandbox.recover()
        await order(world, "closed")
        for job in jobs:
            assert await world.finished(job.job_id) == "completed"

        async def closed() -> bool:
            return await changes(world) == [("connection", "closed", "open"), ("connection", "open", "closed")]

        await until(closed)
    destination = await shown(world)
    assert (destination.circuit.state, destination.error_code) == ("closed", None)
    assert destination.circuit.openings_24h == 1


async def test_a_late_refusal_does_not_outlast_closing_by_hand(world: World) -> None:
    """A worker may write down that it was refused just after the operator's word."""
    await order(world, "closed", wake=False)
    await world.rows(
        "UPDATE destinations SET blocked_until = now() + interval '60 s', blocked_code = 'CIRCUIT_OPEN', "
        "blocked_detail = 'calls are held back'"
    )
    async with working(world.settings):
        job = await world.push(people(1))
        assert await world.finished(job.job_id) == "completed"


async def test_asking_again_changes_nothing_more(world: World) -> None:
    async with working(world.settings):
        for _ in range(3):
            await order(world, "open", 30)
        await order(world, "closed")
        await order(world, "closed")
        await asyncio.sleep(0.3)
        assert await changes(world) in (
            [("connection", "closed", "open"), ("connection", "open", "closed")],
            [],  # the last word came before a worker had heard the first
        )
        job = await world.push(people(1))
        assert await world.finished(job.job_id) == "completed"
    assert len(await world.rows("SELECT FROM audit_log WHERE action LIKE 'circuit.%'")) == 5


async def test_a_wish_that_nobody_was_woken_for_is_found(world: World) -> None:
    async with working(world.settings):
        await order(world, "open", 30, wake=False)

        async def applied() -> bool:
            return await changes(world) == [("connection", "closed", "open")]

        await until(applied)


async def test_a_change_is_told_to_the_tenant_whose_connection_it_is_alone(world: World) -> None:
    """Another tenant at the same CRM hears nothing of it."""
    async with world.database.connection() as connection:
        near = await auth_service.ensure_tenant(connection, "near")
        await destination_service.add_destination(
            connection,
            Vault(world.settings.secret_key),
            near,
            destination_service.NewDestination(
                name="theirs", kind="hubspot", base_url=world.sandbox.base_url, token="t"
            ),
            private=LOOPBACK,
        )
    for tenant_id in (world.tenant_id, near):
        await listen(world, tenant_id)
    await world.sandbox.misbehave(status={"code": 500})
    settings = msgspec.structs.replace(world.settings, **BREAKER)
    async with working(settings):
        jobs = [await world.push(people(100, start=100 * n)) for n in range(8)]

        async def open_() -> bool:
            return len(await changes(world)) >= 1

        await until(open_)
        await world.sandbox.recover()
        for job in jobs:
            assert await world.finished(job.job_id) == "completed"

        async def closed() -> bool:
            return (await changes(world))[-1] == ("connection", "half_open", "closed")

        await until(closed)
    ours = await changes(world)
    assert ours[:2] == [("connection", "closed", "open"), ("connection", "open", "half_open")]
    assert await changes(world, near) == []
    mine = await events(world, world.tenant_id)
    assert await events(world, near) == []
    assert (mine[0]["type"], mine[-1]["type"]) == ("circuit.opened", "circuit.closed")
    data = mine[0]["data"]
    assert (data["destination"], data["circuit"], data["before"], data["after"], data["opens"]) == (
        "hubspot",
        "connection",
        "closed",
        "open",
        1,
    )
    assert data["retry_after_seconds"] == 1
    assert "500" in data["detail"]


async def test_a_refused_token_opens_this_tenants_connection_alone(world: World) -> None:
    await world.sandbox.misbehave(unauthorized={})
    settings = msgspec.structs.replace(world.settings, **BREAKER)
    async with working(settings):
        for n in range(8):
            await world.push(people(100, start=100 * n))

        async def open_() -> bool:
            return bool(await changes(world))

        await until(open_)
    assert (await changes(world))[0] == ("connection", "closed", "open")


async def test_changes_outlast_an_absence_of_postgresql(world: World) -> None:
    """They are kept in mind until they can be written."""
    from app.kit.postgres.database import Database
    from app.vocabulary.states import CircuitState
    from jobs.breaker.rules import Transition
    from jobs.breaker.transition_log import CircuitChange, TransitionLog

    gone = Database(
        msgspec.structs.replace(world.settings, database_url="postgresql://127.0.0.1:9/none"), application_name="tests"
    )
    clock = asyncio.get_running_loop().time
    transitions = TransitionLog(gone, monotonic=clock)
    (row,) = await world.rows("SELECT destination_id FROM destinations")
    transition = Transition(
        name="connection:x", before=CircuitState.CLOSED, after=CircuitState.OPEN, opens=1, retry_after=5.0
    )
    place = (world.tenant_id, row["destination_id"], "connection")
    transitions.add(CircuitChange(*place, transition, "no answer", "timed out"))
    await asyncio.sleep(0.7)
    transitions._database = world.database

    async def written() -> bool:
        return await changes(world) == [("connection", "closed", "open")]

    await until(written)
    (late,) = await world.rows("SELECT now() - at > interval '0.5 s' AS late FROM circuit_changes")
    assert late["late"], "with the time at which it happened"
    await transitions.close()


async def test_another_token_is_tried_at_once_and_leaves_the_circuit_of_the_crm_alone(world: World) -> None:
    """Also what waits behind the circuit that the token before has opened; nothing of it is lost."""
    tokens: list[str] = []

    async def upsert(request: web.Request) -> web.Response:
        tokens.append(request.headers["Authorization"])
        if tokens[-1] != "Bearer second":
            return web.json_response({"message": "expired"}, status=401)
        return web.json_response({})

    crm = web.Application()
    crm.router.add_post("/contacts", upsert)
    runner = web.AppRunner(crm)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    settings = msgspec.structs.replace(world.settings, breaker_min_calls=1, breaker_open=600.0, breaker_open_cap=600.0)
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        await replace_destination(world, kind="http", base_url=url, token="first")
        async with working(settings):
            answer = await world.push(people(3))

            async def is_open() -> bool:
                return (await shown(world)).circuit.state == "open"

            await until(is_open)
            await world.rows("UPDATE deliveries SET next_attempt_at = now() + interval '1 hour'")
            async with world.database.connection() as connection:
                found = await destination_service.change_destination(
                    connection,
                    Vault(settings.secret_key),
                    world.tenant_id,
                    "hubspot",
                    destination_service.DestinationChange(token="second"),
                )
            notifier = Notifier(settings)
            notifier.notify(world.tenant_id, [found], reason="test:token")
            assert await world.finished(answer.job_id) == "completed"
            await notifier.close()
    finally:
        await runner.cleanup()
    assert tokens.count("Bearer second") == 1
    assert await changes(world) == [("connection", "closed", "open"), ("connection", "open", "closed")]
    assert await world.rows("SELECT 1 FROM dead_letters") == []


async def test_another_token_does_not_close_what_was_opened_by_hand(world: World) -> None:
    async with working(msgspec.structs.replace(world.settings, **BREAKER)):
        await order(world, "open", 60)
        async with world.database.connection() as connection:
            await destination_service.change_destination(
                connection,
                Vault(world.settings.secret_key),
                world.tenant_id,
                "hubspot",
                destination_service.DestinationChange(token="pat-good"),
            )
        await world.push(people(1))
        await asyncio.sleep(0.5)
    found = await shown(world)
    assert (found.error_code, found.detail) == ("CIRCUIT_OPEN", "opened by an operator")
    assert await world.sandbox.calls() == []


async def test_a_circuit_closes_when_what_waited_for_it_went_well(world: World) -> None:
    """Less waits than the probes that would close it: nothing is left to hold back, and nobody is left to probe."""
    await world.sandbox.misbehave(status={"code": 503, "times": 4})
    async with working(msgspec.structs.replace(world.settings, **BREAKER)):
        job = await world.push(people(100))
        assert await world.finished(job.job_id) == "completed"

        async def closed() -> bool:
            return (await shown(world)).circuit.state == "closed"

        await until(closed)
    assert await changes(world) == [
        ("connection", "closed", "open"),
        ("connection", "open", "half_open"),
        ("connection", "half_open", "closed"),
    ]
