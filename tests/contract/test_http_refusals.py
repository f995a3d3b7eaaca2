"""A 2xx is not success: answers of real services that refuse, count failures or only queue, in their documented shapes.

Each was taken from the vendor's reference or from a server that was run; none of them may make a contact `ok` that the
service does not call done.
"""

from __future__ import annotations

import time
from typing import Any

import aiohttp
import pytest

from app.destinations import kinds
from app.sandbox import open_sandbox
from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.port import Health, Reply, Seen, SentRecord
from tests.contract.conftest import TOKEN, contact, contacts, told
from tests.contract.scripted import Script
from tests.contract.test_http import http
from tests.types import sent

OK, RETRY, FAILED, UNKNOWN = EffectState.OK, EffectState.RETRY, EffectState.FAILED, EffectState.UNKNOWN

MAILCHIMP = {
    "new_members": [{"email_address": "c0@example.org", "status": "subscribed"}],
    "updated_members": [],
    "errors": [{"email_address": "c1@example.org", "error": "looks fake or invalid", "error_code": "ERROR_GENERIC"}],
    "total_created": 1,
    "total_updated": 0,
    "error_count": 1,
}
"""POST /3.0/lists/{list_id}"""
BRAZE = {
    "message": "success",
    "attributes_processed": 1,
    "errors": [{"type": "'external_id' is required", "input_array": "attributes", "index": 1}],
}
"""POST /users/track"""
ITERABLE = {
    "successCount": 1,
    "failCount": 1,
    "invalidEmails": ["c1@example.org"],
    "invalidUserIds": [],
    "failedUpdates": {
        "invalidEmails": ["c1@example.org"],
        "invalidUserIds": [],
        "notFoundEmails": [],
        "conflictUserIds": [],
    },
}
"""POST /api/users/bulkUpdate"""
CUSTOMERIO = {"errors": [{"batch_index": 1, "reason": "required", "field": "identifiers.id", "message": "no id"}]}
"""POST /api/v2/batch, status 207"""


async def push(
    session: aiohttp.ClientSession,
    script: Script,
    body: Any,
    *,
    status: int = 200,
    people: list[SentRecord] | None = None,
    **options: Any,
) -> Reply:
    script.status, script.body = status, body
    return await http(session, script.url, **options).push(people or contacts(2), told())


