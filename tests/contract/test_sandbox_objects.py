"""Records of other objects than contacts, at a service of one's own and on the control routes of every stand-in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from app.sandbox import open_sandbox
from tests.contract.conftest import WITH_STAND_IN, Sandbox

OTHER = {"hubspot": "companies", "salesforce": "Account", "http": "products"}
CONTACT = {"hubspot": "contacts", "salesforce": "Contact", "http": "contacts"}
TOKEN = {"Authorization": "Bearer t"}


@pytest.fixture(params=WITH_STAND_IN)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def post(sandbox: Sandbox, path: str, body: object, **headers: str) -> tuple[int, Any]:
    async with sandbox.session.post(sandbox.url + path, json=body, headers=TOKEN | headers) as response:
        return response.status, await response.json()


@pytest.mark.parametrize("kind", ["http"])
async def test_each_collection_is_its_own(sandbox: Sandbox) -> None:
    for name in ("contacts", "companies", "order-lines"):
        body = {name: [{"id": "a", "version": 2, "name": name}, {"id": "b"}]}
        status, answer = await post(sandbox, f"/{name}", body)
        assert (status, {r["ok"] for r in answer["results"]}) == (200, {True})
    await post(sandbox, "/companies", {"companies": [{"id": "a", "version": 1, "name": "older"}]})
    await post(sandbox, "/companies/archive", {"ids": ["b"]})

    status, answer = await post(sandbox, "/companies/read", {"ids": ["a", "b"]})
    assert (status, answer["missing"], [c["name"] for c in answer["companies"]]) == (200, ["b"], ["companies"])
    _, answer = await post(sandbox, "/order-lines/read", {"ids": ["a", "b"]})
    assert (answer["missing"], len(answer["order-lines"])) == ([], 2)
    assert {(e["object"], e["key"]) for e in await sandbox.effects() if e["deleted"]} == {("companies", "b")}


@pytest.mark.parametrize("kind", ["http"])
async def test_a_collection_is_named_in_path_and_body(sandbox: Sandbox) -> None:
    status, answer = await post(sandbox, "/products", {"contacts": [{"id": "a"}]})
    assert (status, answer["error"]["code"]) == (400, "malformed")
    assert "products" in answer["error"]["message"]
    async with sandbox.session.get(f"{sandbox.url}/products", headers=TOKEN) as response:
        assert response.status == 405


@pytest.mark.parametrize("kind", ["http"])
async def test_addresses_are_checked_in_contacts_alone(sandbox: Sandbox) -> None:
    for name, ok in (("contacts", False), ("companies", True)):
        _, answer = await post(sandbox, f"/{name}", {name: [{"id": "a", "email": "nonsense"}]})
        assert [r["ok"] for r in answer["results"]] == [ok]


@pytest.mark.parametrize("kind", ["http"])
async def test_a_key_that_was_used_for_another_collection_is_refused(sandbox: Sandbox) -> None:
    key = {"Idempotency-Key": "k"}
    await post(sandbox, "/contacts/archive", {"ids": ["a"]}, **key)
    status, answer = await post(sandbox, "/products/archive", {"ids": ["a"]}, **key)
    assert (status, answer["error"]["code"]) == (422, "key_reused")


async def control(sandbox: Sandbox, method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
    async with sandbox.session.request(method, f"{sandbox.url}/__sandbox__/{path}", json=body) as response:
        return response.status, await response.json()


async def test_users_edit_and_delete_records_of_any_object(sandbox: Sandbox, kind: str) -> None:
    other = OTHER[kind]
    edit = {"key_property": "k", "key": "a", "properties": {"n": "1"}}
    _, made = await control(sandbox, "POST", f"contacts?object={other}", edit)
    assert (await sandbox.get("contacts"))["total"] == 0
    await control(sandbox, "POST", "contacts", edit)
    assert [c["object"] for c in (await sandbox.get("contacts"))["contacts"]] == [CONTACT[kind]]
    path = f"contacts/{made['contact']['id']}?object={other}"
    assert (await control(sandbox, "DELETE", path))[1] == {"deleted": True}
    assert (await control(sandbox, "DELETE", path))[1] == {"deleted": False}
    assert (await sandbox.get("contacts"))["total"] == 1
    assert [(e["object"], e["deleted"], e["by"]) for e in await sandbox.effects()] == [
        (other, False, "user"),
        (CONTACT[kind], False, "user"),
        (other, True, "user"),
    ]
    await control(sandbox, "POST", f"contacts?object={other}", edit)
    await control(sandbox, "POST", "reset?only=contacts")
    assert (await sandbox.get(f"contacts?object={other}"))["total"] == 0


@pytest.mark.parametrize("kind", ["hubspot", "salesforce"])
async def test_an_object_that_the_vendor_does_not_have_is_refused(sandbox: Sandbox) -> None:
    for method, path in (("GET", "contacts"), ("POST", "contacts"), ("DELETE", "contacts/1"), ("GET", "schema")):
        edit = {"key_property": "k", "key": "a"} if method == "POST" else None
        status, answer = await control(sandbox, method, f"{path}?object=deals", edit)
        assert (status, answer) == (400, {"error": "there is no object 'deals'"})


async def test_a_restart_knows_the_objects_again(tmp_path: Path, session: aiohttp.ClientSession, kind: str) -> None:
    """The contact's row is one of an earlier release, which named no object, and of a record that is deleted since."""
    path = tmp_path / "ledger.jsonl"
    queries = {CONTACT[kind]: "", OTHER[kind]: f"?object={OTHER[kind]}"}
    async with open_sandbox(kind, ledger_path=path) as url:
        for name, query in queries.items():
            edit = {"key_property": "k", "key": "a", "properties": {"n": name}}
            await control(Sandbox(kind, url, session), "POST", f"contacts{query}", edit)
    named = f'"object":"{CONTACT[kind]}",'
    assert path.read_text().count(named) == 1
    path.write_text(path.read_text().replace(named, ""))
    async with open_sandbox(kind, ledger_path=path) as url:
        sandbox = Sandbox(kind, url, session)
        for name, query in queries.items():
            [held] = (await sandbox.get(f"contacts{query}"))["contacts"]
            assert (held["object"], held["properties"]["n"]) == (name, name)
        [contact] = (await sandbox.get("contacts"))["contacts"]
        await sandbox.remove(contact["id"])
    async with open_sandbox(kind, ledger_path=path) as url:
        sandbox = Sandbox(kind, url, session)
        assert [(await sandbox.get(f"contacts{query}"))["total"] for query in queries.values()] == [0, 1]
