"""What is the own service's own: shapes that options describe, repeated keys, no reading back."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from app.destinations import kinds
from app.sandbox import open_sandbox
from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.http.adapter import Http
from jobs.crm.port import Health, Seen, Timeouts
from tests.contract.conftest import TOKEN, Sandbox, contact, contacts, told, with_token
from tests.contract.scripted import Script
from tests.types import CONTACTS, sent

OK, RETRY, FAILED, UNKNOWN = EffectState.OK, EffectState.RETRY, EffectState.FAILED, EffectState.UNKNOWN
GONE = sent("c0", 4, deleted=True)


@pytest.fixture
def kind() -> str:
    return "http"


def http(session: aiohttp.ClientSession, url: str, **options: Any) -> Http:
    return Http(
        resource=CONTACTS,
        session=session,
        base_url=url,
        authorizer=with_token(),
        options=options,
        timeouts=Timeouts(connect=1.0, total=2.0),
        now=lambda: datetime(2026, 3, 4, 12, 0, tzinfo=UTC),
    )


async def test_the_request_by_default(session: aiohttp.ClientSession, script: Script) -> None:
    person = contact("k1", version=3, phone=None, attributes={"tier": "gold", "tags": ["a"], "n": 1.5})
    await http(session, f"{script.url}/api/").push([person], told("req-1", "event-1"))

    [asked] = script.asked
    assert (asked.method, asked.path) == ("POST", "/api/contacts")
    assert asked.headers["Authorization"] == f"Bearer {TOKEN}"
    assert asked.headers["X-Request-ID"] == "req-1"
    assert asked.headers["X-Event-ID"] == asked.headers["Idempotency-Key"] == "event-1"
    assert asked.headers["Content-Type"] == "application/json"
    assert script.bodies == [
        {
            "contacts": [
                {
                    "id": "k1",
                    "version": 3,
                    "deleted": False,
                    "email": "k1@example.org",
                    "first_name": "Ada",
                    "last_name": "Łovelace",
                    "phone": None,
                    "company": "Analytical, Inc.",
                    "attributes": {"tier": "gold", "tags": ["a"], "n": 1.5},
                }
            ]
        }
    ]


async def test_options_give_the_request_another_shape(session: aiohttp.ClientSession, script: Script) -> None:
    crm = http(
        session,
        script.url,
        path="/v2/people/bulk",
        method="PUT",
        auth_header="X-Api-Key",
        auth_scheme="",
        wrapper=None,
        id_field="externalId",
        version_field=None,
        deleted_field="removed",
        attributes_field=None,
        fields={"first_name": "givenName", "phone": None, "tier": "plan", "secret": None},
    )
    await crm.push([contact("k1", attributes={"tier": "gold", "secret": 1, "n": 2, "removed": "clash"})], told())

    [asked] = script.asked
    assert (asked.method, asked.path) == ("PUT", "/v2/people/bulk")
    assert asked.headers["X-Api-Key"] == TOKEN
    assert "Authorization" not in asked.headers
    assert script.bodies == [
        [
            {
                "externalId": "k1",
                "removed": False,
                "email": "k1@example.org",
                "givenName": "Ada",
                "last_name": "Łovelace",
                "company": "Analytical, Inc.",
                "plan": "gold",
                "n": 2,
            }
        ]
    ]


async def test_mapped_attributes_leave_the_object_of_attributes(session: aiohttp.ClientSession, script: Script) -> None:
    crm = http(session, script.url, fields={"tier": "plan", "secret": None})
    await crm.push([contact("k1", attributes={"tier": "gold", "secret": 1, "n": 2})], told())

    [sent] = script.bodies[0]["contacts"]
    assert (sent["plan"], sent["attributes"]) == ("gold", {"n": 2})


@pytest.mark.parametrize(
    ("options", "status", "raw", "states"),
    [
        ({}, 204, b"", [OK, OK]),
        ({}, 200, b"", [OK, OK]),
        ({}, 200, b"{}", [OK, OK]),
        ({}, 200, b'{"accepted":2}', [OK, OK]),
        ({}, 200, b"OK", [UNKNOWN, UNKNOWN]),
        ({}, 200, b'{"results":null}', [UNKNOWN, UNKNOWN]),
        ({}, 200, b'{"results":[]}', [UNKNOWN, UNKNOWN]),
        ({"results": "required"}, 204, b"", [UNKNOWN, UNKNOWN]),
        ({"results": "required"}, 200, b"{}", [UNKNOWN, UNKNOWN]),
        ({"results": "ignored"}, 200, b"OK", [OK, OK]),
        ({"results": "ignored"}, 200, b'{"results":[{"id":"c0","ok":false}]}', [OK, OK]),
        ({}, 207, b'{"results":[{"id":"c1","ok":true},{"id":"c0","ok":false,"error":"no"}]}', [FAILED, OK]),
        ({}, 200, b'{"results":[{"id":"c1","ok":true}]}', [UNKNOWN, OK]),
        ({}, 200, b'{"results":[{"id":"c1","ok":true},{"id":"c1","ok":false}]}', [UNKNOWN, UNKNOWN]),
        ({}, 200, b'{"results":[{"id":"c0","ok":true},{"id":"zz","ok":true},7]}', [OK, UNKNOWN]),
        (
            {"results_by": "position"},
            200,
            b'{"results":[{"ok":true},{"ok":false,"error":{"message":"no"}}]}',
            [OK, FAILED],
        ),
        ({"results_by": "position"}, 200, b'{"results":[{"ok":true}]}', [UNKNOWN, UNKNOWN]),
        (
            {"results_field": "", "result_id": "key", "result_ok": "status"},
            200,
            b'[{"key":"c0","status":"created"},{"key":"c1","status":"failed"}]',
            [OK, FAILED],
        ),
        (
            {"results_field": "data.items", "result_id": "meta.id", "result_ok": "code"},
            200,
            b'{"data":{"items":[{"meta":{"id":"c0"},"code":201},{"meta":{"id":"c1"},"code":429}]}}',
            [OK, RETRY],
        ),
        ({"result_ok": "code"}, 200, b'{"results":[{"id":"c0","code":503},{"id":"c1","code":500}]}', [RETRY, UNKNOWN]),
        (
            {"result_ok": "code"},
            200,
            b'{"results":[{"id":"c0","code":"404"},{"id":"c1","code":"retry"}]}',
            [FAILED, RETRY],
        ),
        ({}, 200, b'{"results":[{"id":"c0","ok":false,"retry":true},{"id":"c1","error":"bad"}]}', [RETRY, FAILED]),
        ({}, 200, b'{"results":[{"id":"c0"},{"id":"c1","ok":null}]}', [UNKNOWN, UNKNOWN]),
    ],
)
async def test_an_answer_is_read_as_the_options_say(
    session: aiohttp.ClientSession,
    script: Script,
    options: dict[str, Any],
    status: int,
    raw: bytes,
    states: list[EffectState],
) -> None:
    script.status, script.raw = status, raw
    reply = await http(session, script.url, **options).push(contacts(2), told())

    assert [o.state for o in reply.outcomes] == states
    assert all(o.detail for o in reply.outcomes if o.state != OK)
    assert all(o.code == ErrorCode.DESTINATION_REJECTED for o in reply.outcomes if o.state == FAILED)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("no such country", "no such country"),
        ({"code": "E7", "message": "no such country"}, "E7: no such country"),
        (["first", {"message": "second"}], "first; second"),
        ({"field": "country"}, '{"field":"country"}'),
        (17, "17"),
    ],
    ids=str,
)
async def test_what_is_wrong_with_a_contact_is_told_in_the_services_words(
    session: aiohttp.ClientSession, script: Script, error: object, words: str
) -> None:
    script.body = {"results": [{"id": "c0", "ok": False, "error": error}]}
    reply = await http(session, script.url).push(contacts(1), told())

    assert reply.outcomes[0].detail == f"The destination rejected this record: {words}"


@pytest.mark.parametrize(
    ("status", "headers", "state", "health", "pause"),
    [
        (429, {"Retry-After": "12"}, RETRY, Health.WELL, 12),
        (429, {}, RETRY, Health.WELL, 10),
        (503, {"Retry-After": "Wed, 04 Mar 2026 12:01:00 GMT"}, RETRY, Health.CRM_FAULT, 60),
        (503, {}, RETRY, Health.CRM_FAULT, None),
        (409, {"Retry-After": "3"}, RETRY, Health.WELL, 3),
        (409, {}, FAILED, Health.WELL, None),
        (422, {}, FAILED, Health.WELL, None),
        (404, {}, RETRY, Health.CONNECTION_FAULT, None),
        (500, {}, UNKNOWN, Health.CRM_FAULT, None),
    ],
)
async def test_a_status_speaks_for_the_whole_call(
    session: aiohttp.ClientSession,
    script: Script,
    status: int,
    headers: dict[str, str],
    state: EffectState,
    health: Health,
    pause: float | None,
) -> None:
    script.status, script.headers = status, headers
    script.body = {"title": "Not now", "detail": "because", "error": {"message": "of that"}}
    reply = await http(session, script.url).push(contacts(1), told())

    assert (reply.outcomes[0].state, reply.health) == (state, health)
    assert (reply.pause.seconds if reply.pause else None) == pause
    assert reply.detail == f"The destination answered {status}: of that: Not now: because"


async def test_without_read_path_and_promise_a_human_must_settle_a_lost_answer(session: aiohttp.ClientSession) -> None:
    plain, promising = http(session, "http://x"), http(session, "http://x", idempotent=True)
    reading = http(session, "http://x", read_path="/read")

    assert (plain.reads_back, plain.repeatable) == (False, False)
    assert (promising.reads_back, promising.repeatable) == (False, True)
    assert (reading.reads_back, reading.repeatable) == (True, False)


async def test_a_repeated_call_is_not_done_again(session: aiohttp.ClientSession, sandbox: Sandbox) -> None:
    """The promise behind `idempotent`: after a lost answer the same call may simply be sent once more."""
    crm = http(session, sandbox.url, idempotent=True, results="required")
    await sandbox.faults(accept_then_drop={"times": 1})
    lost = await crm.push(contacts(3), told("one", "event-7"))
    again = await crm.push(contacts(3), told("two", "event-7"))

    assert {o.state for o in lost.outcomes} == {UNKNOWN}
    assert [(o.record_id, o.state) for o in again.outcomes] == [(f"c{n}", OK) for n in range(3)]
    assert {e["request_id"] for e in await sandbox.effects()} == {"one"}
    assert (await sandbox.get("idempotency")) == {
        "keys": [{"key": "event-7", "calls": 2, "replayed": 1}],
        "replayed": 1,
    }


async def test_a_key_outlives_a_restart_of_the_stand_in(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    path = tmp_path / "effects.jsonl"
    for turn in (1, 2):
        async with open_sandbox("http", ledger_path=path) as url:
            reply = await http(session, url, results="required").push(contacts(3), told(event_id="event-7"))
            assert {o.state for o in reply.outcomes} == {OK}
            sandbox = Sandbox("http", url, session)
            assert len(await sandbox.effects()) == 3
            assert (await sandbox.get("idempotency"))["replayed"] == turn - 1


async def test_one_key_for_two_calls_is_refused(session: aiohttp.ClientSession, sandbox: Sandbox) -> None:
    crm = http(session, sandbox.url)
    await crm.push(contacts(2), told(event_id="event-7"))
    reply = await crm.push([contact("c0", version=2)], told(event_id="event-7"))

    assert reply.outcomes[0].state == FAILED
    assert "Idempotency-Key" in reply.outcomes[0].detail


async def test_an_answer_that_asks_for_more_is_not_kept_for_the_key(
    session: aiohttp.ClientSession, sandbox: Sandbox
) -> None:
    crm = http(session, sandbox.url)
    await sandbox.faults(reject={"keys": ["c1"], "passing": True, "times": 1})
    first = await crm.push(contacts(2), told(event_id="event-7"))
    second = await crm.push(contacts(2), told(event_id="event-7"))

    assert [o.state for o in first.outcomes] == [OK, RETRY]
    assert [o.state for o in second.outcomes] == [OK, OK]


async def test_a_put_is_not_sent_twice_by_the_http_client(session: aiohttp.ClientSession, sandbox: Sandbox) -> None:
    """aiohttp repeats "idempotent" methods by itself when a kept connection ends; only we may decide that."""
    crm = http(session, sandbox.url, method="PUT")
    await crm.push(contacts(1), told())
    await sandbox.faults(accept_then_drop={"times": 1})
    reply = await crm.push([contact("c0", version=2)], told())

    assert reply.outcomes[0].state == UNKNOWN
    assert [c["answered"] for c in await sandbox.calls()] == [True, False]


async def test_a_newer_version_over_there_matches_and_an_older_one_does_not_win(
    session: aiohttp.ClientSession, sandbox: Sandbox
) -> None:
    crm = http(session, sandbox.url, read_path="/contacts/read")
    await crm.push([contact("c0", version=5, phone="5")], told())
    await crm.push([contact("c0", version=4, phone="4")], told())

    back = await crm.read_back([contact("c0", version=4), contact("c1")], told())
    assert back.seen == {"c0": Seen.MATCHES, "c1": Seen.ABSENT}
    assert (await crm.read_back([contact("c0", version=6)], told())).seen == {"c0": Seen.DIFFERS}
    assert [c["properties"]["phone"] for c in (await sandbox.get("contacts"))["contacts"]] == ["5"]


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        ({"contacts": []}, Seen.ABSENT),
        ({"contacts": [], "missing": []}, None),
        ({"contacts": [], "missing": ["c0"]}, Seen.ABSENT),
        ({"contacts": [{"id": "c0", "version": 9, "deleted": True}]}, Seen.ABSENT),
        ({"contacts": [{"id": "c0", "version": 1}]}, Seen.MATCHES),
        ({"contacts": [{"id": "c0", "version": 0}]}, Seen.DIFFERS),
        ({"contacts": [{"id": "c0", "version": "9"}]}, Seen.DIFFERS),
        (
            {
                "contacts": [
                    {
                        "id": "c0",
                        "email": "C0@example.org",
                        "first_name": "Ada",
                        "last_name": "Łovelace",
                        "phone": "001-808-617-6467x12895",
                        "company": "Analytical, Inc.",
                        "attributes": {},
                    }
                ]
            },
            Seen.MATCHES,
        ),
    ],
    ids=str,
)
async def test_a_record_is_compared_by_version_or_field_by_field(
    session: aiohttp.ClientSession, script: Script, body: Any, seen: Seen | None
) -> None:
    script.body = body
    back = await http(session, script.url, read_path="/read").read_back(contacts(1), told())

    assert back.seen == ({} if seen is None else {"c0": seen})
    assert script.bodies == [{"ids": ["c0"]}]


async def test_without_archive_path_a_deletion_goes_the_ordinary_way(
    session: aiohttp.ClientSession, sandbox: Sandbox, script: Script
) -> None:
    await http(session, script.url).archive([GONE], told(event_id="event-9"))
    assert (script.asked[0].path, script.bodies) == (
        "/contacts",
        [{"contacts": [{"id": "c0", "version": 4, "deleted": True}]}],
    )
    assert script.asked[0].headers["Idempotency-Key"] == "event-9"

    crm = http(session, sandbox.url)
    await crm.push(contacts(2), told())
    assert (await crm.archive([GONE], told())).outcomes[0].state == OK
    assert [c["key"] for c in (await sandbox.get("contacts"))["contacts"]] == ["c1"]


async def test_with_archive_path_ids_are_sent_there(session: aiohttp.ClientSession, script: Script) -> None:
    script.body = {"results": [{"id": "c0", "ok": 404}]}
    reply = await http(session, script.url, archive_path="/gone", method="PUT").archive([GONE], told())

    assert (script.asked[0].method, script.asked[0].path, script.bodies) == ("POST", "/gone", [{"ids": ["c0"]}])
    assert reply.outcomes[0].state == OK, "what is not there is gone"


async def test_a_service_that_knows_no_deletion_says_so(session: aiohttp.ClientSession, script: Script) -> None:
    reply = await http(session, script.url, deleted_field=None).archive([GONE], told())

    assert reply.outcomes[0].state == FAILED
    assert "archive_path" in reply.outcomes[0].detail
    assert script.asked == []


async def test_many_calls_at_once_each_get_their_own_answer(session: aiohttp.ClientSession, sandbox: Sandbox) -> None:
    crm = http(session, sandbox.url, results="required")
    batches = [[contact(f"{n}-{i}") for i in range(10)] for n in range(8)]
    replies = await asyncio.gather(*(crm.push(batch, told()) for batch in batches))

    for batch, reply in zip(batches, replies, strict=True):
        assert [(o.record_id, o.state) for o in reply.outcomes] == [(c.record_id, OK) for c in batch]


@pytest.mark.parametrize(
    "options",
    [
        {"method": "GET"},
        {"path": "no-slash"},
        {"path": "/a?b=c"},
        {"read_path": "/a b"},
        {"auth_header": "Content-Length"},
        {"auth_header": "X Key"},
        {"auth_scheme": "Two Words"},
        {"id_field": "version"},
        {"results": "maybe"},
        {"results_by": "luck"},
        {"fields": {"phone": "version"}},
        {"idempotent": "yes"},
        {"batch_size": 1001},
    ],
    ids=str,
)
def test_options_that_cannot_work_are_refused_with_their_name(options: dict[str, Any]) -> None:
    [name] = options
    with pytest.raises(kinds.OptionsError, match=name):
        kinds.parse("http", options)


async def test_a_service_that_is_not_told_our_version_has_one_of_its_own(
    session: aiohttp.ClientSession, script: Script
) -> None:
    """Its number says nothing about our contact: what it holds does."""
    crm = http(session, script.url, read_path="/read", version_field=None)
    person = contact("k1")
    script.body = {"contacts": [{"id": "k1", "version": 17, "email": "old@example.org"}]}
    assert (await crm.read_back([person], told())).seen == {"k1": Seen.DIFFERS}
    await crm.push([person], told())
    [sent] = script.bodies[-1]["contacts"]
    script.body = {"contacts": [sent | {"version": 1}]}
    assert (await crm.read_back([person], told())).seen == {"k1": Seen.MATCHES}


async def test_no_text_of_a_strangers_list_is_shown(session: aiohttp.ClientSession, script: Script) -> None:
    """Options could make an answer of any service into item results: its fields were told as errors of ours."""
    secret = "wJalrXUtnFEMI"
    script.body = {"roles": [{"SecretAccessKey": secret, "id": "r1"}], "message": secret, "error": {"key": secret}}
    chosen: tuple[dict[str, Any], ...] = (
        {"results_field": "roles", "results_by": "position", "result_ok": "no", "result_error": "SecretAccessKey"},
        {"results_field": "roles", "results_by": "position", "result_ok": "SecretAccessKey"},
        {"results_field": "roles", "result_error": "SecretAccessKey"},
        {"results_field": "error", "result_error": "key"},
        {"results": "required"},
    )
    for options in chosen:
        reply = await http(session, script.url, **options).push(contacts(1), told())
        shown = [reply.detail, *(outcome.detail for outcome in reply.outcomes)]
        assert not any(secret in words for words in shown), (options, shown)


async def test_an_error_that_is_no_text_is_not_shown_as_json(session: aiohttp.ClientSession, script: Script) -> None:
    script.body = {"results": [{"id": "c0", "ok": False, "error": {"internal": {"token": "abc"}}}]}
    reply = await http(session, script.url).push(contacts(1), told())
    assert reply.outcomes[0].detail == "The destination rejected this record"
