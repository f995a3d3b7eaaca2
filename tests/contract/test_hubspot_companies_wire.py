"""Companies at the stand-in, as HubSpot's reference has them; nothing of the adapter is used here."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.contract.conftest import Sandbox
from tests.contract.test_hubspot_wire import declare, item, post

COMPANIES = "/crm/v3/objects/companies/batch"
CONTACTS = "/crm/v3/objects/contacts/batch"


@pytest.fixture
def kind() -> str:
    return "hubspot"


async def described(sandbox: Sandbox, of: str, name: str) -> tuple[int, dict[str, Any]]:
    url = f"{sandbox.url}/crm/v3/properties/{of}/{name}"
    async with sandbox.session.get(url, headers={"Authorization": "Bearer t"}) as response:
        return response.status, await response.json()


async def test_a_company_is_upserted_read_updated_and_archived(sandbox: Sandbox) -> None:
    sent = {"name": "Analytical", "industry": "BANKING", "numberofemployees": "12", "annualrevenue": "-1000.50"}
    status, body, _ = await post(sandbox, f"{COMPANIES}/upsert", {"inputs": [item("a", **sent)]})
    [made] = body["results"]
    assert (status, made["new"]) == (200, True)
    assert {"createdate", "hs_lastmodifieddate", "hs_object_id"} <= made["properties"].keys()
    assert "lastmodifieddate" not in made["properties"]

    changes = {"id": made["id"], "properties": {"industry": "", "numberofemployees": "0"}}
    status, body, _ = await post(sandbox, f"{COMPANIES}/update", {"inputs": [changes]})
    assert (status, [r["id"] for r in body["results"]]) == (200, [made["id"]])
    asked = {"inputs": [{"id": "a"}, {"id": "b"}], "idProperty": "tranche_id", "propertiesWithHistory": []}
    status, body, _ = await post(sandbox, f"{COMPANIES}/read", asked | {"properties": ["industry", "annualrevenue"]})
    [read] = body["results"]
    assert (status, read["properties"]["industry"], read["properties"]["annualrevenue"]) == (207, None, "-1000.50")
    assert body["errors"][0]["message"].startswith("Could not get some COMPANY objects")

    async with sandbox.session.post(
        f"{sandbox.url}{COMPANIES}/archive",
        json={"inputs": [{"id": made["id"]}]},
        headers={"Authorization": "Bearer t"},
    ) as response:
        assert response.status == 204
    assert (await sandbox.get("contacts?object=companies"))["total"] == 0
    assert [(e["object"], e["key"], e["deleted"]) for e in await sandbox.effects()] == [
        ("companies", "a", False),
        ("companies", "a", False),
        ("companies", "a", True),
    ]


@pytest.mark.parametrize(
    ("name", "value", "words", "code"),
    [
        ("numberofemployees", "many", "many was not a valid number.", "INVALID_INTEGER"),
        ("annualrevenue", "1e9", "1e9 was not a valid number.", "INVALID_INTEGER"),
        ("annualrevenue", "1 000", "1 000 was not a valid number.", "INVALID_INTEGER"),
        ("industry", "Banking", "Banking was not one of the allowed options: [ACCOUNTING, ", "INVALID_OPTION"),
        ("industry", "BANKING ", '"BANKING " includes leading or trailing whitespace.', "LEADING_TRAILING_WHITESPACE"),
    ],
)
@pytest.mark.parametrize("path", ["upsert", "create"])
async def test_a_value_that_its_property_does_not_take_is_an_error_of_its_input(
    sandbox: Sandbox, path: str, name: str, value: str, words: str, code: str
) -> None:
    inputs = [item("good", "t-0", name="G"), item("bad", "t-1", name="B", **{name: value})]
    if path == "create":
        inputs = [{"properties": i["properties"], "objectWriteTraceId": i["objectWriteTraceId"]} for i in inputs]
    status, body, _ = await post(sandbox, f"{COMPANIES}/{path}", {"inputs": inputs})
    assert (status, [r["properties"]["name"] for r in body["results"]]) == (207, ["G"])
    [error] = body["errors"]
    assert (error["category"], error["context"]) == ("VALIDATION_ERROR", {"objectWriteTraceId": ["t-1"]})
    head, _, embedded = error["message"].partition(": ")
    [found] = json.loads(embedded)
    assert (head, found["isValid"], found["error"]) == ("Property values were not valid", False, code)
    assert (found["name"], found["propertyValue"]) == (name, value)
    assert found["message"].startswith(words)

    # Without trace ids it refuses all of the call.
    untraced = [{k: v for k, v in i.items() if k != "objectWriteTraceId"} for i in inputs]
    status, body, _ = await post(sandbox, f"{COMPANIES}/{path}", {"inputs": untraced})
    assert (status, body["category"]) == (400, "VALIDATION_ERROR")
    assert words in json.loads(body["message"].partition(": ")[2])[0]["message"]
    assert len(await sandbox.effects()) == 1


async def test_contacts_may_have_such_values(sandbox: Sandbox) -> None:
    """A contact's industry and revenue are text."""
    status, _, _ = await post(sandbox, f"{CONTACTS}/upsert", {"inputs": [item("a", industry="x", annualrevenue="y")]})
    assert status == 200


