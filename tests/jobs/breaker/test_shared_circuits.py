"""Tenants who call the same CRM: none can hold up another, see into its circuits, or move them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp import web

from app.auth import service as auth_service
from app.destinations import service as destination_service
from app.destinations.circuits import service as circuit_service
from app.destinations.circuits.service import CircuitOrder
from app.kit.encryption import Vault
from app.kit.notifier import Notifier
from app.settings import Settings
from jobs.worker import working
from tests.conftest import LOOPBACK
from tests.jobs.breaker.test_circuits import changes, events, listen, shown, until
from tests.jobs.conftest import World, people

BREAKER: dict[str, Any] = {
    "breaker_min_calls": 4,
    "breaker_window": 120.0,
    "breaker_open": 120.0,
    "breaker_open_cap": 120.0,
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, **BREAKER)


class Crm:
    """One CRM for all: it fails for the tokens that it is told to, after a while."""

    def __init__(self) -> None:
        self.failing: set[str] = set()
        self.seconds = 0.0
        self.calls: list[str] = []

    async def upsert(self, request: web.Request) -> web.Response:
        token = request.headers["Authorization"].removeprefix("Bearer ")
        self.calls.append(token)
        inputs = (await request.json())["inputs"]
        await asyncio.sleep(self.seconds)
        if token in self.failing:
            return web.json_response({"message": "an error of ours"}, status=503)
        results = [
            {
                "id": f"1{one['id']}",
                "new": True,
                "properties": one["properties"],
                "objectWriteTraceId": one.get("objectWriteTraceId"),
            }
            for one in inputs
        ]
        return web.json_response({"status": "COMPLETE", "results": results})


@pytest.fixture
async def crm() -> AsyncIterator[tuple[Crm, str]]:
    made = Crm()
    app = web.Application()
    app.router.add_post("/crm/v3/objects/contacts/batch/upsert", made.upsert)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield made, f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def move_in(world: World, name: str, base_url: str, kind: str = "hubspot", **options: Any) -> World:
    """Another tenant of the same installation, with a destination there; its token is its name."""
    async with world.database.connection() as connection:
        tenant_id = await auth_service.ensure_tenant(connection, name)
        new = destination_service.NewDestination(name="crm", kind=kind, base_url=base_url, token=name, options=options)
        vault = Vault(world.settings.secret_key)
        await destination_service.add_destination(connection, vault, tenant_id, new, private=LOOPBACK)
    return World(world.settings, world.database, world.sandbox, tenant_id, world._notifier)


async def fail(world: World, calls: int) -> None:
    """Push until this tenant's own circuit is open."""
    for n in range(calls):
        await world.push(people(1, start=n))
        await asyncio.sleep(0.05)

    async def is_open() -> bool:
        return ("connection", "closed", "open") in await changes(world)

    await until(is_open)


async def pushes_at_once(world: World, start: int = 0) -> bool:
    for n in range(3):
        job = await world.push(people(1, start=start + n))
        assert await world.finished(job.job_id) == "completed"
    return True


async def test_a_path_that_fails_holds_up_nobody_else_at_the_same_address(world: World) -> None:
    """An `http` destination is what each tenant makes of it, so it shares no circuit."""

    async def answer(request: web.Request) -> web.Response:
        return web.json_response({}, status=500 if request.path == "/bad" else 200)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        good = await move_in(world, "good", url, "http", idempotent=True)
        bad = await move_in(world, "bad", url, "http", path="/bad", idempotent=True)
        second = await move_in(world, "second", url, "http", path="/bad", idempotent=True)
        async with working(world.settings):
            await fail(bad, 6)
            await fail(second, 6)
            assert await pushes_at_once(good)
    finally:
        await runner.cleanup()
    assert await changes(good) == []


async def test_a_tenant_whose_calls_fail_holds_up_nobody_else(world: World, crm: tuple[Crm, str]) -> None:
    """Not with many failures, and not after them."""
    fake, url = crm
    fake.failing.add("bad")
    bad, good = await move_in(world, "bad", url), await move_in(world, "good", url)
    async with working(world.settings):
        await pushes_at_once(good)
        await fail(bad, 8)
        assert await pushes_at_once(good, start=10)
    rows = await world.rows("SELECT circuit FROM circuit_changes")
    assert {row["circuit"] for row in rows} == {"connection"}
    assert await changes(good) == []


