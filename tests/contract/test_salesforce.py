"""What is Salesforce's own: its codes, quota, names and SOQL; partly against scripted answers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest

from app.destinations import kinds
from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.port import Health, Reply, Seen, Timeouts
from jobs.crm.salesforce.adapter import Salesforce
from jobs.crm.salesforce.fields import field_name, literal, parcels
from tests.contract.conftest import TOKEN, Sandbox, contact, contacts, told, with_token
from tests.contract.scripted import Script
from tests.types import CONTACTS, sent

OK, RETRY, FAILED, UNKNOWN = EffectState.OK, EffectState.RETRY, EffectState.FAILED, EffectState.UNKNOWN
REJECTED = ErrorCode.DESTINATION_REJECTED


@pytest.fixture
def kind() -> str:
    return "salesforce"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def salesforce(session: aiohttp.ClientSession, url: str, clock: Clock | None = None, **options: Any) -> Salesforce:
    return Salesforce(
        resource=CONTACTS,
        session=session,
        base_url=url,
        authorizer=with_token(),
        options=options,
        timeouts=Timeouts(connect=1.0, total=2.0),
        now=lambda: datetime(2026, 3, 4, 12, 0, tzinfo=UTC),
        **({} if clock is None else {"monotonic": clock}),
    )


def error(code: str, message: str = "no", *fields: str) -> dict[str, Any]:
    return {
        "success": False,
        "created": False,
        "errors": [{"statusCode": code, "message": message, "fields": list(fields)}],
    }


def verdicts(reply: Reply) -> list[tuple[EffectState, ErrorCode | None]]:
    return [(o.state, o.code) for o in reply.outcomes]


async def test_the_request_is_a_collection_upsert_on_the_external_id(
    session: aiohttp.ClientSession, script: Script
) -> None:
    script.body = [{"id": "003A", "success": True, "created": True, "errors": []}]
    person = contact("k1", last_name=None, attributes={"Score": 5, "VIP": True, "Tags": ["a"], "Note": None})
    reply = await salesforce(
        session, script.url, api_version="v61.0", external_id_field="Key__c", default_last_name="(unknown)"
    ).push([person], told("req-1", "event-1"))

    [asked] = script.asked
    assert (asked.method, asked.path) == ("PATCH", "/services/data/v61.0/composite/sobjects/Contact/Key__c")
    assert asked.headers["Authorization"] == f"Bearer {TOKEN}"
    assert (asked.headers["X-Request-ID"], asked.headers["X-Event-ID"]) == ("req-1", "event-1")
    assert script.bodies == [
        {
            "allOrNone": False,
            "records": [
                {
                    "attributes": {"type": "Contact"},
                    "Key__c": "k1",
                    "Email": "k1@example.org",
                    "FirstName": "Ada",
                    "LastName": "(unknown)",
                    "Phone": "001-808-617-6467x12895",
                    "Score__c": 5,
                    "VIP__c": True,
                    "Tags__c": '["a"]',
                    "Note__c": None,
                }
            ],
        }
    ]
    assert reply.outcomes[0].remote_id == "003A"


async def test_a_contact_without_a_last_name_is_refused_and_named(
    session: aiohttp.ClientSession, sandbox: Sandbox
) -> None:
    """Honest by default: an invented name in somebody's CRM is worse than a dead letter."""
    nameless = [contact("c0"), contact("c1", last_name=None), contact("c2", last_name="  ")]
    reply = await salesforce(session, sandbox.url).push(nameless, told())

    assert verdicts(reply) == [(OK, None), (FAILED, REJECTED), (FAILED, REJECTED)]
    assert "REQUIRED_FIELD_MISSING: Required fields are missing: [LastName]" in reply.outcomes[1].detail

    crm = salesforce(session, sandbox.url, default_last_name="-")
    assert verdicts(await crm.push(nameless, told())) == [(OK, None)] * 3
    assert (await crm.read_back(nameless, told())).seen == {f"c{n}": Seen.MATCHES for n in range(3)}


