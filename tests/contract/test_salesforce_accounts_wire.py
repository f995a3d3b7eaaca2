"""Accounts at the stand-in, as Salesforce's object reference has them; nothing of the adapter is used here."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.conftest import Sandbox
from tests.contract.test_salesforce_wire import BASE, CREATE, call, record

UPSERT = f"{BASE}/composite/sobjects/Account/Tranche_Id__c"


@pytest.fixture
def kind() -> str:
    return "salesforce"


def account(key: str, **values: Any) -> dict[str, Any]:
    return {"attributes": {"type": "Account"}, "Tranche_Id__c": key, "Name": "N", **values}


async def send(sandbox: Sandbox, path: str, *records: object, all_or_none: bool = False) -> tuple[int, Any]:
    method = "POST" if path == CREATE else "PATCH"
    body = {"allOrNone": all_or_none, "records": list(records)}
    status, answer, _ = await call(sandbox, method, path, body)
    return status, answer


async def test_an_account_is_upserted_found_and_deleted(sandbox: Sandbox) -> None:
    largest = account("a", NumberOfEmployees=99_999_999, AnnualRevenue=-1.5, Name="x" * 255, Phone=None)
    _, [made, _] = await send(sandbox, UPSERT, largest, account("b"))
    assert (made["created"], made["id"][:3], len(made["id"])) == (True, "001", 18)

    query = "SELECT Id,NumberOfEmployees FROM Account WHERE Tranche_Id__c IN ('a','c')"
    status, body, _ = await call(sandbox, "GET", f"{BASE}/query", q=query)
    assert (status, body["totalSize"], body["records"][0]["NumberOfEmployees"]) == (200, 1, 99_999_999)
    assert body["records"][0]["attributes"] == {"type": "Account", "url": f"{BASE}/sobjects/Account/{made['id']}"}
    assert (await call(sandbox, "GET", f"{BASE}/query", q=query.replace("Account", "Contact")))[0] == 400

    _, [gone], _ = await call(sandbox, "DELETE", CREATE, ids=made["id"])
    assert gone["success"]
    assert [c["key"] for c in (await sandbox.get("contacts?object=Account"))["contacts"]] == ["b"]
    assert [(e["object"], e["key"], e["deleted"]) for e in await sandbox.effects()] == [
        ("Account", "a", False),
        ("Account", "b", False),
        ("Account", "a", True),
    ]


@pytest.mark.parametrize(
    ("values", "code", "words"),
    [
        ({"Name": None}, "REQUIRED_FIELD_MISSING", "Required fields are missing: [Name]"),
        ({"Name": "x" * 256}, "STRING_TOO_LONG", "(max length=255)"),
        (
            {"BillingCity": "x" * 41},
            "STRING_TOO_LONG",
            f"Billing City: data value too large: {'x' * 41} (max length=40)",
        ),
        ({"BillingPostalCode": "x" * 21}, "STRING_TOO_LONG", "(max length=20)"),
        (
            {"NumberOfEmployees": 100_000_000},
            "NUMBER_OUTSIDE_VALID_RANGE",
            "Employees: value outside of valid range on numeric field: 100000000",
        ),
        ({"NumberOfEmployees": -1}, "NUMBER_OUTSIDE_VALID_RANGE", "-1"),
        ({"AnnualRevenue": 1e18}, "NUMBER_OUTSIDE_VALID_RANGE", "Annual Revenue: "),
    ],
    ids=str,
)
@pytest.mark.parametrize("path", [UPSERT, CREATE], ids=["upsert", "create"])
async def test_a_bad_account_fails_alone(
    sandbox: Sandbox, path: str, values: dict[str, Any], code: str, words: str
) -> None:
    status, [good, bad] = await send(sandbox, path, account("good"), account("bad", **values))
    assert (status, good["success"], bad["success"]) == (200, True, False)
    [error] = bad["errors"]
    assert (error["statusCode"], error["fields"]) == (code, list(values))
    assert words in error["message"]
    assert [e["key"] for e in await sandbox.effects()] == ["good"]


@pytest.mark.parametrize(
    ("values", "code", "words"),
    [
        ({"NumberOfEmployees": "40"}, "JSON_PARSER_ERROR", "instance of int from VALUE_STRING value 40 or"),
        ({"NumberOfEmployees": 1.5}, "JSON_PARSER_ERROR", "instance of int from VALUE_NUMBER_FLOAT value 1.5 or"),
        ({"NumberOfEmployees": True}, "JSON_PARSER_ERROR", "instance of int from VALUE_TRUE value true or"),
        ({"AnnualRevenue": "lots"}, "JSON_PARSER_ERROR", "instance of currency from VALUE_STRING value lots or"),
        ({"Phone": 5}, "JSON_PARSER_ERROR", "instance of phone from VALUE_NUMBER_INT value 5 or"),
        ({"Email": "a@b.org"}, "INVALID_FIELD", "No such column 'Email' on sobject of type Account"),
        ({"LastName": "L"}, "INVALID_FIELD", "No such column 'LastName' on sobject of type Account"),
    ],
    ids=str,
)
async def test_what_cannot_be_read_refuses_the_request(
    sandbox: Sandbox, values: dict[str, Any], code: str, words: str
) -> None:
    for path in (UPSERT, CREATE):
        status, [error] = await send(sandbox, path, account("a"), account("b", **values))
        assert (status, error["errorCode"]) == (400, code)
        assert words in error["message"]
    assert await sandbox.effects() == []


async def test_an_upsert_takes_one_object_and_a_creation_both(sandbox: Sandbox) -> None:
    status, [error] = await send(sandbox, UPSERT, account("a"), record("b"))
    assert (status, error["errorCode"]) == (400, "INVALID_TYPE")
    assert await sandbox.effects() == []

    _, results = await send(sandbox, CREATE, account("a"), record("a"), account("a"))
    assert [r["success"] for r in results] == [True, True, False], "a key is one account's, and one contact's"
    assert [r["id"][:3] for r in results[:2]] == ["001", "003"]
    ids = ",".join(r["id"] for r in results[:2])
    _, deleted, _ = await call(sandbox, "DELETE", CREATE, ids=ids, allOrNone="true")
    assert [r["success"] for r in deleted] == [True, True]

    mixed = [each(str(n)) for n in range(6) for each in (account, record)]
    status, [error] = await send(sandbox, CREATE, *mixed)
    assert (status, "more than 10 chunks" in error["message"]) == (400, True)
    _, results = await send(sandbox, CREATE, *mixed[:10])
    assert all(r["success"] for r in results)


async def test_all_or_none_takes_back_both_objects(sandbox: Sandbox) -> None:
    _, results = await send(sandbox, CREATE, record("a"), account("a"), account("b", Name=""), all_or_none=True)
    assert [r["success"] for r in results] == [False] * 3
    for of in ("Contact", "Account"):
        assert (await sandbox.get(f"contacts?object={of}"))["total"] == 0


async def test_each_object_is_described_with_its_own_columns(sandbox: Sandbox) -> None:
    declared = {"declared": ["Tranche_Id__c", "Account.Tier__c"]}
    await sandbox.session.put(f"{sandbox.url}/__sandbox__/schema", json=declared)
    fields = {}
    for of in ("Contact", "Account"):
        status, body, _ = await call(sandbox, "GET", f"{BASE}/sobjects/{of}/describe")
        assert (status, body["name"]) == (200, of)
        fields[of] = {field["name"]: field for field in body["fields"]}
    assert {"Tranche_Id__c", "Tier__c", "Name", "NumberOfEmployees"} <= fields["Account"].keys()
    assert fields["Account"].keys().isdisjoint({"LastName", "Email"})
    assert {"Tier__c", "Name"}.isdisjoint(fields["Contact"])
    assert fields["Account"]["NumberOfEmployees"]["type"] == "int"
    assert fields["Account"]["BillingCity"]["length"] == 40
    status, [error] = await send(sandbox, CREATE, record("a", Tier__c="x"))
    assert (status, error["message"]) == (400, "No such column 'Tier__c' on sobject of type Contact")
    assert (await send(sandbox, CREATE, account("a", Tier__c="x")))[1][0]["success"]
    assert (await call(sandbox, "GET", f"{BASE}/sobjects/Lead/describe"))[0] == 404