def states(reply: Reply) -> list[EffectState]:
    return [outcome.state for outcome in reply.outcomes]


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        # Named by e-mail, index, key: failed. Whether the rest is done only an option can say.
        (200, MAILCHIMP, [UNKNOWN, FAILED]),
        (201, BRAZE, [UNKNOWN, FAILED]),
        (200, ITERABLE, [UNKNOWN, FAILED]),
        (207, CUSTOMERIO, [UNKNOWN, FAILED]),
        (200, {"failures": [{"id": "c0", "reason": "no such country"}]}, [FAILED, UNKNOWN]),
        (200, {"errors": {"c1": ["is no address"]}}, [UNKNOWN, FAILED]),
        (200, {"items": [{"id": "c0", "success": True}, {"id": "c1", "success": False}]}, [UNKNOWN, FAILED]),
        (200, [{"id": "c0", "ok": True}, {"id": "c1", "ok": False, "error": "no"}], [UNKNOWN, FAILED]),
        # CouchDB's _bulk_docs, Elasticsearch's _bulk
        (201, [{"ok": True, "id": "c0", "rev": "1-a"}, {"id": "c1", "error": "conflict"}], [UNKNOWN, FAILED]),
        (
            200,
            {
                "took": 3,
                "errors": True,
                "items": [
                    {"index": {"_id": "c0", "status": 201}},
                    {"index": {"_id": "c1", "status": 400, "error": {"type": "mapper_parsing_exception"}}},
                ],
            },
            [UNKNOWN, FAILED],
        ),
        # Nobody is named, or not all.
        (200, {"ok": False, "error": "something_broke"}, [UNKNOWN, UNKNOWN]),
        (200, {"success": False}, [UNKNOWN, UNKNOWN]),
        (200, {"success": "false", "message": "no"}, [UNKNOWN, UNKNOWN]),
        (200, {"status": "error", "message": "no"}, [UNKNOWN, UNKNOWN]),
        (200, {"error": "no"}, [UNKNOWN, UNKNOWN]),
        (200, {"errors": [{"message": "Cannot query field", "locations": [{"line": 1}]}]}, [UNKNOWN, UNKNOWN]),
        (
            200,
            {"data": {"contactsUpsert": {"contacts": None, "userErrors": [{"message": "Email is taken"}]}}},
            [UNKNOWN, UNKNOWN],
        ),
        (200, {"failCount": 1, "successCount": 1}, [UNKNOWN, UNKNOWN]),
        (200, {"error_count": 1}, [UNKNOWN, UNKNOWN]),
        (200, {"inserted": 1, "failed": 1}, [UNKNOWN, UNKNOWN]),
        (200, {"meta": {"numErrors": "1"}}, [UNKNOWN, UNKNOWN]),
        # All of them failed, so each is named.
        (200, {"failCount": 2, "successCount": 0}, [FAILED, FAILED]),
        # Queued: Meilisearch, SendGrid, Klaviyo, and the bare status
        (202, {"taskUid": 1, "indexUid": "contacts", "status": "enqueued"}, [UNKNOWN, UNKNOWN]),
        (202, {"job_id": "9ac6"}, [UNKNOWN, UNKNOWN]),
        (202, {"data": {"type": "profile-bulk-import-job", "attributes": {"status": "queued"}}}, [UNKNOWN, UNKNOWN]),
        (202, {}, [UNKNOWN, UNKNOWN]),
        (200, {"status": "queued", "id": "17"}, [UNKNOWN, UNKNOWN]),
        # Words that are no refusal
        (200, {"ok": True, "error": None, "errors": [], "failed": 0, "error_count": 0}, [OK, OK]),
        (200, {"success": True, "failures": {}, "failedUpdates": {"invalidEmails": []}}, [OK, OK]),
        (200, {"status": "success", "message": "2 contacts stored"}, [OK, OK]),
        (201, {"data": {"createContacts": {"count": 2, "userErrors": []}}, "errors": None}, [OK, OK]),
        (200, {"contacts": [{"id": "c0", "status": "failed customer"}]}, [OK, OK]),
    ],
    ids=str,
)
async def test_what_a_body_says_goes_before_its_status(
    session: aiohttp.ClientSession, script: Script, status: int, body: Any, expected: list[EffectState]
) -> None:
    reply = await push(session, script, body, status=status)

    assert states(reply) == expected
    assert all(o.detail for o in reply.outcomes if o.state != OK)


async def test_an_empty_202_is_queued_as_well(session: aiohttp.ClientSession, script: Script) -> None:
    script.raw = b""
    assert states(await push(session, script, None, status=202)) == [UNKNOWN, UNKNOWN]
    assert states(await push(session, script, None, status=202, results="ignored")) == [OK, OK]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, {"success": False, "message": "no such country"}),
        (200, {"errors": [{"message": "no such country"}]}),
        (200, {"failCount": 1, "failedUpdates": [{"reason": "no such country"}]}),
    ],
    ids=str,
)
async def test_a_refusal_of_a_call_with_one_contact_is_that_contacts(
    session: aiohttp.ClientSession, script: Script, status: int, body: Any
) -> None:
    [outcome] = (await push(session, script, body, status=status, people=contacts(1))).outcomes

    assert (outcome.state, outcome.code) == (FAILED, ErrorCode.DESTINATION_REJECTED)
    assert "no such country" in outcome.detail


@pytest.mark.parametrize("word", ["invalid_auth", "not_authed", "token_expired", "UNAUTHENTICATED"])
async def test_a_refused_token_is_a_fault_of_the_connection_also_at_200(
    session: aiohttp.ClientSession, script: Script, word: str
) -> None:
    """As Slack says it, with 200 for everything: nothing was done, and no contact is to blame."""
    reply = await push(session, script, {"ok": False, "error": word}, people=contacts(1))

    assert (states(reply), reply.health) == ([RETRY], Health.CONNECTION_FAULT)
    assert word in reply.outcomes[0].detail


async def test_a_service_that_refuses_whole_calls_is_a_fault_of_the_connection(
    session: aiohttp.ClientSession, script: Script
) -> None:
    """Or each call after it would leave a hundred contacts to an operator."""
    assert (await push(session, script, {"ok": False})).health == Health.CONNECTION_FAULT
    assert (await push(session, script, MAILCHIMP)).health == Health.WELL


