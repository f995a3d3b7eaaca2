"""The stand-in on the wire, as Salesforce's REST guide has it; nothing of the adapter is used here."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.conftest import Sandbox

BASE = "/services/data/v60.0"
UPSERT = f"{BASE}/composite/sobjects/Contact/Tranche_Id__c"
CREATE = f"{BASE}/composite/sobjects"


@pytest.fixture
def kind() -> str:
    return "salesforce"


async def call(
    sandbox: Sandbox, method: str, path: str, body: object = None, token: str | None = "t", **query: str
) -> tuple[int, Any, dict[str, str]]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with sandbox.session.request(
        method, sandbox.url + path, json=body, headers=headers, params=query
    ) as response:
        return response.status, await response.json(), dict(response.headers)


def record(key: str | None, **values: Any) -> dict[str, Any]:
    named = {} if key is None else {"Tranche_Id__c": key}
    return {"attributes": {"type": "Contact"}, **named, "LastName": "L", **values}


async def upsert(sandbox: Sandbox, *records: object, **given: Any) -> tuple[int, Any]:
    body = {"allOrNone": False, "records": list(records)}
    status, answer, _ = await call(sandbox, "PATCH", UPSERT, body, **given)
    return status, answer


async def create(sandbox: Sandbox, *records: object, all_or_none: bool = False, **given: Any) -> tuple[int, Any]:
    body = {"allOrNone": all_or_none, "records": list(records)}
    status, answer, _ = await call(sandbox, "POST", CREATE, body, **given)
    return status, answer


async def test_upsert_answers_in_order_and_says_what_was_created(sandbox: Sandbox) -> None:
    status, body = await upsert(sandbox, record("a", Score__c=0, VIP__c=False, Note__c=None), record("b"))
    assert status == 200
    assert [(r["success"], r["created"], r["errors"]) for r in body] == [(True, True, [])] * 2
    assert all(len(r["id"]) == 18 and r["id"].startswith("003") for r in body)

    _, again = await upsert(sandbox, record("b", FirstName="B"), record("a", Score__c=None))
    assert [(r["id"], r["created"]) for r in again] == [(body[1]["id"], False), (body[0]["id"], False)]
    held = {c["key"]: c["properties"] for c in (await sandbox.get("contacts"))["contacts"]}
    assert held["a"] == {"Tranche_Id__c": "a", "LastName": "L", "VIP__c": False}


@pytest.mark.parametrize(
    ("bad", "code", "fields"),
    [
        (record("x", LastName=None), "REQUIRED_FIELD_MISSING", ["LastName"]),
        (record("x", LastName=" "), "REQUIRED_FIELD_MISSING", ["LastName"]),
        (record(None), "MISSING_ARGUMENT", ["Tranche_Id__c"]),
        (record(""), "MISSING_ARGUMENT", ["Tranche_Id__c"]),
        (record("x" * 256), "STRING_TOO_LONG", ["Tranche_Id__c"]),
        (record("x", Email="nonsense"), "INVALID_EMAIL_ADDRESS", ["Email"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_bad_record_fails_alone(sandbox: Sandbox, bad: dict[str, Any], code: str, fields: list[str]) -> None:
    status, body = await upsert(sandbox, record("good"), bad)

    assert status == 200
    assert [r["success"] for r in body] == [True, False]
    [error] = body[1]["errors"]
    assert (error["statusCode"], error["fields"]) == (code, fields)
    assert [e["key"] for e in await sandbox.effects()] == ["good"]


async def test_a_key_that_stands_twice_fails_both(sandbox: Sandbox) -> None:
    _, body = await upsert(sandbox, record("a"), record("b"), record("a"))

    assert [r["success"] for r in body] == [False, True, False]
    assert body[0]["errors"][0]["statusCode"] == "DUPLICATE_VALUE"
    assert "Duplicate external id specified: a" in body[0]["errors"][0]["message"]


@pytest.mark.parametrize(
    ("records", "status", "code"),
    [
        ([record(f"k{n}") for n in range(201)], 400, "EXCEEDED_ID_LIMIT"),
        ([], 400, "EXCEEDED_ID_LIMIT"),
        ([{"Tranche_Id__c": "a", "LastName": "L"}], 400, "INVALID_TYPE"),
        ([record("a", Nonsense=1)], 400, "INVALID_FIELD"),
        ([record("a", Nested__c={"a": 1})], 400, "JSON_PARSER_ERROR"),
        (["a"], 400, "JSON_PARSER_ERROR"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_wrong_request_is_refused_whole_with_a_list_of_errors(
    sandbox: Sandbox, records: list[object], status: int, code: str
) -> None:
    answered, body = await upsert(sandbox, *records)

    assert (answered, [e["errorCode"] for e in body]) == (status, [code])
    assert body[0]["message"]
    assert await sandbox.effects() == []


async def test_a_field_can_be_missing_for_a_while(sandbox: Sandbox) -> None:
    await sandbox.faults(missing_fields={"names": ["Plan__c"]})
    status, body = await upsert(sandbox, record("a", Plan__c=1))
    assert (status, body[0]["message"]) == (400, "No such column 'Plan__c' on sobject of type Contact")

    await sandbox.faults(missing_fields={"names": ["Tranche_Id__c"]})
    status, body = await upsert(sandbox, record("a"))
    assert (status, body[0]["errorCode"]) == (404, "NOT_FOUND")


async def test_a_field_that_is_not_declared_refuses_the_request(sandbox: Sandbox) -> None:
    await sandbox.session.put(f"{sandbox.url}/__sandbox__/schema", json={"declared": ["Tranche_Id__c"]})
    status, body = await upsert(sandbox, record("a"), record("b", Plan__c=1))
    assert (status, body[0]["errorCode"]) == (400, "INVALID_FIELD")
    assert body[0]["message"] == "No such column 'Plan__c' on sobject of type Contact"
    assert await sandbox.effects() == []

    await sandbox.session.put(f"{sandbox.url}/__sandbox__/schema", json={"declared": []})
    status, body = await upsert(sandbox, record("a"))
    assert (status, body[0]["errorCode"]) == (404, "NOT_FOUND")


async def test_all_or_none_writes_nothing_where_one_is_refused(sandbox: Sandbox) -> None:
    body = {"allOrNone": True, "records": [record("a"), record("b", LastName=None)]}
    status, results, _ = await call(sandbox, "PATCH", UPSERT, body)
    assert status == 200
    assert [r["success"] for r in results] == [False, False]
    assert [r["errors"][0]["statusCode"] for r in results] == [
        "ALL_OR_NONE_OPERATION_ROLLED_BACK",
        "REQUIRED_FIELD_MISSING",
    ]
    assert await sandbox.effects() == []

    _, made = await upsert(sandbox, record("a"))
    ids = f"{made[0]['id']},003000000000099AAA"
    _, results, _ = await call(sandbox, "DELETE", f"{BASE}/composite/sobjects", ids=ids, allOrNone="true")
    assert [r["errors"][0]["statusCode"] for r in results] == ["ALL_OR_NONE_OPERATION_ROLLED_BACK", "ENTITY_IS_DELETED"]
    assert (await sandbox.get("contacts"))["total"] == 1


async def test_creation_answers_in_order_and_updates_nothing(sandbox: Sandbox) -> None:
    _, [before] = await upsert(sandbox, record("b", LastName="Typed"))
    status, body = await create(sandbox, record("a", Score__c=0), record("b", LastName="New"), record(None))
    assert status == 200
    assert [(r["success"], r["errors"]) for r in (body[0], body[2])] == [(True, [])] * 2
    assert all(set(r) == {"id", "success", "errors"} and len(r["id"]) == 18 for r in (body[0], body[2]))
    assert body[1]["success"] is False
    assert body[1]["errors"] == [
        {
            "statusCode": "DUPLICATE_VALUE",
            "message": f"duplicate value found: Tranche_Id__c duplicates value on record with id: {before['id']}",
            "fields": [],
        }
    ]
    held = {c["key"]: c["properties"] for c in (await sandbox.get("contacts"))["contacts"]}
    assert held["a"] == {"Tranche_Id__c": "a", "LastName": "L", "Score__c": 0}
    assert held["b"]["LastName"] == "Typed"
    assert [(e["key"], e["created"]) for e in await sandbox.effects()] == [("b", True), ("a", True), ("", True)]

    _, [again] = await upsert(sandbox, record("a", FirstName="A"))
    assert (again["id"], again["created"]) == (body[0]["id"], False)


async def test_of_two_creations_with_one_key_the_first_is_made(sandbox: Sandbox) -> None:
    _, body = await create(sandbox, record("a"), record("a"))

    assert [r["success"] for r in body] == [True, False]
    assert body[1]["errors"][0]["message"].endswith(f"record with id: {body[0]['id']}")
    assert len(await sandbox.effects()) == 1


async def test_a_field_that_upserts_are_keyed_by_is_unique_for_creations(sandbox: Sandbox) -> None:
    keyed = {"attributes": {"type": "Contact"}, "Key__c": "a", "LastName": "L"}
    body = {"records": [keyed]}
    _, [made], _ = await call(sandbox, "PATCH", f"{BASE}/composite/sobjects/Contact/Key__c", body)
    _, [refused] = await create(sandbox, keyed)

    words = f"duplicate value found: Key__c duplicates value on record with id: {made['id']}"
    assert refused["errors"][0]["message"] == words
    _, results = await create(sandbox, record("p", Plan__c="gold"), record("q", Plan__c="gold"))
    assert [r["success"] for r in results] == [True, True]


@pytest.mark.parametrize(
    ("bad", "code", "fields"),
    [
        (record("x", LastName=None), "REQUIRED_FIELD_MISSING", ["LastName"]),
        (record("x", LastName=" "), "REQUIRED_FIELD_MISSING", ["LastName"]),
        ({"attributes": {"type": "Contact"}, "Tranche_Id__c": "x"}, "REQUIRED_FIELD_MISSING", ["LastName"]),
        (record("x" * 256), "STRING_TOO_LONG", ["Tranche_Id__c"]),
        (record("x", Email="nonsense"), "INVALID_EMAIL_ADDRESS", ["Email"]),
        (record("x", Id="003000000000001AAA"), "INVALID_FIELD_FOR_INSERT_UPDATE", ["Id"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_bad_creation_fails_alone_or_with_all(
    sandbox: Sandbox, bad: dict[str, Any], code: str, fields: list[str]
) -> None:
    status, body = await create(sandbox, record("a"), bad, all_or_none=True)
    assert (status, [r["success"] for r in body]) == (200, [False, False])
    assert [r["errors"][0]["statusCode"] for r in body] == ["ALL_OR_NONE_OPERATION_ROLLED_BACK", code]
    assert (await sandbox.get("contacts"))["total"] == 0
    assert await sandbox.effects() == []

    status, body = await create(sandbox, record("a"), bad)
    assert (status, [r["success"] for r in body]) == (200, [True, False])
    [error] = body[1]["errors"]
    assert (error["statusCode"], error["fields"]) == (code, fields)
    assert [e["key"] for e in await sandbox.effects()] == ["a"]


@pytest.mark.parametrize(
    ("records", "code"),
    [
        ([record(f"k{n}") for n in range(201)], "EXCEEDED_ID_LIMIT"),
        ([], "EXCEEDED_ID_LIMIT"),
        ([{"Tranche_Id__c": "a", "LastName": "L"}], "INVALID_TYPE"),
        ([{**record("a"), "attributes": {"type": "Lead"}}], "INVALID_TYPE"),
        ([record("a"), record("b", Nonsense=1)], "INVALID_FIELD"),
        ([record("a", Nested__c={"a": 1})], "JSON_PARSER_ERROR"),
        ([{**record(None), "Tranche_Id__c": 5}], "JSON_PARSER_ERROR"),
        (["a"], "JSON_PARSER_ERROR"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_wrong_creation_is_refused_whole(sandbox: Sandbox, records: list[object], code: str) -> None:
    status, body = await create(sandbox, *records)

    assert (status, [e["errorCode"] for e in body]) == (400, [code])
    assert await sandbox.effects() == []


async def test_creations_are_struck_as_upserts_are(sandbox: Sandbox) -> None:
    await sandbox.faults(missing_fields={"names": ["Tranche_Id__c"]})
    status, body = await create(sandbox, record("a"))
    assert (status, body[0]["errorCode"]) == (400, "INVALID_FIELD")
    assert body[0]["message"] == "No such column 'Tranche_Id__c' on sobject of type Contact"

    await sandbox.faults(reject={"keys": ["b"], "message": "No such country"}, omit={"keys": ["c"]})
    _, body = await create(sandbox, record("a"), record("b"), record("c"))
    assert [r["success"] for r in body] == [True, False]
    assert body[1]["errors"][0]["message"] == "No such country"

    await sandbox.faults(lock={"times": 1})
    _, body = await create(sandbox, record("d"))
    assert body[0]["errors"][0]["statusCode"] == "UNABLE_TO_LOCK_ROW"

    await sandbox.faults(reject_batch={"keys": ["d"], "message": "no"})
    status, _ = await create(sandbox, record("d"), record("e"))
    assert status == 400
    await sandbox.faults()
    status, body = await create(sandbox, record("d"), token="bad-token")
    assert (status, body[0]["errorCode"]) == (401, "INVALID_SESSION_ID")
    assert [e["key"] for e in await sandbox.effects()] == ["a", "c"]


async def test_a_query_works_without_the_slash(sandbox: Sandbox) -> None:
    await upsert(sandbox, record("a"))
    query = "SELECT Id FROM Contact WHERE Tranche_Id__c IN ('a')"
    status, body, _ = await call(sandbox, "GET", f"{BASE}/query", q=query)
    assert (status, body["totalSize"]) == (200, 1)


async def test_soql_finds_by_key_with_quotes_in_it(sandbox: Sandbox) -> None:
    await upsert(sandbox, record("it's"), record("b\\c"), record("z"))
    query = "SELECT Id,Tranche_Id__c,Email FROM Contact WHERE Tranche_Id__c IN ('it\\'s','b\\\\c','none')"
    status, body, headers = await call(sandbox, "GET", f"{BASE}/query/", q=query)

    assert (status, body["totalSize"], body["done"]) == (200, 2, True)
    assert [r["Tranche_Id__c"] for r in body["records"]] == ["it's", "b\\c"]
    assert body["records"][0]["Email"] is None
    assert body["records"][0]["attributes"]["type"] == "Contact"
    assert headers["Sforce-Limit-Info"].startswith("api-usage=")


async def test_a_query_it_cannot_read_is_refused(sandbox: Sandbox) -> None:
    status, body, _ = await call(sandbox, "GET", f"{BASE}/query/", q="SELECT * FROM Contact")
    assert (status, body[0]["errorCode"]) == (400, "MALFORMED_QUERY")


async def test_deletion_tells_each_id_its_fate(sandbox: Sandbox) -> None:
    _, made = await upsert(sandbox, record("a"), record("b"))
    ids = ",".join([made[0]["id"], "003000000000099AAA", "short"])
    status, body, _ = await call(sandbox, "DELETE", f"{BASE}/composite/sobjects", ids=ids, allOrNone="false")

    assert status == 200
    assert [r["success"] for r in body] == [True, False, False]
    assert [r["errors"][0]["statusCode"] for r in body[1:]] == ["ENTITY_IS_DELETED", "MALFORMED_ID"]
    assert [c["key"] for c in (await sandbox.get("contacts"))["contacts"]] == ["b"]
    assert [e["key"] for e in await sandbox.effects() if e["deleted"]] == ["a"]


@pytest.mark.parametrize("token", [None, "", "bad-token"])
async def test_without_a_good_token_nothing_is_done(sandbox: Sandbox, token: str | None) -> None:
    status, body = await upsert(sandbox, record("a"), token=token)

    assert (status, body[0]["errorCode"]) == (401, "INVALID_SESSION_ID")
    assert await sandbox.effects() == []


@pytest.mark.parametrize(("policy", "words"), [("DAILY", "TotalRequests"), ("SECONDLY", "ConcurrentRequests")])
async def test_a_limit_is_a_403_that_names_itself(sandbox: Sandbox, policy: str, words: str) -> None:
    await sandbox.faults(rate_limit={"policyName": policy})
    status, body = await upsert(sandbox, record("a"))

    assert (status, body[0]["errorCode"]) == (403, "REQUEST_LIMIT_EXCEEDED")
    assert words in body[0]["message"]


async def test_an_unknown_route_is_404_in_salesforces_words(sandbox: Sandbox) -> None:
    for path in ("/services/data/v60.0/sobjects/Lead", "/services/data/latest/query/"):
        status, body, _ = await call(sandbox, "GET", path)
        assert (status, body[0]["errorCode"]) == (404, "NOT_FOUND")
