"""An account that was there before its first import: nobody is doubled, and an undo gives everything back."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest

from app.job_status.items.item_filter import Filter
from app.job_status.items.queries import JobRef
from app.job_status.items.service import read_items
from app.records.service import read_record
from jobs.worker import working
from tests.jobs.conftest import World
from tests.jobs.delivery.test_types import COMPANY, Crm, declare, open_crm
from tests.jobs.sagas.test_undo import ask
from tests.types import COMPANIES, CONTACTS

OBJECTS = {"hubspot": "contacts", "salesforce": "Contact", "http": "contacts"}
NAMES = {
    "hubspot": {"email": "email", "phone": "phone", "last": "lastname", "company": "company", "key": "tranche_id"},
    "salesforce": {"email": "Email", "phone": "Phone", "last": "LastName", "company": "Title", "key": "Tranche_Id__c"},
    "http": {"email": "email", "phone": "phone", "last": "last_name", "company": "company", "key": "id"},
}
MORE: dict[str, dict[str, Any]] = {"salesforce": {"fields": {"company": "Title"}}}


class Account:
    """What a CRM has beside what we bring."""

    def __init__(self, crm: Crm, kind: str, of: str) -> None:
        self.world = crm.world
        self.kind, self.object = kind, of
        self.names = NAMES[kind]
        self.url, self.session = crm._url, crm._session

    async def have(self, key: str, /, *, of: str | None = None, by: str | None = None, **properties: Any) -> str:
        """A record that a user of the CRM makes; its id there."""
        body = {"key_property": by or self.names["email"], "key": key, "properties": properties}
        url = f"{self.url}/__sandbox__/contacts"
        async with self.session.post(url, params={"object": of or self.object}, json=body) as answer:
            assert answer.status == 200, await answer.text()
            return str((await answer.json())["contact"]["id"])

    async def held(self, of: str | None = None) -> dict[str, dict[str, Any]]:
        """Properties by the id there."""
        url = f"{self.url}/__sandbox__/contacts"
        async with self.session.get(url, params={"object": of or self.object}) as answer:
            return {c["id"]: c["properties"] for c in (await answer.json())["contacts"]}

    async def calls(self) -> list[dict[str, Any]]:
        async with self.session.get(f"{self.url}/__sandbox__/calls") as answer:
            return list((await answer.json())["calls"])

    async def misbehave(self, **faults: dict[str, Any]) -> None:
        async with self.session.put(f"{self.url}/__sandbox__/faults", json=faults) as answer:
            assert answer.status == 200, await answer.text()


@pytest.fixture(params=["hubspot", "salesforce", "http"])
async def account(request: pytest.FixtureRequest, world: World) -> AsyncIterator[Account]:
    kind = request.param
    async with AsyncExitStack() as stack:
        options = {"match_on": "email"} | MORE.get(kind, {})
        yield Account(await open_crm(stack, world, kind, kind, options=options), kind, OBJECTS[kind])


def person(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": f"c{number:05}", "email": f"c{number:05}@example.com", "last_name": f"Ours {number}"} | fields


async def push(account: Account, items: list[dict[str, Any]]) -> uuid.UUID:
    job_id = (await account.world.push(items)).job_id
    await account.world.finished(job_id)
    return job_id


async def undo(account: Account, job_id: uuid.UUID) -> uuid.UUID:
    undo_id = await ask(account.world, job_id)
    assert await account.world.finished(undo_id) == "completed"
    return undo_id


async def fill(account: Account, count: int) -> dict[str, dict[str, Any]]:
    """So many records that are there before; every third has no phone, and all but the first 40 are strangers."""
    names = account.names
    for number in range(count):
        email = f"C{number:05}@example.com" if number < 40 else f"stranger{number}@example.com"
        email = email.lower() if account.kind == "hubspot" else email
        phone = {names["phone"]: f"+1 {number}"} if number % 3 else {}
        await account.have(email, **{names["last"]: f"Theirs {number}", names["company"]: "Theirs"} | phone)
    return await account.held()


async def test_an_account_of_which_a_part_matches(account: Account) -> None:
    """100 there, 40 of them known by their e-mail, 80 imported: 140; after the undo the 100 as they were."""
    before = await fill(account, 100)
    names = account.names
    async with working(account.world.settings):
        imported = await push(account, [person(n, phone=f"+49 {n}", company="X") for n in range(80)])
        held = await account.held()
        assert len(held) == 140
        ours = {p[names["key"]]: p for p in held.values() if p.get(names["key"])}
        assert len(ours) == 80
        assert {p[names["phone"]] for p in ours.values()} == {f"+49 {n}" for n in range(80)}
        assert len({str(p[names["email"]]).casefold() for p in held.values()}) == 140

        # What comes later goes to the same records, and is looked for no more.
        reads = sum(call["on"] == "read" for call in await account.calls())
        later = await push(account, [person(n, phone="+49 0") for n in range(80)])
        held = await account.held()
        assert len(held) == 140
        assert all(held[there][names["phone"]] == "+49 0" for there in before if held[there].get(names["key"]))
        assert sum(call["on"] == "read" for call in await account.calls()) == reads
        (row,) = await account.world.rows(
            "SELECT count(*)::int AS n, bool_or(created) AS made FROM record_syncs WHERE before_image IS NOT NULL"
        )
        assert row == {"n": 40, "made": False}

        await undo(account, later)
        held = await account.held()
        assert {p[names["phone"]] for p in held.values() if p.get(names["key"])} == {f"+49 {n}" for n in range(80)}
        undone = await undo(account, imported)
    after = await account.held()
    if account.kind == "http":  # an object without members is not there either
        after = {there: {k: v for k, v in p.items() if v != {}} for there, p in after.items()}
    assert after == before
    assert (
        await account.world.rows("SELECT FROM record_syncs WHERE before_image IS NOT NULL OR remote_id IS NOT NULL")
        == []
    )
    async with account.world.database.connection() as connection:
        page = await read_items(JobRef(connection, account.world.tenant_id, undone), Filter(), first=0, limit=100)
    assert {item.destinations[f"{account.kind}-crm"].state for item in page.items} == {"ok"}
    assert {item.destinations[f"{account.kind}-crm"].not_restored for item in page.items} == {None}


async def test_what_was_released_is_found_again(account: Account) -> None:
    there = await account.have("c00001@example.com", **{account.names["last"]: "Theirs"})
    before = await account.held()
    async with working(account.world.settings):
        for _ in range(2):
            imported = await push(account, [person(1, phone="+49 1")])
            assert list(await account.held()) == [there]
            assert (await account.held())[there][account.names["key"]] == "c00001"
            await undo(account, imported)
            assert await account.held() == before


async def test_a_field_that_an_undone_import_named_first_is_as_before(account: Account) -> None:
    """The record goes there for the first time as the second import left it, and only that one is undone."""
    names = account.names
    there = await account.have("c00001@example.com", **{names["last"]: "Theirs", names["phone"]: "+1 999"})
    async with working(account.world.settings):
        await account.world.rows("UPDATE destinations SET state = 'paused' WHERE state = 'active'")
        await account.world.push([person(1)])
        second = (await account.world.push([person(1, phone="+49 1", company="X")])).job_id
        await account.world.rows("UPDATE destinations SET state = 'active' WHERE state = 'paused'")
        await account.world.finished(second)
        assert (await account.held())[there][names["phone"]] == "+49 1"
        undone = await undo(account, second)
    found = (await account.held())[there]
    assert (found[names["phone"]], found.get(names["company"])) == ("+1 999", None)
    assert (found[names["last"]], found[names["key"]]) == ("Ours 1", "c00001")
    async with account.world.database.connection() as connection:
        page = await read_items(JobRef(connection, account.world.tenant_id, undone), Filter(), first=0, limit=1)
        record = await read_record(connection, account.world.tenant_id, CONTACTS, "c00001")
    assert page.items[0].destinations[f"{account.kind}-crm"].not_restored is None
    assert record.destinations[f"{account.kind}-crm"].created is False


async def test_a_field_that_a_later_import_named_first_is_told(account: Account) -> None:
    """What was in it then, nobody has read."""
    names = account.names
    there = await account.have("c00001@example.com", **{names["last"]: "Theirs", names["phone"]: "+1 999"})
    async with working(account.world.settings):
        await push(account, [person(1)])
        undone = await undo(account, await push(account, [person(1, phone="+49 1")]))
        async with account.world.database.connection() as connection:
            page = await read_items(JobRef(connection, account.world.tenant_id, undone), Filter(), first=0, limit=1)
    assert page.items[0].destinations[f"{account.kind}-crm"].not_restored == ["phone"]
    assert (await account.held())[there][names["phone"]] == "+49 1"


@pytest.mark.parametrize("on", ["write", "read"])
async def test_a_lost_answer_doubles_nobody(account: Account, on: str) -> None:
    await fill(account, 10)
    before = await account.held()
    await account.misbehave(accept_then_drop={"times": 3, "on": on})
    settings = msgspec.structs.replace(account.world.settings, reconcile_grace=0.2, delivery_backoff_base=0.1)
    async with working(settings):
        imported = await push(account, [person(n, phone="+49 1") for n in range(70)])
        assert (await account.world.rows("SELECT state FROM jobs WHERE job_id = $1", imported))[0][
            "state"
        ] == "completed"
        assert len(await account.held()) == 70
        await undo(account, imported)
    after = await account.held()
    assert {there: after[there] for there in before} == before, "what was there before is not as it was"


async def test_an_undo_whose_answer_is_lost_is_done_once(account: Account) -> None:
    await fill(account, 5)
    before = await account.held()
    settings = msgspec.structs.replace(account.world.settings, reconcile_grace=0.2, delivery_backoff_base=0.1)
    async with working(settings):
        imported = await push(account, [person(n, phone="+49 1") for n in range(5)])
        await account.misbehave(accept_then_drop={"times": 1, "on": "write"})
        await undo(account, imported)
    after = await account.held()
    if account.kind == "http":
        after = {there: {k: v for k, v in p.items() if v != {}} for there, p in after.items()}
    assert after == before


async def test_a_record_that_was_found_and_never_written_is_left_as_it_is(account: Account) -> None:
    """The CRM refused it; somebody edits it before the undo."""
    names = account.names
    there = await account.have("c00001@example.com", **{names["last"]: "Theirs"})
    async with working(account.world.settings):
        await account.misbehave(reject={"emails": ["c00001@example.com"], "keys": ["c00001"]})
        imported = await push(account, [person(1, phone="+49 1")])
        await account.misbehave()
        await account.have("c00001@example.com", **{names["last"]: "Edited"})
        await undo(account, imported)
    assert (await account.held())[there][names["last"]] == "Edited"
    assert await account.world.rows("SELECT FROM record_syncs WHERE before_image IS NOT NULL") == []


async def test_a_field_that_is_named_before_the_first_write_succeeds_is_kept_as_well(account: Account) -> None:
    """The record was found and refused; the next import names more of it, and is the first to arrive."""
    names = account.names
    theirs = {names["last"]: "Theirs", names["phone"]: "+1 999", names["company"]: "Theirs"}
    await account.have("c00001@example.com", **theirs)
    before = await account.held()
    async with working(account.world.settings):
        await account.misbehave(reject={"emails": ["c00001@example.com"], "keys": ["c00001"]})
        first = await push(account, [person(1)])
        kept = len(await account.world.rows("SELECT FROM record_syncs WHERE before_image IS NOT NULL"))
        assert kept == (0 if account.kind == "hubspot" else 1)  # HubSpot is asked once it says that it has the address
        await account.misbehave()
        second = await push(account, [person(1, phone="+49 1", company="X")])
        assert {p[names["phone"]] for p in (await account.held()).values()} == {"+49 1"}
        await undo(account, second)
        found = next(iter((await account.held()).values()))
        assert (found[names["phone"]], found[names["company"]]) == ("+1 999", "Theirs")
        await undo(account, first)
    assert await account.held() == before


async def test_an_item_that_deletes_an_adopted_record_removes_it(account: Account) -> None:
    await account.have("c00001@example.com", **{account.names["last"]: "Theirs"})
    async with working(account.world.settings):
        await push(account, [person(1)])
        await push(account, [{"id": "c00001", "deleted": True}])
    assert await account.held() == {}
    assert await account.world.rows("SELECT FROM record_syncs WHERE before_image IS NOT NULL") == []


@pytest.mark.parametrize("kind", ["salesforce", "http"])
async def test_several_matches_are_a_dead_letter_that_names_them(world: World, kind: str) -> None:
    async with AsyncExitStack() as stack:
        crm = await open_crm(stack, world, kind, kind, options={"match_on": "email"})
        account = Account(crm, kind, OBJECTS[kind])
        names = account.names
        twins = [
            await account.have(key, by=names["phone"], **{names["email"]: "c00001@example.com", names["last"]: key})
            for key in ("1", "2")
        ]
        async with working(world.settings):
            job_id = (await world.push([person(1), person(2)])).job_id
            assert await world.finished(job_id) == "completed_with_failures"
        (letter,) = await world.rows("SELECT record_id, state, error_detail FROM dead_letters")
        assert (letter["record_id"], letter["state"]) == ("c00001", "failed")
        assert all(twin in letter["error_detail"] for twin in twins)
        assert len(await account.held()) == 3


@pytest.mark.parametrize(
    ("kind", "of", "domain"),
    [("hubspot", "companies", "domain"), ("salesforce", "Account", "Website"), ("http", "companies", "domain")],
)
async def test_companies_are_found_by_their_domain(world: World, kind: str, of: str, domain: str) -> None:
    async with AsyncExitStack() as stack:
        options = {"match_on": {"contacts": "email", "companies": "domain"}}
        account = Account(await open_crm(stack, world, kind, kind, options=options), kind, of)
        name = "Name" if kind == "salesforce" else "name"
        there = await account.have("acme.example", by=domain, **{name: "Acme before"})
        before = await account.held()
        async with working(world.settings):
            job_id = (await world.push([COMPANY], COMPANIES)).job_id
            assert await world.finished(job_id) == "completed"
            assert list(await account.held()) == [there]
            assert (await account.held())[there][name] == "ACME"
            await undo(account, job_id)
        assert await account.held() == before


async def test_a_declared_type_names_its_own_field(world: World) -> None:
    async with AsyncExitStack() as stack:
        account = Account(await open_crm(stack, world, "http", "http"), "http", "products")
        schema = {"properties": {"sku": {"type": "string"}, "title": {"type": "string"}}}
        more = {"destinations": {"http-crm": {"match_on": "sku"}}}
        resource, catalog = await declare(world, "products", singular="product", schema=schema, **more)
        there = await account.have("SKU-1", by="sku", title="Theirs")
        before = await account.held()
        async with working(world.settings):
            items = [{"id": "p1", "sku": "SKU-1", "title": "Ours"}, {"id": "p2", "sku": "SKU-2", "title": "New"}]
            job_id = (await world.push(items, resource, catalog)).job_id
            assert await world.finished(job_id) == "completed"
            held = await account.held()
            assert len(held) == 2
            assert (held[there]["id"], held[there]["title"]) == ("p1", "Ours")
            await undo(account, job_id)
        assert await account.held() == before


async def test_two_deliveries_cannot_adopt_one_record(world: World) -> None:
    """Two of ours with one e-mail, sent at the same time: one adopts it, the other becomes a record of its own."""
    async with AsyncExitStack() as stack:
        crm = await open_crm(stack, world, "salesforce", "salesforce", options={"match_on": "email"})
        account = Account(crm, "salesforce", "Contact")
        there = await account.have("same@example.com", LastName="Theirs")
        await account.misbehave(latency={"latency": 0.3})
        async with working(world.settings):
            jobs = [
                (await world.push([{"id": key, "email": "same@example.com", "last_name": key}])).job_id
                for key in ("a", "b")
            ]
            assert {await world.finished(job_id) for job_id in jobs} == {"completed"}
        held = await account.held()
        assert len(held) == 2
        assert {p["Tranche_Id__c"] for p in held.values()} == {"a", "b"}
        assert held[there]["LastName"] == held[there]["Tranche_Id__c"]