async def test_the_operator_sees_the_body_without_the_token(session: aiohttp.ClientSession, script: Script) -> None:
    body = {"taskUid": 7, "you": TOKEN, "status": "enqueued", "padding": "x" * 1000}
    [outcome, _] = (await push(session, script, body, status=202)).outcomes

    assert '"taskUid": 7, "you": "***"' in outcome.detail
    assert "queued" in outcome.detail
    assert TOKEN not in outcome.detail
    assert len(outcome.detail) <= 300


async def test_half_a_token_is_not_shown_either(session: aiohttp.ClientSession, script: Script) -> None:
    """It begins within what is looked at of a long body, and would be known only by its end."""
    for place in range(1_960, 2_010):
        script.raw = b'{"ok":false,' + b" " * place + b'"you":"' + TOKEN.encode() + b'","more":"' + b"x" * 9_000 + b'"}'
        [outcome, _] = (await push(session, script, None)).outcomes
        assert TOKEN[:6] not in outcome.detail, place


@pytest.mark.parametrize("results", ["optional", "required", "failures", "echoed"])
@pytest.mark.parametrize(
    "body",
    [
        b'{"error":' * 300 + b"1" + b"}" * 300,
        b'{"errors":' + b"[" * 300 + b"]" * 300 + b"}",
        b'{"errors":[' + b'{"error":' * 300 + b'"no"' + b"}" * 300 + b"]}",
        b'{"data":' * 300 + b'{"ok":false}' + b"}" * 300,
        b'{"errors":[' + b'{"message":"no"},' * 60_000 + b'{"message":"no"}]}',
        b'{"ok":false,"padding":"' + b"x" * 4_000_000 + b'"}',
        b'{"results":[{"id":"c0","ok":true},{"id":"c1","ok":true}],"ok":false,"p":"' + b"x" * 4_000_000 + b'"}',
    ],
    ids=["error", "lists", "entries", "data", "many", "long", "results"],
)
async def test_no_body_takes_long_or_is_too_deep(
    session: aiohttp.ClientSession, script: Script, results: str, body: bytes
) -> None:
    script.raw = body
    before = time.process_time()
    reply = await push(session, script, None, people=contacts(100), results=results)
    spent = time.process_time() - before

    assert len(reply.outcomes) == 100
    assert all(len(outcome.detail) <= 300 for outcome in reply.outcomes)
    assert spent < 5.0, "megabytes are read once, not once a contact"


async def test_a_server_that_stores_the_call_as_one_record_is_not_believed(
    session: aiohttp.ClientSession, script: Script
) -> None:
    """As json-server 0.17 does: 201, and the answer is what was sent, with an id for all of it."""
    crm = http(session, script.url)
    await crm.push(contacts(2), told())
    reply = await push(session, script, {**script.bodies[0], "id": 1}, status=201)

    assert states(reply) == [UNKNOWN, UNKNOWN]
    assert "one record" in reply.outcomes[0].detail


# only failures are listed


@pytest.mark.parametrize(
    ("status", "body", "options", "expected"),
    [
        (200, MAILCHIMP, {}, [OK, FAILED]),
        (201, BRAZE, {}, [OK, FAILED]),
        (200, ITERABLE, {}, [OK, FAILED]),
        (207, CUSTOMERIO, {}, [OK, FAILED]),
        (200, {"rejected": ["c0"]}, {"results_field": "rejected"}, [FAILED, OK]),
        (
            200,
            {"bad": [{"row": 1}]},
            {"results_field": "bad", "results_by": "position", "result_id": "row"},
            [OK, FAILED],
        ),
        (200, {"bad": [{"ref": {"key": "c1"}}]}, {"results_field": "bad", "result_id": "ref.key"}, [OK, FAILED]),
        (200, {"errors": []}, {}, [OK, OK]),
        (200, {"message": "success"}, {}, [OK, OK]),
        # One failure that names nobody may be anybody's.
        (200, {"errors": [{"index": 1}, {"message": "and one more"}]}, {}, [UNKNOWN, FAILED]),
        (200, {"errors": [{"index": 7, "message": "whose?"}]}, {}, [UNKNOWN, UNKNOWN]),
        (200, {"error_count": 2, "errors": [{"index": 1}]}, {}, [FAILED, FAILED]),
        (200, {"ok": False}, {}, [UNKNOWN, UNKNOWN]),
        (202, {"message": "queued"}, {}, [UNKNOWN, UNKNOWN]),
    ],
    ids=str,
)
async def test_only_failures_are_listed(
    session: aiohttp.ClientSession,
    script: Script,
    status: int,
    body: Any,
    options: dict[str, Any],
    expected: list[EffectState],
) -> None:
    assert states(await push(session, script, body, status=status, results="failures", **options)) == expected


