"""The stand-in on the wire, as HubSpot's reference has it; nothing of the adapter is used here."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.contract.conftest import Sandbox

UPSERT = "/crm/v3/objects/contacts/batch/upsert"
READ = "/crm/v3/objects/contacts/batch/read"


@pytest.fixture
def kind() -> str:
    return "hubspot"


async def post(
    sandbox: Sandbox, path: str, body: object, token: str | None = "t"
) -> tuple[int, dict[str, Any], dict[str, str]]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with sandbox.session.post(sandbox.url + path, json=body, headers=headers) as response:
        return response.status, await response.json(), dict(response.headers)


def item(key: str, trace: str | None = None, **properties: str) -> dict[str, Any]:
    given: dict[str, Any] = {"id": key, "idProperty": "tranche_id", "properties": properties}
    return given if trace is None else given | {"objectWriteTraceId": trace}


async def test_upsert_creates_then_updates_and_says_which(sandbox: Sandbox) -> None:
    status, body, _ = await post(sandbox, UPSERT, {"inputs": [item("a", firstname="A"), item("b", firstname="B")]})
    assert (status, body["status"]) == (200, "COMPLETE")
    assert {"results", "startedAt", "completedAt"} <= body.keys()
    assert "errors" not in body
    assert "numErrors" not in body
    assert {r["new"] for r in body["results"]} == {True}

    status, body, _ = await post(sandbox, UPSERT, {"inputs": [item("a", lastname="Z"), item("c")]})
    by_key = {r["properties"]["tranche_id"]: r for r in body["results"]}
    assert (by_key["a"]["new"], by_key["c"]["new"]) == (False, True)
    assert {"id", "properties", "createdAt", "updatedAt", "archived", "new"} == by_key["a"].keys()
    held = {c["properties"]["tranche_id"]: c["properties"] for c in (await sandbox.get("contacts"))["contacts"]}
    assert held["a"] == {"tranche_id": "a", "firstname": "A", "lastname": "Z"}


async def test_an_empty_string_clears_and_others_stay(sandbox: Sandbox) -> None:
    await post(sandbox, UPSERT, {"inputs": [item("a", firstname="A", phone="1")]})
    await post(sandbox, UPSERT, {"inputs": [item("a", phone="")]})
    _, body, _ = await post(
        sandbox,
        READ,
        {
            "idProperty": "tranche_id",
            "properties": ["firstname", "phone"],
            "inputs": [{"id": "a"}],
            "propertiesWithHistory": [],
        },
    )
    properties = body["results"][0]["properties"]
    assert (properties["firstname"], properties["phone"]) == ("A", None)


async def test_results_are_never_in_request_order(sandbox: Sandbox) -> None:
    for size in (2, 3, 50):
        keys = [f"k{n}" for n in range(size)]
        _, body, _ = await post(sandbox, UPSERT, {"inputs": [item(key) for key in keys]})
        answered = [r["properties"]["tranche_id"] for r in body["results"]]
        assert answered != keys
        assert sorted(answered) == sorted(keys)


@pytest.mark.parametrize("traced", [True, False])
async def test_a_rejected_item_is_named_only_if_it_was_traced(sandbox: Sandbox, traced: bool) -> None:
    inputs = [
        item("good", "t-0" if traced else None, email="Good@Example.org"),
        item("bad", "t-1" if traced else None, email="nonsense"),
    ]
    status, body, _ = await post(sandbox, UPSERT, {"inputs": inputs})

    assert (status, body["numErrors"], len(body["results"])) == (207, 1, 1)
    [error] = body["errors"]
    assert (error["status"], error["category"]) == ("error", "VALIDATION_ERROR")
    assert error.get("context") == ({"objectWriteTraceId": ["t-1"]} if traced else {})
    assert {"errors", "links"} <= error.keys()
    assert body["results"][0].get("objectWriteTraceId") == ("t-0" if traced else None)
    assert (await sandbox.effects())[0]["properties"]["email"] == "good@example.org"


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ([item(f"k{n}") for n in range(101)], "100"),
        ([item("a"), item("b"), item("a")], "Duplicate IDs found in batch input: [a]"),
        ([{"id": "a", "properties": {}}], "idProperty"),
        ([{"id": "a", "idProperty": "tranche_id"}], "properties"),
        ([item("a") | {"properties": {"n": 1}}], "str"),
        ([item("a") | {"properties": {"n": None}}], "str"),
        ([item("")], "id"),
        ([item("a") | {"idProperty": "firstname"}], "non-unique"),
        ([item("a") | {"idProperty": "hs_object_id"}], "non-unique"),
        ([], "empty"),
        ("no list", "array"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_wrong_batch_is_refused_whole(sandbox: Sandbox, inputs: object, words: str) -> None:
    status, body, _ = await post(sandbox, UPSERT, {"inputs": inputs})

    assert (status, body["status"], body["category"]) == (400, "error", "VALIDATION_ERROR")
    assert words in body["message"]
    assert body["correlationId"]
    assert await sandbox.effects() == []


async def test_read_names_what_it_does_not_find(sandbox: Sandbox) -> None:
    await post(sandbox, UPSERT, {"inputs": [item("a", firstname="A")]})
    status, body, _ = await post(
        sandbox,
        READ,
        {
            "idProperty": "tranche_id",
            "properties": ["tranche_id"],
            "inputs": [{"id": i} for i in "axy"],
            "propertiesWithHistory": [],
        },
    )
    assert (status, body["numErrors"]) == (207, 1)
    assert [r["properties"]["tranche_id"] for r in body["results"]] == ["a"]
    assert body["errors"][0]["category"] == "OBJECT_NOT_FOUND"
    assert body["errors"][0]["context"] == {"ids": ["x", "y"]}

    record_id = body["results"][0]["id"]
    status, body, _ = await post(
        sandbox, READ, {"properties": ["firstname"], "propertiesWithHistory": [], "inputs": [{"id": record_id}]}
    )
    assert (status, body["results"][0]["properties"]["firstname"]) == (200, "A")


@pytest.mark.parametrize("token", [None, "", "bad-token"])
async def test_without_a_good_token_nothing_is_done(sandbox: Sandbox, token: str | None) -> None:
    status, body, _ = await post(sandbox, UPSERT, {"inputs": [item("a")]}, token)

    assert (status, body["category"]) == (401, "INVALID_AUTHENTICATION")
    assert await sandbox.effects() == []


@pytest.mark.parametrize("policy", ["SECONDLY", "TEN_SECONDLY_ROLLING", "DAILY"])
async def test_a_limit_is_named_by_policy_and_not_by_retry_after(sandbox: Sandbox, policy: str) -> None:
    await sandbox.faults(rate_limit={"policyName": policy})
    status, body, headers = await post(sandbox, UPSERT, {"inputs": [item("a")]})

    assert status == 429
    assert (body["status"], body["errorType"], body["policyName"]) == ("error", "RATE_LIMIT", policy)
    assert {"message", "correlationId", "requestId"} <= body.keys()
    assert "Retry-After" not in headers


async def test_an_unknown_route_is_404_in_hubspots_words(sandbox: Sandbox) -> None:
    status, body, _ = await post(sandbox, "/crm/v3/objects/deals/batch/upsert", {})
    assert (status, body["status"]) == (404, "error")


async def test_archive_says_nothing_of_single_records(sandbox: Sandbox) -> None:
    archive = "/crm/v3/objects/contacts/batch/archive"
    _, made, _ = await post(sandbox, UPSERT, {"inputs": [item("a"), item("b")]})
    ids = {r["properties"]["tranche_id"]: r["id"] for r in made["results"]}
    headers = {"Authorization": "Bearer t"}
    inputs = {"inputs": [{"id": ids["a"]}, {"id": "999"}]}
    for _ in range(2):
        async with sandbox.session.post(sandbox.url + archive, json=inputs, headers=headers) as response:
            assert (response.status, await response.read()) == (204, b"")

    assert [(e["key"], e["id"]) for e in await sandbox.effects() if e["deleted"]] == [("a", ids["a"])]
    _, body, _ = await post(
        sandbox,
        READ,
        {
            "idProperty": "tranche_id",
            "properties": ["tranche_id"],
            "inputs": [{"id": "a"}, {"id": "b"}],
            "propertiesWithHistory": [],
        },
    )
    assert [r["id"] for r in body["results"]] == [ids["b"]]
    assert body["errors"][0]["context"] == {"ids": ["a"]}


async def test_a_read_without_properties_with_history_is_refused(sandbox: Sandbox) -> None:
    """BatchReadInputSimplePublicObjectId requires it."""
    body = {"idProperty": "tranche_id", "properties": ["tranche_id"], "inputs": [{"id": "a"}]}
    status, answer, _ = await post(sandbox, READ, body)
    assert (status, answer["category"]) == (400, "VALIDATION_ERROR")
    assert "propertiesWithHistory" in answer["message"]


async def declare(sandbox: Sandbox, *names: str) -> None:
    async with sandbox.session.put(f"{sandbox.url}/__sandbox__/schema", json={"declared": list(names)}) as response:
        assert response.status == 200


async def test_a_property_that_is_not_declared_refuses_the_batch_in_hubspots_own_form(sandbox: Sandbox) -> None:
    await declare(sandbox, "tranche_id")
    status, body, _ = await post(sandbox, UPSERT, {"inputs": [item("a", "t", plan="x"), item("b", "u")]})

    assert (status, body["category"]) == (400, "VALIDATION_ERROR")
    head, _, embedded = body["message"].partition(": ")
    assert head == "Property values were not valid"
    [detail] = json.loads(embedded)
    assert (detail["isValid"], detail["error"], detail["name"]) == (False, "PROPERTY_DOESNT_EXIST", "plan")
    assert detail["message"] == 'Property "plan" does not exist'
    assert await sandbox.effects() == []

    await declare(sandbox, "tranche_id", "plan")
    status, _, _ = await post(sandbox, UPSERT, {"inputs": [item("a", "t", plan="x"), item("b", "u")]})
    assert (status, len(await sandbox.effects())) == (200, 2)


async def test_an_account_that_was_not_prepared_has_no_key_property(sandbox: Sandbox) -> None:
    await declare(sandbox)
    status, body, _ = await post(sandbox, UPSERT, {"inputs": [item("a", "t", firstname="A")]})
    assert status == 400
    assert 'Property \\"tranche_id\\" does not exist' in body["message"]
    assert await sandbox.effects() == []


async def test_what_hubspot_sets_itself_cannot_be_written(sandbox: Sandbox) -> None:
    status, body, _ = await post(sandbox, UPSERT, {"inputs": [item("a", createdate="2026-03-04")]})
    assert status == 400
    assert "READ_ONLY_VALUE" in body["message"]


async def test_a_property_can_be_missing_for_a_while(sandbox: Sandbox) -> None:
    await sandbox.faults(missing_fields={"names": ["plan"]})
    status, body, _ = await post(sandbox, UPSERT, {"inputs": [item("a", "t", plan="x"), item("b", "u")]})

    assert status == 400
    assert 'Property \\"plan\\" does not exist' in body["message"]
    assert (await sandbox.calls())[0]["faults"] == ["missing_fields"]


async def test_an_address_belongs_to_one_contact(sandbox: Sandbox) -> None:
    _, made, _ = await post(
        sandbox, UPSERT, {"inputs": [{"id": "Old@X.org", "idProperty": "email", "properties": {"firstname": "O"}}]}
    )
    old = made["results"][0]["id"]
    words = f"Contact already exists. Existing ID: {old}"

    # Without trace ids it refuses all of the call,
    inputs = [item("a", email="old@x.org"), item("b", email="new@x.org")]
    status, body, _ = await post(sandbox, UPSERT, {"inputs": inputs})
    assert (status, body["category"], body["message"]) == (409, "CONFLICT", words)
    assert len(await sandbox.effects()) == 1

    # with them its own input.
    inputs = [item("a", "t-0", email="OLD@x.org"), item("b", "t-1", email="new@x.org")]
    status, body, _ = await post(sandbox, UPSERT, {"inputs": inputs})
    assert (status, body["numErrors"]) == (207, 1)
    [error] = body["errors"]
    assert (error["category"], error["message"]) == ("CONFLICT", words)
    assert error["context"] == {"objectWriteTraceId": ["t-0"]}

    # By its record id it can be given our key, and is found by that from then on.
    update = "/crm/v3/objects/contacts/batch/update"
    given = {"id": old, "properties": {"tranche_id": "a", "firstname": "Ada"}}
    status, body, _ = await post(sandbox, update, {"inputs": [given]})
    assert (status, [r["id"] for r in body["results"]]) == (200, [old])
    assert "new" not in body["results"][0]
    status, body, _ = await post(sandbox, UPSERT, {"inputs": [item("a", "t-0", email="old@x.org")]})
    assert (status, body["results"][0]["id"], body["results"][0]["new"]) == (200, old, False)
    last = (await sandbox.effects())[-1]
    assert (last["key_property"], last["key"], last["created"]) == ("tranche_id", "a", False)

    # A key is one contact's as well.
    status, body, _ = await post(
        sandbox, update, {"inputs": [{"id": old, "properties": {"tranche_id": "b"}, "objectWriteTraceId": "0"}]}
    )
    assert status == 207
    assert "CONFLICTING_UNIQUE_VALUE" in body["errors"][0]["message"]


async def test_an_update_of_what_is_not_there_says_so(sandbox: Sandbox) -> None:
    status, body, _ = await post(
        sandbox,
        "/crm/v3/objects/contacts/batch/update",
        {"inputs": [{"id": "404", "properties": {"firstname": "A"}, "objectWriteTraceId": "0"}]},
    )
    assert (status, body["results"]) == (207, [])
    assert body["errors"][0]["category"] == "OBJECT_NOT_FOUND"
    assert body["errors"][0]["context"] == {"ids": ["404"], "objectWriteTraceId": ["0"]}