async def test_a_lowered_time_out_is_its_tenants_own_trouble(world: World, crm: tuple[Crm, str]) -> None:
    """However many tenants lower it: who waits as long as the operator would finds the CRM well."""
    fake, url = crm
    fake.seconds = 1.3
    options = {"total_timeout": 1, "batch_size": 1}
    hasty = [await move_in(world, name, url, **options) for name in ("hasty", "rash")]
    patient = await move_in(world, "patient", url)
    async with working(world.settings):
        for one in hasty:
            await fail(one, 8)
        job = await patient.push(people(1))
        assert await patient.finished(job.job_id) == "completed"
    rows = await world.rows("SELECT circuit FROM circuit_changes")
    assert {row["circuit"] for row in rows} == {"connection"}


async def test_a_crm_that_fails_several_tenants_is_left_alone_by_all(world: World, crm: tuple[Crm, str]) -> None:
    """Who comes later is held back as well, learns until when and nothing else; an operator alone can end it."""
    fake, url = crm
    fake.failing |= {"a", "b", "c"}
    # Their own circuits would open at the same time: it is what they share that shall speak here.
    a, b = await move_in(world, "a", url, concurrency=1), await move_in(world, "b", url, concurrency=1)
    c = await move_in(world, "c", url)
    for one in (a, b, c):
        await listen(one, one.tenant_id)
    async with working(world.settings):

        async def is_shared_open() -> bool:
            return bool(await world.rows("SELECT FROM circuit_changes WHERE circuit = 'crm' AND after = 'open'"))

        for n in range(4):
            await a.push(people(1, start=n))
            await b.push(people(1, start=n))
        await until(is_shared_open)
        fake.failing.clear()
        job = await c.push(people(1))

        async def is_held() -> bool:
            return (await shown(c)).error_code is not None

        await until(is_held)
        held = await shown(c)
        assert held.error_code == "CIRCUIT_OPEN"
        assert 1 <= held.retry_after_seconds <= 120
        assert held.detail == "all calls to this CRM are suspended for a while"
        assert (held.circuit.state, held.circuit.openings_24h) == ("closed", 0)
        async with c.database.connection() as connection:
            seen = await circuit_service.read_circuit(connection, c.tenant_id, "crm", 20)
        assert seen.changes == []
        assert await events(c, c.tenant_id) == []

        # Its own order moves its own circuit.
        await order(c, "closed")
        await asyncio.sleep(1)
        assert "c" not in fake.calls
        await order(a, "closed", shared=True)
        assert await c.finished(job.job_id) == "completed"
    (audited,) = await world.rows(
        "SELECT actor, subject FROM audit_log WHERE tenant_id = $1 AND action = 'circuit.close'", a.tenant_id
    )
    assert audited == {"actor": "tranche", "subject": f"crm:hubspot:{url}"}


async def order(world: World, state: Any, *, shared: bool = False) -> None:
    async with world.database.connection() as connection:
        found = await circuit_service.set_circuit(
            connection, world.tenant_id, "crm", CircuitOrder(state=state), actor="tranche", shared=shared
        )
    notifier = Notifier(world.settings)
    notifier.notify(world.tenant_id, [found], reason=f"test:{state}:{shared}:{world.tenant_id}")
    await asyncio.sleep(0.1)
    await notifier.close()


async def test_what_an_operator_opens_for_all_is_closed_for_all(world: World, crm: tuple[Crm, str]) -> None:
    """Also for those who were held back in the meantime, however long it was to last."""
    fake, url = crm
    a, b = await move_in(world, "a", url), await move_in(world, "b", url)
    async with working(world.settings):
        await order(a, "open", shared=True)
        await asyncio.sleep(0.5)
        job = await b.push(people(1))

        async def is_held() -> bool:
            return (await shown(b)).error_code == "CIRCUIT_OPEN"

        await until(is_held)
        assert (await shown(b)).retry_after_seconds > 3000
        await order(a, "closed", shared=True)
        assert await b.finished(job.job_id) == "completed"
    assert "a" not in fake.calls
