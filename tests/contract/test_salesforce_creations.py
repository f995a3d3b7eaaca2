"""Salesforce: a new record without a last name is created with the default, and never overwritten with it."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.port import Health, Seen, SentRecord
from tests.contract.conftest import Sandbox, contact, told
from tests.contract.scripted import Script
from tests.contract.test_salesforce import error, salesforce, verdicts
from tests.types import sent

OK, RETRY, FAILED, UNKNOWN = EffectState.OK, EffectState.RETRY, EffectState.FAILED, EffectState.UNKNOWN
UNAVAILABLE = ErrorCode.DESTINATION_UNAVAILABLE
LACKS = error("REQUIRED_FIELD_MISSING", "Required fields are missing: [LastName]", "LastName")
DUPLICATE = "duplicate value found: Tranche_Id__c duplicates value on record with id: 003000000000001AAA"
UPSERT = ("PATCH", "/services/data/v60.0/composite/sobjects/Contact/Tranche_Id__c")
CREATE = ("POST", "/services/data/v60.0/composite/sobjects")


@pytest.fixture
def kind() -> str:
    return "salesforce"


def nameless(key: str, version: int = 1) -> SentRecord:
    return sent(key, version, email=f"{key}@example.org")


def updated(record_id: str) -> dict[str, Any]:
    return {"id": record_id, "success": True, "created": False, "errors": []}


async def test_records_that_lack_a_last_name_are_created_in_a_second_call(
    session: aiohttp.ClientSession, script: Script
) -> None:
    script.answers = [
        (200, [updated("003A"), LACKS, updated("003C"), LACKS]),
        (200, [{"id": "003B", "success": True, "errors": []}, {"id": "003D", "success": True, "errors": []}]),
    ]
    batch = [contact("a"), nameless("b"), contact("c"), nameless("d")]
    crm = salesforce(session, script.url, default_last_name="Nameless")
    reply = await crm.push(batch, told("req-1", "event-1"))

    assert [(a.method, a.raw_path) for a in script.asked] == [UPSERT, CREATE]
    assert script.asked[1].headers["X-Request-ID"] == "req-1"
    assert script.bodies[1] == {
        "allOrNone": False,
        "records": [
            {
                "attributes": {"type": "Contact"},
                "Tranche_Id__c": key,
                "Email": f"{key}@example.org",
                "LastName": "Nameless",
            }
            for key in ("b", "d")
        ],
    }
    assert [(o.record_id, o.state, o.remote_id, o.created) for o in reply.outcomes] == [
        ("a", OK, "003A", False),
        ("b", OK, "003B", True),
        ("c", OK, "003C", False),
        ("d", OK, "003D", True),
    ]


@pytest.mark.parametrize("field", ["Tranche_Id__c", "tranche_id__C"])
async def test_a_record_that_is_there_by_then_is_upserted_at_the_next_attempt(
    session: aiohttp.ClientSession, script: Script, field: str
) -> None:
    """However the option spells the field: Salesforce answers with its own spelling."""
    made = {"id": "003B", "success": True, "errors": []}
    script.answers = [(200, [LACKS, LACKS]), (200, [error("DUPLICATE_VALUE", DUPLICATE), made])]
    crm = salesforce(session, script.url, default_last_name="Nameless", external_id_field=field)
    reply = await crm.push([nameless("a"), nameless("b")], told())

    assert script.asked[1].method == "POST"
    assert verdicts(reply) == [(RETRY, UNAVAILABLE), (OK, None)]
    assert [o.created for o in reply.outcomes] == [None, True]
    assert DUPLICATE in reply.outcomes[0].detail


@pytest.mark.parametrize(
    ("result", "state"),
    [
        (error("FIELD_CUSTOM_VALIDATION_EXCEPTION"), FAILED),
        (error("DUPLICATE_VALUE", DUPLICATE.replace("Tranche_Id__c", "Email__c")), FAILED),
        (error("UNABLE_TO_LOCK_ROW"), RETRY),
        ({"id": "003A"}, UNKNOWN),
        (None, UNKNOWN),
    ],
    ids=str,
)
async def test_a_creation_that_did_not_go_well_made_nothing(
    session: aiohttp.ClientSession, script: Script, result: Any, state: EffectState
) -> None:
    script.answers = [(200, [LACKS]), (200, [result])]
    crm = salesforce(session, script.url, default_last_name="Nameless")
    reply = await crm.push([nameless("a")], told())

    assert script.asked[1].method == "POST"
    assert [(o.state, o.created) for o in reply.outcomes] == [(state, None)]


async def test_a_last_name_that_a_user_gave_between_the_two_calls_stays(
    session: aiohttp.ClientSession, sandbox: Sandbox
) -> None:
    typed = False

    async def type_in(_: object, __: object, ended: aiohttp.TraceRequestEndParams) -> None:
        nonlocal typed
        if ended.method == "PATCH" and not typed:
            typed = True
            await sandbox.edit("Tranche_Id__c", "a", {"LastName": "Lovelace"})

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(type_in)
    async with aiohttp.ClientSession(trace_configs=[trace]) as watched:
        crm = salesforce(watched, sandbox.url, default_last_name="Nameless")
        first = await crm.push([nameless("a"), nameless("b")], told())
        assert verdicts(first) == [(RETRY, UNAVAILABLE), (OK, None)]
        assert [o.created for o in first.outcomes] == [None, True]

        second = await crm.push([nameless("a")], told())
        assert [(o.state, o.created) for o in second.outcomes] == [(OK, False)]

    held = {c["key"]: c["properties"] for c in (await sandbox.get("contacts"))["contacts"]}
    assert held["a"] == {"Tranche_Id__c": "a", "Email": "a@example.org", "LastName": "Lovelace"}
    assert held["b"]["LastName"] == "Nameless"


async def test_a_lost_answer_of_a_creation_is_read_back(session: aiohttp.ClientSession, sandbox: Sandbox) -> None:
    armed = False

    async def arm(_: object, __: object, ended: aiohttp.TraceRequestEndParams) -> None:
        nonlocal armed
        if ended.method == "PATCH" and not armed:
            armed = True
            await sandbox.faults(accept_then_drop={"times": 1})

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(arm)
    async with aiohttp.ClientSession(trace_configs=[trace]) as watched:
        crm = salesforce(watched, sandbox.url, default_last_name="Nameless")
        reply = await crm.push([nameless("a")], told())
        assert [(o.state, o.created) for o in reply.outcomes] == [(UNKNOWN, None)]
        assert (await crm.read_back([nameless("a")], told())).seen == {"a": Seen.MATCHES}

    assert [e["created"] for e in await sandbox.effects()] == [True]
    assert [c["method"] for c in await sandbox.calls()][:2] == ["PATCH", "POST"]


async def test_both_calls_count_for_what_the_push_met(session: aiohttp.ClientSession, script: Script) -> None:
    """A fault of the set-up in the first holds the destination, whatever the second says; a limit in the second is
    obeyed, and what the first did counts all the same."""
    missing = error("INVALID_FIELD", "No such column 'Plan__c' on sobject of type Contact")
    made = {"id": "003B", "success": True, "errors": []}
    script.answers = [(200, [missing, LACKS]), (200, [made])]
    crm = salesforce(session, script.url, default_last_name="Nameless")
    held = await crm.push([contact("a"), nameless("b")], told())
    assert held.health is Health.SETUP_FAULT
    assert "Plan__c" in held.detail
    assert [o.state for o in held.outcomes] == [RETRY, OK]

    limit = [{"errorCode": "REQUEST_LIMIT_EXCEEDED", "message": "ConcurrentRequests Limit exceeded."}]
    script.answers = [(200, [updated("003A"), LACKS]), (403, limit)]
    paused = await crm.push([contact("a"), nameless("b")], told())
    assert paused.pause is not None
    assert paused.pause.seconds == 10
    assert [o.state for o in paused.outcomes] == [OK, RETRY]
