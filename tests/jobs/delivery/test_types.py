"""Records of every type reach their own object, and nothing else, at every kind of destination."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from app.destinations import service as destination_service
from app.kit.encryption import Vault
from app.resource_types import service as type_service
from app.resource_types.catalog import Catalog
from app.resources.declaration import Resource
from app.resources.json_schema import Definition
from app.sandbox import KINDS, open_sandbox
from jobs.worker import working
from tests.conftest import LOOPBACK
from tests.jobs.conftest import World, people
from tests.jobs.sagas.test_undo import ask
from tests.types import COMPANIES

PERSONS = {"hubspot": "contacts", "salesforce": "Contact", "http": "contacts"}
OBJECTS = {"hubspot": "companies", "salesforce": "Account", "http": "companies"}
COMPANY: dict[str, Any] = {
    "id": "acme",
    "name": "ACME",
    "domain": "acme.example",
    "city": "Bonn",
    "employees": 12,
    "annual_revenue": 1.5e7,
}
AT: dict[str, dict[str, Any]] = {
    "hubspot": {"name": "ACME", "city": "Bonn", "numberofemployees": "12", "annualrevenue": "15000000.0"},
    "salesforce": {"Name": "ACME", "BillingCity": "Bonn", "NumberOfEmployees": 12, "AnnualRevenue": 1.5e7},
    "http": {"name": "ACME", "city": "Bonn", "employees": 12, "annual_revenue": 1.5e7},
}


class Crm:
    """A stand-in of one kind, and a destination of its name."""

    def __init__(self, world: World, url: str, session: aiohttp.ClientSession) -> None:
        self.world = world
        self._url = url
        self._session = session

    async def held(self, of: str) -> dict[str, dict[str, Any]]:
        """Properties by our key."""
        async with self._session.get(f"{self._url}/__sandbox__/contacts", params={"object": of}) as answer:
            return {c["key"]: c["properties"] for c in (await answer.json())["contacts"]}

    async def edit(self, of: str, key_property: str, key: str, **properties: Any) -> None:
        body = {"key_property": key_property, "key": key, "properties": properties}
        async with self._session.post(f"{self._url}/__sandbox__/contacts", params={"object": of}, json=body) as answer:
            assert answer.status == 200, await answer.text()


@pytest.fixture(params=["hubspot", "salesforce", "http"])
async def crm(request: pytest.FixtureRequest, world: World) -> AsyncIterator[Crm]:
    async with AsyncExitStack() as stack:
        yield await open_crm(stack, world, request.param, request.param)


async def open_crm(stack: AsyncExitStack, world: World, kind: str, name: str, **more: Any) -> Crm:
    """In place of the destination that every world has."""
    url = await stack.enter_async_context(open_sandbox(kind, fields=["tranche_id", "Tranche_Id__c"]))
    session = await stack.enter_async_context(aiohttp.ClientSession())
    options = KINDS[kind]().options | more.pop("options", {})
    new = destination_service.NewDestination(
        name=f"{name}-crm", kind=kind, base_url=url, token="pat-good", options=options, **more
    )
    async with world.database.connection() as connection:
        await connection.execute("UPDATE destinations SET state = 'removed' WHERE name = 'hubspot'")
        await destination_service.add_destination(
            connection, Vault(world.settings.secret_key), world.tenant_id, new, private=LOOPBACK
        )
    return Crm(world, url, session)


async def declare(world: World, name: str, **definition: Any) -> tuple[Resource, Catalog]:
    catalog = Catalog()
    async with world.database.connection() as connection:
        await type_service.declare_type(connection, world.tenant_id, name, Definition(**definition), actor="tests")
        return await catalog.find(connection, world.tenant_id, name), catalog


async def test_a_company_is_created_changed_archived_and_brought_back(
    world: World, crm: Crm, request: pytest.FixtureRequest
) -> None:
    kind = request.node.callspec.params["crm"]
    of = OBJECTS[kind]
    async with working(world.settings):
        assert await world.finished((await world.push([COMPANY], COMPANIES)).job_id) == "completed"
        found = (await crm.held(of))["acme"]
        assert {name: found.get(name) for name in AT[kind]} == AT[kind]

        changed = await world.push([{"id": "acme", "name": "ACME", "city": None, "employees": 13}], COMPANIES)
        assert await world.finished(changed.job_id) == "completed"
        found = (await crm.held(of))["acme"]
        city, employees = list(AT[kind])[1:3]
        assert (found.get(city) or None, str(found[employees])) == (None, "13")

        gone = await world.push([{"id": "acme", "deleted": True}], COMPANIES)
        assert await world.finished(gone.job_id) == "completed"
        assert await crm.held(of) == {}

        assert await world.finished(await ask(world, gone.job_id)) == "completed"
        found = (await crm.held(of))["acme"]
        assert (found[next(iter(AT[kind]))], str(found[employees])) == ("ACME", "13")
    assert await crm.held(PERSONS[kind]) == {}


async def test_the_same_id_in_two_types_is_two_records_there(
    world: World, crm: Crm, request: pytest.FixtureRequest
) -> None:
    (contact,) = people(1)
    contact |= {"last_name": "Lovelace"}
    async with working(world.settings):
        await world.finished((await world.push([contact])).job_id)
        await world.finished((await world.push([COMPANY | {"id": contact["id"]}], COMPANIES)).job_id)
        gone = await world.push([{"id": contact["id"], "deleted": True}])
        assert await world.finished(gone.job_id) == "completed"
    (states,) = await world.rows(
        "SELECT array_agg(state || ' ' || type_id ORDER BY type_id) AS all FROM record_syncs WHERE record_id = $1",
        contact["id"],
    )
    assert states["all"] == ["ok 1", "ok 2"]
    kind = request.node.callspec.params["crm"]
    assert await crm.held(PERSONS[kind]) == {}
    assert list(await crm.held(OBJECTS[kind])) == [contact["id"]]


async def test_a_deletion_archives_what_our_call_did_not_create(world: World) -> None:
    """Unlike an undo: somebody asked for it."""
    async with AsyncExitStack() as stack:
        crm = await open_crm(stack, world, "hubspot", "hubspot")
        await crm.edit("companies", "tranche_id", "acme", name="Theirs")
        async with working(world.settings):
            assert await world.finished((await world.push([COMPANY], COMPANIES)).job_id) == "completed"
            (sync,) = await world.rows("SELECT created FROM record_syncs")
            gone = await world.push([{"id": "acme", "deleted": True}], COMPANIES)
            assert await world.finished(gone.job_id) == "completed"
        assert (sync["created"], await crm.held("companies")) == (False, {})


async def test_a_declared_type_goes_to_the_path_that_it_names_and_nowhere_else(world: World) -> None:
    schema = {"properties": {"title": {"type": "string"}, "price": {"type": "number"}}, "required": ["title"]}
    where = {"shop-crm": {"path": "/goods", "wrapper": "goods", "read_path": "/goods/read"}}
    async with AsyncExitStack() as stack:
        shop = await open_crm(stack, world, "http", "shop")
        other = await open_crm(stack, world, "http", "other")
        products, catalog = await declare(world, "products", singular="product", schema=schema, destinations=where)
        async with working(world.settings):
            answer = await world.push([{"id": "p1", "title": "Lamp", "price": 9.5}], products, catalog)
            assert await world.finished(answer.job_id) == "completed"
            contacts = await world.push(people(1))
            assert await world.finished(contacts.job_id) == "completed"
        held = (await shop.held("goods"))["p1"]
        assert (held["title"], held["price"]) == ("Lamp", 9.5)
        assert (await shop.held("products"), await other.held("products"), await other.held("goods")) == ({}, {}, {})
        assert list(await other.held("contacts")) == list(await shop.held("contacts")) == ["c00000"]


async def test_a_destination_takes_the_types_that_it_lists(world: World) -> None:
    async with AsyncExitStack() as stack:
        some = await open_crm(stack, world, "http", "some", types=["companies"])
        every = await open_crm(stack, world, "http", "every")
        async with working(world.settings):
            for answer in (await world.push(people(1)), await world.push([COMPANY], COMPANIES)):
                assert await world.finished(answer.job_id) == "completed"
        assert (await some.held("contacts"), list(await some.held("companies"))) == ({}, ["acme"])
        assert [list(await every.held(of)) for of in ("contacts", "companies")] == [["c00000"], ["acme"]]


async def test_paths_of_contacts_are_not_those_of_other_types(world: World) -> None:
    """An id that is archived there would be that of a contact."""
    paths = {"path": "/contacts", "read_path": "/contacts/read", "archive_path": "/contacts/archive"}
    schema = {"properties": {"title": {"type": "string"}}}
    async with AsyncExitStack() as stack:
        shop = await open_crm(stack, world, "http", "shop", options=paths)
        products, catalog = await declare(world, "products", schema=schema, destinations={"shop-crm": {}})
        async with working(world.settings):
            for answer in (
                await world.push(people(1)),
                await world.push([COMPANY | {"id": "c00000"}], COMPANIES),
                await world.push([{"id": "c00000", "deleted": True}], COMPANIES),
                await world.push([{"id": "c00000", "title": "Lamp"}], products, catalog),
            ):
                assert await world.finished(answer.job_id) == "completed"
            assert list(await shop.held("contacts")) == list(await shop.held("products")) == ["c00000"]
            gone = await world.push([{"id": "c00000", "deleted": True}], products, catalog)
            assert await world.finished(gone.job_id) == "completed"
        assert (list(await shop.held("contacts")), await shop.held("products")) == (["c00000"], {})
        assert await shop.held("companies") == {}
