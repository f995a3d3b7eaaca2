"""Contacts on their whole way to services that others wrote (`tests/jobs/delivery/real_services.py`).

Where the command of one is not found, its tests are skipped.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.destinations import service
from app.embedded import Engines
from app.job_status.items.service import read_drifted
from app.kit.encryption import Vault
from app.resource_types.catalog import Catalog
from app.syncs import creation
from jobs.worker import working
from tests.conftest import LOOPBACK
from tests.jobs.conftest import World, people
from tests.jobs.delivery.real_services import SERVICES, Server, running


@pytest.fixture(params=SERVICES)
async def server(request: pytest.FixtureRequest, tmp_path: Path, engines: Engines) -> AsyncIterator[Server]:
    async with running(request.param, tmp_path, engines) as server:
        yield server


async def connect(world: World, server: Server) -> None:
    """In place of the destination that every world has."""
    async with world.database.connection() as connection:
        await service.set_destination_state(connection, world.tenant_id, "hubspot", "removed")
        new = service.NewDestination(
            name="real",
            kind="http",
            base_url=server.url,
            credentials=server.real.credentials,
            options=server.real.options,
        )
        await service.add_destination(
            connection, Vault(world.settings.secret_key), world.tenant_id, new, private=LOOPBACK
        )


async def test_it_holds_what_was_imported_changed_and_removed(world: World, server: Server) -> None:
    await connect(world, server)
    async with working(world.settings):
        batch = people(20, phone="001-808", attributes={"tier": "gold"})
        expected = {record["id"] for record in batch}
        if server.real.refuses is not None:
            expected.remove(batch[3]["id"])
            batch[3]["id"] = server.real.refuses
        answer = await world.push(batch)
        end = "completed" if server.real.refuses is None else "completed_with_failures"
        assert await world.finished(answer.job_id) == end
        held = await server.records()
        assert held.keys() == expected
        first = held["c00000"]
        assert (first["email"], first["phone"]) == ("c00000@example.com", "001-808")
        attributes = first if server.real.attributes is None else first[server.real.attributes]
        assert attributes["tier"] == "gold"

        # New records beside known ones.
        answer = await world.push(people(14, start=10, phone="002-909"))
        assert await world.finished(answer.job_id) == "completed"
        expected |= {f"c000{n}" for n in range(20, 24)}
        held = await server.records()
        assert held.keys() == expected
        assert {held[f"c000{n}"]["phone"] for n in range(10, 24)} == {"002-909"}

        # Somebody there adds a field, which no import names.
        await server.change("c00000", note="call her")
        answer = await world.push([{"id": "c00000", "email": "c00000@example.com", "phone": None}])
        assert await world.finished(answer.job_id) == "completed"
        changed = (await server.records())["c00000"]
        assert (changed.get("phone"), changed["note"]) == (None, "call her")

        # Somebody there removes one of those that are to be removed.
        await server.remove("c00001")
        answer = await world.push([{"id": f"c0000{n}", "deleted": True} for n in (0, 1)])
        assert await world.finished(answer.job_id) == "completed"
        assert (await server.records()).keys() == expected - {"c00000", "c00001"}


async def test_a_verification_names_what_somebody_changed_there(world: World, server: Server) -> None:
    await connect(world, server)
    async with working(world.settings):
        assert await world.finished((await world.push(people(20, phone="001-808"))).job_id) == "completed"
        await server.remove("c00003")
        await server.change("c00004", phone="+1")
        await server.make("theirs", email="theirs@example.com")
        async with world.database.connection() as connection:
            made = await creation.create(
                connection,
                world.tenant_id,
                "real",
                creation.SyncRequest(mode="verify", repair=True),
                catalog=Catalog(),
                request_id="verify-1",
                actor="test",
            )
        assert made.job_id is not None
        await world.finished(made.job_id)
        assert await world.rows("SELECT state, error FROM jobs WHERE job_id = $1", made.job_id) == [
            {"state": "completed", "error": None}
        ]
        async with world.database.connection() as connection:
            items = await read_drifted(connection, world.tenant_id, made.job_id, 100)
    found = {item.id: item.destinations["real"].drift for item in items}
    assert {key: drift.kind for key, drift in found.items() if drift} == {
        "c00003": "missing",
        "c00004": "different",
        "theirs": "unknown",
    }
    held = await server.records()
    assert (held["c00003"]["phone"], held["c00004"]["phone"]) == ("001-808", "001-808")
    assert held["theirs"]["email"] == "theirs@example.com"


async def test_a_change_of_a_record_that_somebody_removed_there(world: World, server: Server) -> None:
    """Either it is made anew, or the item says that it failed, and the next change makes it anew."""
    await connect(world, server)
    async with working(world.settings):
        assert await world.finished((await world.push(people(3, phone="001-808"))).job_id) == "completed"
        await server.remove("c00001")
        end = await world.finished((await world.push(people(3, phone="002-909"))).job_id)
        held = await server.records()
        assert ("c00001" in held) == (end == "completed")
        assert {held[key]["phone"] for key in ("c00000", "c00002")} == {"002-909"}
        assert await world.finished((await world.push(people(3, phone="003-707"))).job_id) == "completed"
        held = await server.records()
        assert [held[f"c0000{n}"]["phone"] for n in range(3)] == ["003-707"] * 3