async def test_more_are_counted_than_named(session: aiohttp.ClientSession, script: Script) -> None:
    body = {"error_count": 2, "errors": [{"index": 1}]}
    reply = await push(session, script, body, people=contacts(3), results="failures")
    assert states(reply) == [UNKNOWN, FAILED, UNKNOWN]


async def test_a_listed_failure_says_why(session: aiohttp.ClientSession, script: Script) -> None:
    outcomes = (await push(session, script, MAILCHIMP, results="failures")).outcomes
    assert "looks fake or invalid" in outcomes[1].detail
    assert outcomes[1].code == ErrorCode.DESTINATION_REJECTED


async def test_an_address_of_two_contacts_tells_them_not_apart(session: aiohttp.ClientSession, script: Script) -> None:
    twins = [contact("c0", email="both@example.org"), contact("c1", email="Both@example.org")]
    body = {"errors": [{"email": "both@example.org", "error": "no"}]}

    assert states(await push(session, script, body, people=[*twins, contact("c2")], results="failures")) == [
        UNKNOWN,
        UNKNOWN,
        UNKNOWN,
    ]


async def test_without_a_body_nothing_is_listed(session: aiohttp.ClientSession, script: Script) -> None:
    script.raw = b""
    assert states(await push(session, script, None, status=204, results="failures")) == [OK, OK]
    script.raw = b"<html>Welcome</html>"
    assert states(await push(session, script, None, results="failures")) == [UNKNOWN, UNKNOWN]


# an echoed record is its success


@pytest.mark.parametrize(
    ("status", "body", "options", "expected"),
    [
        # Directus: the stored items; of ids that are not there PATCH says nothing at all
        (200, {"data": [{"id": "c1", "email": "c1@example.org"}]}, {"results_field": "data"}, [UNKNOWN, OK]),
        (200, {"data": []}, {"results_field": "data"}, [UNKNOWN, UNKNOWN]),
        (200, [{"id": "c0"}, {"id": "c1"}], {"results_field": ""}, [OK, OK]),
        (200, [], {"results_field": ""}, [UNKNOWN, UNKNOWN]),
        (201, ["c0", "c1"], {"results_field": ""}, [OK, OK]),
        (204, None, {}, [UNKNOWN, UNKNOWN]),
        (200, {"results": [{"id": "c0"}, {"id": "c1", "ok": False, "error": "no"}]}, {}, [OK, FAILED]),
        (200, {"results": [{"id": "c0"}, {"id": "c1", "error": "no"}]}, {}, [OK, FAILED]),
        (
            200,
            {"results": [{"key": 7, "email": "c0@example.org"}, {"key": 8, "email": "C1@example.org"}]},
            {},
            [OK, OK],
        ),
        (200, {"results": [{"n": 1}, {"n": 2}]}, {"results_by": "position"}, [OK, OK]),
        (200, {"results": [{"n": 1}]}, {"results_by": "position"}, [UNKNOWN, UNKNOWN]),
        (200, {"results": [{"id": "c0"}, {"id": "c1"}], "errors": [{"index": 1, "message": "half"}]}, {}, [OK, FAILED]),
        (200, {"results": [{"id": "c0"}, {"id": "c1"}], "success": False}, {}, [UNKNOWN, UNKNOWN]),
    ],
    ids=str,
)
async def test_an_echoed_record_is_its_success(
    session: aiohttp.ClientSession,
    script: Script,
    status: int,
    body: Any,
    options: dict[str, Any],
    expected: list[EffectState],
) -> None:
    assert states(await push(session, script, body, status=status, results="echoed", **options)) == expected


async def test_an_echo_names_the_record(session: aiohttp.ClientSession, script: Script) -> None:
    body = {"data": [{"id": 17, "ref": "c0"}, {"id": 18, "ref": "c1"}]}
    options = {"results_field": "data", "result_id": "ref", "result_remote_id": "id"}
    reply = await push(session, script, body, results="echoed", **options)

    assert [o.remote_id for o in reply.outcomes] == ["17", "18"]