@pytest.mark.parametrize(
    ("result", "verdict"),
    [
        (error("UNABLE_TO_LOCK_ROW"), (RETRY, ErrorCode.DESTINATION_UNAVAILABLE)),
        (error("SERVER_UNAVAILABLE"), (RETRY, ErrorCode.DESTINATION_UNAVAILABLE)),
        (
            error(
                "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY",
                "AccountTrigger: execution of AfterUpdate caused by: System.DmlException: Update failed. First "
                "exception on row 0; first error: UNABLE_TO_LOCK_ROW, unable to obtain exclusive access to this "
                "record: []",
            ),
            (RETRY, ErrorCode.DESTINATION_UNAVAILABLE),
        ),
        (error("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "AccountTrigger: caused by: no such plan"), (FAILED, REJECTED)),
        (error("REQUIRED_FIELD_MISSING", "LastName", "LastName"), (FAILED, REJECTED)),
        (error("FIELD_CUSTOM_VALIDATION_EXCEPTION"), (FAILED, REJECTED)),
        (error("INVALID_EMAIL_ADDRESS", "x", "Email"), (FAILED, REJECTED)),
        (error("DUPLICATE_EXTERNAL_ID", "more than one record found"), (FAILED, REJECTED)),
        (error("DUPLICATES_DETECTED", "Use one of these records?"), (FAILED, REJECTED)),
        (error("DUPLICATE_VALUE", "Duplicate external id specified: c0"), (FAILED, REJECTED)),
        (
            error("DUPLICATE_VALUE", "duplicate value found: Tranche_Id__c duplicates value on record with id: 003x"),
            (RETRY, ErrorCode.DESTINATION_UNAVAILABLE),
        ),
        (
            error("DUPLICATE_VALUE", "duplicate value found: Email__c duplicates value on record with id: 003x"),
            (FAILED, REJECTED),
        ),
        ({"success": False, "errors": []}, (FAILED, REJECTED)),
        ({"id": "003A", "success": True, "errors": None}, (OK, None)),
        ({"id": "003A"}, (UNKNOWN, ErrorCode.OUTCOME_UNKNOWN)),
        ({"success": "true"}, (UNKNOWN, ErrorCode.OUTCOME_UNKNOWN)),
        (None, (UNKNOWN, ErrorCode.OUTCOME_UNKNOWN)),
        ("ok", (UNKNOWN, ErrorCode.OUTCOME_UNKNOWN)),
    ],
    ids=str,
)
async def test_the_code_of_a_record_decides_its_fate_and_no_others(
    session: aiohttp.ClientSession, script: Script, result: Any, verdict: tuple[EffectState, ErrorCode | None]
) -> None:
    well = {"id": "003B", "success": True, "created": False, "errors": []}
    script.body = [well, result]
    reply = await salesforce(session, script.url).push(contacts(2), told())

    assert verdicts(reply) == [(OK, None), verdict]
    assert bool(reply.outcomes[1].detail) == (verdict[0] != OK)
    if isinstance(result, dict) and result.get("errors"):
        assert result["errors"][0]["statusCode"] in reply.outcomes[1].detail


@pytest.mark.parametrize(
    ("code", "words", "remedy"),
    [
        ("INVALID_FIELD", "No such column 'Plan__c' on sobject of type Contact", "Create Plan__c on Contact"),
        (
            "INVALID_FIELD_FOR_INSERT_UPDATE",
            "Unable to create/update fields: Plan__c. Please check the security settings of this field.",
            "Let the user of the token edit it",
        ),
    ],
)
async def test_records_that_name_a_field_the_organisation_lacks_wait_and_hold_it(
    session: aiohttp.ClientSession, script: Script, code: str, words: str, remedy: str
) -> None:
    well = {"id": "003B", "success": True, "created": False, "errors": []}
    script.body = [well, error(code, words)]
    batch = [contact("c0"), contact("c1", attributes={"Plan": "gold"})]
    reply = await salesforce(session, script.url).push(batch, told())

    assert verdicts(reply) == [(OK, None), (RETRY, ErrorCode.DESTINATION_UNAVAILABLE)]
    assert reply.health == Health.SETUP_FAULT
    assert words[:30] in reply.detail
    assert remedy in reply.detail
    assert '--field "Plan="' in reply.detail


async def test_a_company_goes_only_where_it_is_mapped(session: aiohttp.ClientSession, sandbox: Sandbox) -> None:
    """Contact has no field for one: by default a plain organisation would refuse every contact."""
    await sandbox.session.put(f"{sandbox.url}/__sandbox__/schema", json={"declared": ["Tranche_Id__c"]})
    assert verdicts(await salesforce(session, sandbox.url).push(contacts(2), told())) == [(OK, None)] * 2
    mapped = salesforce(session, sandbox.url, fields={"company": "Department"})
    assert verdicts(await mapped.push([contact("c0")], told())) == [(OK, None)]
    assert (await sandbox.effects())[-1]["properties"]["Department"] == "Analytical, Inc."


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_a_list_of_another_length_settles_nobody(
    session: aiohttp.ClientSession, script: Script, count: int
) -> None:
    """Results have no names, only places."""
    script.body = [{"id": "003B", "success": True, "errors": []}] * count
    reply = await salesforce(session, script.url).push(contacts(2), told())

    assert {o.state for o in reply.outcomes} == {UNKNOWN}


@pytest.mark.parametrize(
    ("status", "code", "message", "headers", "seconds"),
    [
        (403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.", {}, 900),
        (403, "REQUEST_LIMIT_EXCEEDED", "odd", {"Sforce-Limit-Info": "api-usage=5000/5000"}, 900),
        (403, "REQUEST_LIMIT_EXCEEDED", "ConcurrentRequests Limit exceeded.", {}, 10),
        (403, "REQUEST_LIMIT_EXCEEDED", "odd", {"Sforce-Limit-Info": "api-usage=17/5000"}, 10),
        (403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.", {"Retry-After": "60"}, 60),
        (429, "TOO_MANY", "slow down", {}, 10),
    ],
)
async def test_an_exhausted_limit_is_a_pause_and_no_fault(
    session: aiohttp.ClientSession,
    script: Script,
    status: int,
    code: str,
    message: str,
    headers: dict[str, str],
    seconds: float,
) -> None:
    script.status, script.headers = status, headers
    script.body = [{"errorCode": code, "message": message}]
    reply = await salesforce(session, script.url).push(contacts(2), told())

    assert set(verdicts(reply)) == {(RETRY, ErrorCode.DESTINATION_RATE_LIMIT)}
    assert reply.pause is not None
    assert reply.pause.seconds == pytest.approx(seconds)
    assert message in reply.pause.detail
    assert reply.health == Health.WELL


async def test_no_call_is_made_beyond_the_share_of_the_quota(session: aiohttp.ClientSession, script: Script) -> None:
    """An import must not take the last calls from everybody else who works with the organisation."""
    clock = Clock()
    crm = salesforce(session, script.url, clock, quota_share=0.8)
    script.body = [{"id": "003B", "success": True, "errors": []}]
    script.headers = {"Sforce-Limit-Info": "api-usage=3999/5000"}
    assert verdicts(await crm.push(contacts(1), told())) == [(OK, None)]
    script.headers = {"Sforce-Limit-Info": "api-usage=4000/5000; per-app-api-usage=17/250(appName=x)"}
    assert verdicts(await crm.push(contacts(1), told())) == [(OK, None)]

    clock.now += 1
    reply = await crm.push(contacts(1), told())
    assert len(script.asked) == 2
    assert verdicts(reply) == [(RETRY, ErrorCode.DESTINATION_RATE_LIMIT)]
    assert reply.pause is not None
    assert reply.pause.seconds == pytest.approx(899)
    assert "4000 of the organisation's 5000 API calls" in reply.detail
    back = await crm.read_back(contacts(1), told())
    assert (back.seen, back.pause is None) == (None, False)
    archived = await crm.archive([sent("c0", 1, deleted=True, remote_id="003B")], told())
    assert archived.pause is not None
    assert len(script.asked) == 2

    clock.now += 900
    assert verdicts(await crm.push(contacts(1), told())) == [(OK, None)]


@pytest.mark.parametrize(
    ("status", "code", "message", "state", "health"),
    [
        (401, "INVALID_SESSION_ID", "Session expired or invalid", RETRY, Health.CONNECTION_FAULT),
        (403, "API_DISABLED_FOR_ORG", "The REST API is not enabled", RETRY, Health.CONNECTION_FAULT),
        (404, "NOT_FOUND", "Provided external ID field does not exist: Tranche_Id__c", RETRY, Health.SETUP_FAULT),
        (400, "INVALID_FIELD", "No such column 'Tranche_Id__c' on sobject", RETRY, Health.SETUP_FAULT),
        (400, "INVALID_FIELD", "No such column 'Plan__c' on sobject", RETRY, Health.SETUP_FAULT),
        (400, "JSON_PARSER_ERROR", "Cannot deserialize", FAILED, Health.WELL),
        (300, "", "", FAILED, Health.WELL),
        (503, "SERVER_UNAVAILABLE", "busy", RETRY, Health.CRM_FAULT),
        (500, "UNKNOWN_EXCEPTION", "oh", UNKNOWN, Health.CRM_FAULT),
        (502, "", "", UNKNOWN, Health.CRM_FAULT),
        (410, "UNSUPPORTED_API_VERSION", "gone", RETRY, Health.CONNECTION_FAULT),
        (302, "", "", RETRY, Health.CONNECTION_FAULT),
    ],
)
async def test_errors_of_the_request_tell_contacts_settings_and_faults_apart(
    session: aiohttp.ClientSession,
    script: Script,
    status: int,
    code: str,
    message: str,
    state: EffectState,
    health: Health,
) -> None:
    script.status = status
    script.body = [{"errorCode": code, "message": message}] if code else ["/services/data/v60.0/…", "…"]
    reply = await salesforce(session, script.url).push(contacts(1), told())

    assert (reply.outcomes[0].state, reply.health) == (state, health)
    assert str(status) in reply.outcomes[0].detail
    assert code in reply.outcomes[0].detail


@pytest.mark.parametrize(
    ("code", "state"),
    [
        ("ENTITY_IS_DELETED", OK),
        ("NOT_FOUND", OK),
        ("INVALID_CROSS_REFERENCE_KEY", OK),
        ("UNABLE_TO_LOCK_ROW", RETRY),
        ("DELETE_FAILED", FAILED),
        ("INSUFFICIENT_ACCESS_OR_READONLY", FAILED),
    ],
)
async def test_a_deletion_asks_for_records_by_id_and_takes_gone_for_well(
    session: aiohttp.ClientSession, script: Script, code: str, state: EffectState
) -> None:
    gone = [sent(f"c{n}", 2, deleted=True, remote_id=f"00{n}A") for n in (1, 2)]
    script.body = [{"id": "001A", "success": True, "errors": []}, error(code)]
    reply = await salesforce(session, script.url).archive(gone, told())

    [asked] = script.asked
    assert asked.method == "DELETE"
    assert asked.raw_path == "/services/data/v60.0/composite/sobjects?ids=001A,002A&allOrNone=false"
    assert script.bodies == [None]
    assert [o.state for o in reply.outcomes] == [OK, state]


async def test_long_keys_are_read_in_several_queries_of_a_length_that_passes(
    session: aiohttp.ClientSession, sandbox: Sandbox
) -> None:
    batch = [contact(f"{n:03}" + "ключ-'\\" * 30) for n in range(60)]
    crm = salesforce(session, sandbox.url)
    await crm.push(batch, told())
    back = await crm.read_back([*batch, contact("absent")], told())

    assert back.seen == {c.record_id: Seen.MATCHES for c in batch} | {"absent": Seen.ABSENT}
    assert len([c for c in await sandbox.calls() if c["on"] == "read"]) > 1


async def test_all_queries_of_a_read_share_one_timeout(session: aiohttp.ClientSession, sandbox: Sandbox) -> None:
    batch = [contact(f"{n:03}" + "ж" * 200) for n in range(30)]
    await sandbox.faults(latency={"latency": 0.4})
    back = await salesforce(session, sandbox.url).read_back(batch, told())

    assert back.seen is None
    assert back.health == Health.CRM_FAULT
    assert "timed out" in back.detail


async def test_a_field_that_is_not_there_fails_its_contact_and_not_the_reading_of_others(
    session: aiohttp.ClientSession, sandbox: Sandbox
) -> None:
    crm = salesforce(session, sandbox.url)
    await crm.push([contact("c0")], told())
    await sandbox.faults(missing_fields={"names": ["Plan__c", "Tier__c"]})
    batch = [contact("c0"), contact("c1", attributes={"Plan": "gold", "Tier": 1})]
    back = await crm.read_back(batch, told())

    assert back.seen == {"c0": Seen.MATCHES, "c1": Seen.ABSENT}


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        ({"totalSize": 0, "done": True, "records": []}, {"c0": Seen.ABSENT}),
        ({"totalSize": 1, "done": True, "records": []}, {}),
        ({"totalSize": 0, "done": False, "records": []}, {}),
        ({"totalSize": 1, "done": True, "records": [{"Tranche_Id__c": "C0", "Id": "003A"}]}, {"c0": Seen.ABSENT}),
        (
            {"totalSize": 2, "done": True, "records": [{"Tranche_Id__c": "c0", "Id": "A"}, {"Tranche_Id__c": "c0"}]},
            {"c0": Seen.DIFFERS},
        ),
        ({"totalSize": 0, "records": "none"}, None),
        ([], None),
    ],
    ids=str,
)
async def test_only_a_complete_answer_can_say_that_something_is_absent(
    session: aiohttp.ClientSession, script: Script, body: Any, seen: Any
) -> None:
    script.body = body
    assert (await salesforce(session, script.url).read_back(contacts(1), told())).seen == seen


@pytest.mark.parametrize(
    ("ours", "theirs", "seen"),
    [
        (5, 5.0, Seen.MATCHES),
        (10**30, 1e30, Seen.MATCHES),
        (5, 5.1, Seen.DIFFERS),
        (True, True, Seen.MATCHES),
        (True, False, Seen.DIFFERS),
        ("a\nb ", "a\r\nb", Seen.MATCHES),
        ("x", "X", Seen.DIFFERS),
        (None, None, Seen.MATCHES),
        ("", None, Seen.MATCHES),
        ({"b": 1, "a": 2}, '{"a":2,"b":1}', Seen.MATCHES),
    ],
    ids=repr,
)
async def test_read_back_forgives_what_salesforce_rewrites_and_nothing_else(
    session: aiohttp.ClientSession, script: Script, ours: object, theirs: object, seen: Seen
) -> None:
    person = sent("c0", 1, email="A@B.c", last_name="L", attributes={"it": ours})
    record = {"Id": "003A", "Tranche_Id__c": "c0", "Email": "a@b.c", "LastName": "L", "it__c": theirs}
    script.body = {"totalSize": 1, "done": True, "records": [record]}

    assert (await salesforce(session, script.url).read_back([person], told())).seen == {"c0": seen}


@pytest.mark.parametrize(
    ("attribute", "name"),
    [
        ("Subscription Date", "Subscription_Date__c"),
        ("a-b--c", "a_b_c__c"),
        ("_X_", "X__c"),
        ("2nd", "X2nd__c"),
        ("Tier__c", "Tier__c"),
        ("名前", "名前__c"),
    ],
)
def test_attributes_become_custom_fields(attribute: str, name: str) -> None:
    assert field_name(attribute) == name


def test_attributes_that_differ_in_case_alone_are_one_field(session: Any) -> None:
    fields = Salesforce(
        resource=CONTACTS,
        session=session,
        base_url="http://x",
        authorizer=with_token("t"),
        options={},
        timeouts=Timeouts(),
    )._fields
    record = fields.sobject(contact("c", attributes={"plan": 1, "Plan": 2}))

    assert [name for name in record if name.lower() == "plan__c"] == ["Plan__c"]


def test_a_key_cannot_end_its_own_quotes() -> None:
    assert literal("x' OR Name != '\\") == "'x\\' OR Name != \\'\\\\'"
    assert literal('a\nb\t"c"') == "'a\\nb\\t\\\"c\\\"'"


def test_parcels_keep_order_and_length() -> None:
    assert list(parcels(["aa", "bb", "c", "dddddd"], 5)) == [["aa", "bb", "c"], ["dddddd"]]
    assert list(parcels([], 5)) == []


@pytest.mark.parametrize(
    "options",
    [
        {"external_id_field": "Tranche Id"},
        {"external_id_field": "ID"},
        {"external_id_field": "a') OR (Name != '"},
        {"api_version": "60"},
        {"api_version": "45.0"},
        {"default_last_name": ""},
        {"quota_share": 0},
        {"batch_size": 201},
        {"fields": {"Plan": "No Name"}},
        {"fields": {"email": "Tranche_Id__c"}},
        {"fields": {"Plan": "Id"}},
    ],
    ids=str,
)
def test_options_that_cannot_work_are_refused_with_their_name(options: dict[str, Any]) -> None:
    [name] = options
    with pytest.raises(kinds.OptionsError, match=name):
        kinds.parse("salesforce", options)


async def test_the_field_of_the_key_may_be_spelled_in_any_case(session: aiohttp.ClientSession, script: Script) -> None:
    """Salesforce takes any, and answers with its own: a contact that is there must not seem absent."""
    record = {"Id": "003A", "Tranche_Id__c": "c0", "Email": "old@example.org"}
    script.body = {"totalSize": 1, "done": True, "records": [record]}
    back = await salesforce(session, script.url, external_id_field="tranche_id__C").read_back(contacts(1), told())
    assert (back.seen, back.remote_ids) == ({"c0": Seen.DIFFERS}, {"c0": "003A"})


async def test_a_duplicate_rule_that_warns_is_obeyed_or_bypassed(
    session: aiohttp.ClientSession, sandbox: Sandbox
) -> None:
    await sandbox.faults(duplicate_rule={"action": "warn", "keys": ["c1"]})
    reply = await salesforce(session, sandbox.url).push(contacts(3), told())
    assert verdicts(reply) == [(OK, None), (FAILED, REJECTED), (OK, None)]
    assert "DUPLICATES_DETECTED" in reply.outcomes[1].detail
    assert "duplicate_rules=bypass" in reply.outcomes[1].detail

    bypassing = salesforce(session, sandbox.url, duplicate_rules="bypass")
    assert verdicts(await bypassing.push(contacts(3), told())) == 3 * [(OK, None)]
    await sandbox.faults(duplicate_rule={"action": "block", "keys": ["c1"]})
    assert verdicts(await bypassing.push(contacts(3), told())) == [(OK, None), (FAILED, REJECTED), (OK, None)]