@pytest.mark.parametrize("name", ["domain", "name", "hs_object_id"])
async def test_nothing_of_hubspots_own_identifies_a_company(sandbox: Sandbox, name: str) -> None:
    inputs = [item("x.org") | {"idProperty": name}]
    status, body, _ = await post(sandbox, f"{COMPANIES}/upsert", {"inputs": inputs})
    assert (status, body["message"]) == (400, f"Unable to perform update/upsert by non-unique 0-2 property {name}")


async def test_companies_with_one_domain_and_no_address_are_well(sandbox: Sandbox) -> None:
    await declare(sandbox, "tranche_id", "companies.email")
    inputs = [item(key, domain="x.org", email="None@Here") for key in "ab"]
    status, body, _ = await post(sandbox, f"{COMPANIES}/upsert", {"inputs": inputs})
    assert (status, len(body["results"])) == (200, 2)
    held = (await sandbox.get("contacts?object=companies"))["contacts"]
    assert [company["properties"]["email"] for company in held] == ["None@Here"] * 2


async def test_an_id_and_a_key_belong_to_one_object(sandbox: Sandbox) -> None:
    ids = []
    for path in (CONTACTS, COMPANIES):
        _, body, _ = await post(sandbox, f"{path}/upsert", {"inputs": [item("a", phone="1")]})
        ids += [result["id"] for result in body["results"]]
    assert ids[0] == ids[1], "as it may be in HubSpot"
    headers = {"Authorization": "Bearer t"}
    async with sandbox.session.post(
        f"{sandbox.url}{COMPANIES}/archive", json={"inputs": [{"id": ids[0]}]}, headers=headers
    ) as response:
        assert response.status == 204
    assert [(c["object"], c["key"]) for c in (await sandbox.get("contacts"))["contacts"]] == [("contacts", "a")]
    changes = {"id": ids[0], "properties": {"name": "A"}, "objectWriteTraceId": "0"}
    status, body, _ = await post(sandbox, f"{COMPANIES}/update", {"inputs": [changes]})
    assert (status, body["errors"][0]["category"]) == (207, "OBJECT_NOT_FOUND")


async def test_each_object_has_properties_of_its_own(sandbox: Sandbox) -> None:
    await declare(sandbox, "tranche_id", "companies.tier")
    assert "domain" in (await sandbox.get("schema?object=companies"))["own"]
    for of, name, there in (
        ("companies", "tier", True),
        ("contacts", "tier", False),
        ("companies", "firstname", False),
        ("contacts", "domain", False),
        ("contacts", "companies.tier", False),
    ):
        status, body, _ = await post(
            sandbox, f"/crm/v3/objects/{of}/batch/upsert", {"inputs": [item("a", **{name: ""})]}
        )
        assert (status, "PROPERTY_DOESNT_EXIST" in str(body)) == ((200, False) if there else (400, True))
        assert (await described(sandbox, of, name))[0] == (200 if there else 404)


async def test_a_property_of_companies_is_described(sandbox: Sandbox) -> None:
    await declare(sandbox, "tranche_id")
    names = ("type", "hasUniqueValue", "groupName")
    for name, kind, unique in (
        ("tranche_id", "string", True),
        ("domain", "string", False),
        ("numberofemployees", "number", False),
        ("industry", "enumeration", False),
    ):
        status, body = await described(sandbox, "companies", name)
        assert (status, *(body[n] for n in names)) == (200, kind, unique, "companyinformation")
    assert "COMPUTER_SOFTWARE" in {option["value"] for option in body["options"]}
