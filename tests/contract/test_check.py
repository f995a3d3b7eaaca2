"""What a harmless look at an account makes of each answer; nothing is ever written by it."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from app.destinations.testing.rules import Step
from jobs.crm import ADAPTERS
from jobs.crm.port import Headers, Timeouts
from tests.contract.conftest import TOKEN, WITH_STAND_IN, Connect, Sandbox, told, with_token
from tests.contract.scripted import Script
from tests.types import CONTACTS

UNIQUE = {"name": "tranche_id", "hasUniqueValue": True}
FIELDS = [
    {"name": "Tranche_Id__c", "externalId": True, "unique": True, "caseSensitive": True},
    *({"name": name} for name in ("Id", "Email", "FirstName", "LastName", "Phone", "Company__c")),
]
NO_PROPERTY = (
    'Property values were not valid: [{"isValid":false,"message":"Property \\"tranche_id\\" does not exist",'
    '"error":"PROPERTY_DOESNT_EXIST"}]'
)


async def check(
    kind: str, session: aiohttp.ClientSession, script: Script, *answers: tuple[int, Any], **options: Any
) -> dict[str, Step]:
    script.answers = list(answers)
    crm = ADAPTERS[kind](
        resource=CONTACTS,
        session=session,
        base_url=script.url,
        authorizer=with_token(),
        options=options,
        timeouts=Timeouts(1.0, 2.0),
    )
    return {step.name: step for step in await crm.check(Headers("req-1", "check"))}


def oks(steps: dict[str, Step]) -> dict[str, bool | None]:
    return {name: step.ok for name, step in steps.items()}


async def test_a_stand_in_of_each_kind_passes_and_is_not_written_to(connect: Connect, sandbox: Sandbox) -> None:
    steps = await connect().check(told("req-1"))

    assert steps
    assert all(
        step.ok and step.detail and (step.status is not None or sandbox.kind in ("postgres", "kafka")) for step in steps
    ), steps
    assert await sandbox.effects() == []
    if sandbox.kind == "kafka":  # only messages say which request they belong to
        assert await sandbox.calls() == []
        return
    assert {call["on"] for call in await sandbox.calls()} == {"read"}
    assert {call["request_id"] for call in await sandbox.calls()} == {"req-1"}


async def test_a_refused_token_is_the_first_thing_seen(connect: Connect, sandbox: Sandbox) -> None:
    steps = await connect(token="bad-token").check(told())
    if sandbox.kind in ("postgres", "kafka"):
        code = {"postgres": "28P01", "kafka": "(58)"}[sandbox.kind]
        assert [(step.ok, code in step.detail) for step in steps] == [(False, True)]
        return
    assert [(step.ok, step.status) for step in steps] == [(False, 403 if sandbox.kind == "object" else 401)]
    assert len(await sandbox.calls()) == 1


@pytest.mark.parametrize("fault", ["drop_before", "down"])
async def test_no_answer_is_said(connect: Connect, sandbox: Sandbox, fault: str) -> None:
    await sandbox.faults(**{fault: {"on": "any"} if fault == "drop_before" else {}})
    [step] = await connect().check(told())
    assert (step.ok, step.status) == (False, None)
    assert "no answer" in step.detail.lower()


@pytest.mark.parametrize("kind", WITH_STAND_IN)
async def test_the_token_is_in_no_step(connect: Connect, script: Script) -> None:
    script.status, script.body = 403, {"message": f"{TOKEN} may not", "error": TOKEN}
    for step in await connect(base_url=script.url).check(told()):
        assert TOKEN not in step.detail


# HubSpot


@pytest.mark.parametrize(
    ("answers", "expected", "words"),
    [
        ([(207, {"results": []}), (200, UNIQUE)], {"read": True, "id property": True}, "unique"),
        (
            [(200, {"results": []}), (200, {**UNIQUE, "hasUniqueValue": False})],
            {"read": True, "id property": False},
            "must be unique",
        ),
        (
            [(200, {"results": []}), (404, {"category": "OBJECT_NOT_FOUND"})],
            {"read": True, "id property": False},
            "no such contact property",
        ),
        (
            [(200, {"results": []}), (403, {"category": "MISSING_SCOPES"})],
            {"read": True, "id property": None},
            "crm.schemas.contacts.read",
        ),
        ([(403, {"category": "MISSING_SCOPES", "message": "no scope"})], {"read": False}, "no scope"),
        ([(429, {"policyName": "DAILY"})], {"read": False}, "429"),
    ],
    ids=str,
)
async def test_hubspot(
    session: aiohttp.ClientSession,
    script: Script,
    answers: list[tuple[int, Any]],
    expected: dict[str, bool | None],
    words: str,
) -> None:
    steps = await check("hubspot", session, script, *answers)
    assert oks(steps) == expected
    assert words in list(steps.values())[-1].detail
    assert [(asked.method, asked.path) for asked in script.asked][:1] == [
        ("POST", "/crm/v3/objects/contacts/batch/read")
    ]
    assert script.bodies[0]["propertiesWithHistory"] == []
    if len(script.asked) > 1:
        assert (script.asked[1].method, script.asked[1].path) == ("GET", "/crm/v3/properties/contacts/tranche_id")


async def test_hubspot_names_the_property_that_is_missing(session: aiohttp.ClientSession, script: Script) -> None:
    steps = await check("hubspot", session, script, (400, {"status": "error", "message": NO_PROPERTY}))
    assert oks(steps) == {"read": False}
    assert "tranche_id" in steps["read"].detail


# Salesforce


@pytest.mark.parametrize(
    ("fields", "expected", "words"),
    [
        (FIELDS, {"external id": True, "fields": True, "read": True}, "case-sensitive"),
        (FIELDS[1:], {"external id": False, "fields": True, "read": True}, "no field Tranche_Id__c"),
        (
            [{"name": "tranche_id__C", "externalId": True, "unique": True}, *FIELDS[1:]],
            {"external id": False, "fields": True, "read": True},
            "not case-sensitive",
        ),
        (
            [{"name": "Tranche_Id__c"}, *FIELDS[1:]],
            {"external id": False, "fields": True, "read": True},
            "not an external id and not unique",
        ),
    ],
    ids=["well", "missing", "case", "plain"],
)
async def test_salesforce(
    session: aiohttp.ClientSession, script: Script, fields: list[Any], expected: dict[str, bool | None], words: str
) -> None:
    found = (200, {"totalSize": 0, "done": True, "records": []})
    steps = await check("salesforce", session, script, (200, {"name": "Contact", "fields": fields}), found)
    assert oks(steps) == expected
    assert words in steps["external id"].detail
    described, asked = script.asked
    assert (described.method, described.path) == ("GET", "/services/data/v60.0/sobjects/Contact/describe")
    assert (asked.method, asked.path.rstrip("/")) == ("GET", "/services/data/v60.0/query")
    assert asked.query["q"].startswith("SELECT Id,Tranche_Id__c FROM Contact WHERE Tranche_Id__c IN ('")


async def test_salesforce_names_a_mapped_field_that_is_missing(session: aiohttp.ClientSession, script: Script) -> None:
    found = (200, {"totalSize": 0, "done": True, "records": []})
    described = (200, {"fields": FIELDS})
    steps = await check("salesforce", session, script, described, found, fields={"Plan": "Tier__c"})
    assert oks(steps) == {"external id": True, "fields": False, "read": True}
    assert "Tier__c" in steps["fields"].detail


async def test_salesforce_says_what_the_session_met(session: aiohttp.ClientSession, script: Script) -> None:
    expired = [{"errorCode": "INVALID_SESSION_ID", "message": "Session expired or invalid"}]
    steps = await check("salesforce", session, script, (401, expired))
    assert oks(steps) == {"describe": False}
    assert "Session expired" in steps["describe"].detail


# any service


@pytest.mark.parametrize(
    ("options", "answers", "expected", "words"),
    [
        ({}, [(200, None)], {"reach": None}, "did not refuse the token"),
        ({}, [(405, None), (405, {})], {"reach": None}, "canary"),
        ({}, [(404, None), (200, {})], {"reach": None}, "GET"),
        ({}, [(404, None), (404, {})], {"reach": None}, "404"),
        ({}, [(401, None)], {"reach": False}, "401"),
        ({}, [(302, None)], {"reach": False}, "302"),
        ({}, [(500, None)], {"reach": False}, "500"),
        ({"read_path": "/r"}, [(200, {"contacts": []})], {"read": True}, "as it should be"),
        ({"read_path": "/r", "wrapper": None}, [(200, [])], {"read": True}, "as it should be"),
        ({"read_path": "/r", "wrapper": "data.list"}, [(200, {"data": []})], {"read": False}, "'data.list'"),
        ({"read_path": "/r"}, [(200, {"contacts": [], "ok": False})], {"read": False}, '"ok":false'),
        ({"read_path": "/r"}, [(404, {})], {"read": False}, "read_path"),
    ],
    ids=str,
)
async def test_any_service(
    session: aiohttp.ClientSession,
    script: Script,
    options: dict[str, Any],
    answers: list[tuple[int, Any]],
    expected: dict[str, bool | None],
    words: str,
) -> None:
    steps = await check("http", session, script, *answers, **options)
    assert oks(steps) == expected
    assert words in list(steps.values())[-1].detail
    if "read_path" in options:
        assert [(asked.method, asked.path) for asked in script.asked] == [("POST", "/r")]
        assert script.asked[0].headers["Authorization"] == f"Bearer {TOKEN}"
    else:
        assert {asked.method for asked in script.asked} <= {"HEAD", "GET"}
        assert all(asked.headers["Authorization"] == f"Bearer {TOKEN}" for asked in script.asked)