async def test_what_is_taken_away_need_not_be_echoed(session: aiohttp.ClientSession, script: Script) -> None:
    gone = sent("c0", 4, deleted=True)
    crm = http(session, script.url, results="echoed", archive_path="/gone")
    script.status, script.raw = 204, b""
    assert states(await crm.archive([gone], told())) == [OK]
    script.status, script.raw = 200, b'{"success":false}'
    assert states(await crm.archive([gone], told())) == [FAILED]


# results of items, and what stands beside them


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"success": False, "results": [{"id": "c0", "ok": True}, {"id": "c1", "ok": False}]}, [OK, FAILED]),
        ({"success": False, "results": [{"id": "c0", "ok": True}, {"id": "c1", "ok": True}]}, [UNKNOWN, UNKNOWN]),
        ({"failed": 1, "results": [{"id": "c0", "ok": True}, {"id": "c1", "ok": True}]}, [UNKNOWN, UNKNOWN]),
        ({"failed": 2, "results": [{"id": "c0", "ok": True}, {"id": "c1", "ok": False}]}, [UNKNOWN, FAILED]),
        ({"errors": [{"id": "c1"}], "results": [{"id": "c0", "ok": True}, {"id": "c1", "ok": True}]}, [OK, UNKNOWN]),
        ({"results": [{"id": "c0", "ok": "queued"}, {"id": "c1", "ok": 202}]}, [UNKNOWN, UNKNOWN]),
    ],
    ids=str,
)
async def test_results_that_the_body_contradicts_are_open(
    session: aiohttp.ClientSession, script: Script, body: Any, expected: list[EffectState]
) -> None:
    for results in ("optional", "required"):
        assert states(await push(session, script, body, results=results)) == expected


async def test_a_read_that_failed_at_200_shows_nobody_absent(session: aiohttp.ClientSession, script: Script) -> None:
    """Two such looks would have everything sent again."""
    for body in ({"contacts": [], "ok": False}, {"contacts": [], "errors": [{"message": "timed out"}]}):
        script.body = body
        crm = http(session, script.url, read_path="/read")
        assert (await crm.read_back(contacts(1), told())).seen is None
    script.body = {"contacts": [{"id": "c0", "version": 1}], "errors": [{"id": "c1", "message": "timed out"}]}
    assert (await http(session, script.url, read_path="/read").read_back(contacts(2), told())).seen == {
        "c0": Seen.MATCHES
    }


# the request


@pytest.mark.parametrize("kind", ["push", "read"])
async def test_a_wrapper_with_dots_is_nested(session: aiohttp.ClientSession, script: Script, kind: str) -> None:
    crm = http(session, script.url, wrapper="data.attributes", read_path="/read")
    if kind == "push":
        await crm.push(contacts(1), told())
        [sent] = script.bodies
        assert list(sent) == ["data"]
        assert [record["id"] for record in sent["data"]["attributes"]] == ["c0"]
    else:
        script.body = {"data": {"attributes": [{"id": "c0", "version": 1}]}}
        assert (await crm.read_back(contacts(1), told())).seen == {"c0": "matches"}


@pytest.mark.parametrize("wrapper", [".", "a.", ".a", "a..b"])
def test_a_wrapper_of_empty_names_is_refused(wrapper: str) -> None:
    with pytest.raises(kinds.OptionsError, match="wrapper"):
        kinds.parse("http", {"wrapper": wrapper})


@pytest.mark.parametrize("mode", ["ok_false", "errors", "count", "task"])
@pytest.mark.parametrize("results", ["optional", "required", "failures", "echoed"])
async def test_a_stand_in_that_says_no_is_not_believed(session: aiohttp.ClientSession, mode: str, results: str) -> None:
    async with open_sandbox("http") as url:
        async with session.put(f"{url}/__sandbox__/faults", json={"says_no": {"mode": mode}}) as answer:
            assert answer.status == 200
        crm = http(session, url, results=results, read_path="/contacts/read")
        assert states(await crm.push(contacts(2), told())) == [UNKNOWN, UNKNOWN]
        assert set((await crm.read_back(contacts(2), told())).seen.values()) == {Seen.ABSENT}
