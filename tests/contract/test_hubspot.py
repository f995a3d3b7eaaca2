"""What is HubSpot's own: policies, trace ids, whole-batch refusals, options; partly against scripted answers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest

from app.sandbox import open_sandbox
from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.hubspot.adapter import HubSpot
from jobs.crm.hubspot.fields import property_name
from jobs.crm.port import Headers, Health, Seen, Timeouts
from tests.contract.conftest import TOKEN, Sandbox, contact, contacts, with_token
from tests.contract.scripted import Script
from tests.types import CONTACTS, sent

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)


@pytest.fixture
def kind() -> str:
    return "hubspot"


def hubspot(session: aiohttp.ClientSession, url: str, **options: Any) -> HubSpot:
    return HubSpot(
        resource=CONTACTS,
        session=session,
        base_url=url,
        authorizer=with_token(),
        options=options,
        timeouts=Timeouts(connect=1.0, total=2.0),
        now=lambda: NOON,
    )


def result(key: str | None = None, trace: str | None = None, remote: str | None = "77") -> dict[str, Any]:
    found: dict[str, Any] = {"id": remote, "properties": {} if key is None else {"tranche_id": key}}
    return found if trace is None else found | {"objectWriteTraceId": trace}


@pytest.mark.parametrize(
    ("policy", "retry_after", "zone", "seconds"),
    [
        ("SECONDLY", None, "UTC", 1),
        ("TEN_SECONDLY_ROLLING", None, "UTC", 10),
        ("DAILY", None, "UTC", 12 * 3600 + 1),
        ("DAILY", None, "America/New_York", 17 * 3600 + 1),
        ("DAILY", "90", "UTC", 90),
        ("DAILY", "Wed, 04 Mar 2026 13:00:00 GMT", "UTC", 3600),
        ("SECONDLY", "Wed, 04 Mar 2026 11:00:00 GMT", "UTC", 0.5),
        ("SECONDLY", "999999999", "UTC", 90_000),
        ("SECONDLY", "soon", "UTC", 1),
        ("A_NEW_ONE", None, "UTC", 10),
        (None, None, "UTC", 10),
    ],
)
async def test_each_policy_has_its_own_pause(
    session: aiohttp.ClientSession,
    script: Script,
    policy: str | None,
    retry_after: str | None,
    zone: str,
    seconds: float,
) -> None:
    script.status = 429
    script.body = {"status": "error", "message": "You have reached your limit.", "policyName": policy}
    script.headers = {} if retry_after is None else {"Retry-After": retry_after}
    reply = await hubspot(session, script.url, time_zone=zone).push([contact("c0")], Headers("r", "event-1"))

    assert reply.pause is not None
    assert reply.pause.seconds == pytest.approx(seconds)
    assert "You have reached your limit." in reply.pause.detail
    assert reply.health == Health.WELL


async def test_a_batch_refused_as_a_whole_condemns_nobody_yet(session: aiohttp.ClientSession, sandbox: Sandbox) -> None:
    twice = [contact("c1"), contact("c2"), contact("c1", phone="1")]
    reply = await hubspot(session, sandbox.url).push(twice, Headers("r", "event-1"))

    assert reply.rejected_whole
    assert {(o.state, o.code) for o in reply.outcomes} == {(EffectState.RETRY, ErrorCode.DESTINATION_REJECTED)}
    assert reply.health == Health.WELL
    assert "Duplicate IDs found" in reply.detail
    assert await sandbox.effects() == []


@pytest.mark.parametrize("status", [400, 409, 413, 414, 422])
async def test_a_single_contact_that_is_refused_has_failed(
    session: aiohttp.ClientSession, script: Script, status: int
) -> None:
    script.status, script.body = status, {"message": "no", "errors": [{"message": "phone is odd"}]}
    reply = await hubspot(session, script.url).push([contact("c0")], Headers("r", "event-1"))

    assert not reply.rejected_whole
    assert (reply.outcomes[0].state, reply.outcomes[0].code) == (EffectState.FAILED, ErrorCode.DESTINATION_REJECTED)
    assert reply.outcomes[0].detail == f"HubSpot answered {status}: no; phone is odd"


async def test_a_move_of_the_account_is_a_pause(session: aiohttp.ClientSession, script: Script) -> None:
    script.status, script.headers = 477, {"Retry-After": "120"}
    reply = await hubspot(session, script.url).push([contact("c0")], Headers("r", "event-1"))

    assert reply.pause is not None
    assert reply.pause.seconds == 120
    assert reply.health == Health.WELL


OK, UNKNOWN, FAILED = EffectState.OK, EffectState.UNKNOWN, EffectState.FAILED
NO = {"status": "error", "category": "VALIDATION_ERROR", "message": "bad phone"}


@pytest.mark.parametrize(
    ("body", "states"),
    [
        ({"results": [result("c1", "1"), result("c0", "0")]}, [OK, OK]),
        ({"results": [result("c1"), result("c0")]}, [OK, OK]),
        ({"results": [result(None, "1"), result(None, "0")]}, [OK, OK]),
        ({"results": [result(), result()]}, [UNKNOWN, UNKNOWN]),
        ({"results": [result("c0", "1"), result("c1", "1")]}, [UNKNOWN, OK]),
        ({"results": [result("c0", remote=None), result("c1")]}, [UNKNOWN, OK]),
        ({"results": [None, 7, "c0", {"id": "1"}, {"id": "2", "properties": []}]}, [UNKNOWN, UNKNOWN]),
        ({"results": [result("c9", "9"), result("c0", "-1")], "errors": "all well"}, [OK, UNKNOWN]),
        ({"results": [result("c0")], "errors": [NO | {"context": {"objectWriteTraceId": ["1"]}}]}, [OK, FAILED]),
        ({"results": [], "errors": [NO | {"context": {"objectWriteTraceId": ["1", "0"]}}]}, [FAILED, FAILED]),
        ({"results": [result("c0")], "errors": [NO]}, [OK, FAILED]),
        ({"results": [], "errors": [NO]}, [UNKNOWN, UNKNOWN]),
        ({"results": [], "errors": [NO | {"context": {"objectWriteTraceId": ["7", None, 1]}}]}, [UNKNOWN, UNKNOWN]),
        (
            {"results": [result("c0"), result("c1")], "errors": [NO | {"context": {"objectWriteTraceId": ["1"]}}]},
            [OK, UNKNOWN],
        ),
    ],
)
async def test_results_and_errors_are_matched_by_name_never_by_place(
    session: aiohttp.ClientSession, script: Script, body: dict[str, Any], states: list[EffectState]
) -> None:
    """What cannot be matched for certain is unknown: a guess would be a lie in one case of two."""
    script.status, script.body = 207, body
    reply = await hubspot(session, script.url).push(contacts(2), Headers("r", "event-1"))

    assert [o.state for o in reply.outcomes] == states


async def test_the_request_names_itself_and_the_token_stays_out_of_every_word(
    session: aiohttp.ClientSession, script: Script
) -> None:
    script.status, script.body = 401, {"message": f"the token\n{TOKEN} is expired " + "x" * 500}
    reply = await hubspot(session, script.url).push([contact("c0")], Headers("req\r\nX-Evil: 1 é", "event-1"))

    [asked] = script.asked
    assert asked.headers["Authorization"] == f"Bearer {TOKEN}"
    assert asked.headers["X-Request-ID"] == "reqX-Evil: 1"
    assert asked.headers["User-Agent"].startswith("tranche")
    assert TOKEN not in reply.detail
    assert reply.detail.startswith("HubSpot answered 401: the token *** is expired")
    assert len(reply.detail) == 300


async def test_a_redirect_is_not_followed_with_the_token(session: aiohttp.ClientSession, script: Script) -> None:
    script.status, script.headers = 307, {"Location": f"{script.url}/elsewhere"}
    reply = await hubspot(session, script.url).push([contact("c0")], Headers("r", "event-1"))

    assert len(script.asked) == 1
    assert reply.health == Health.CONNECTION_FAULT


async def test_options_name_the_key_and_the_properties(session: aiohttp.ClientSession, sandbox: Sandbox) -> None:
    crm = hubspot(session, sandbox.url, id_property="crm_key", properties={"Plan": "subscription_tier", "Notes": None})
    person = contact("k1", attributes={"Plan": "gold", "Notes": "stay here", "Last Seen (UTC)": 5, "Phone": "ignored"})
    await crm.push([person], Headers("r", "event-1"))

    [effect] = await sandbox.effects()
    assert (effect["key_property"], effect["key"]) == ("crm_key", "k1")
    assert effect["properties"] == {
        "crm_key": "k1",
        "email": "k1@example.org",
        "firstname": "Ada",
        "lastname": "Łovelace",
        "phone": "001-808-617-6467x12895",
        "company": "Analytical, Inc.",
        "subscription_tier": "gold",
        "last_seen_utc": "5",
    }
    assert (await crm.read_back([person], Headers("r", "event-1"))).seen == {"k1": Seen.MATCHES}


@pytest.mark.parametrize(
    "options",
    [
        {"id_property": "email"},
        {"id_property": ""},
        {"id_property": 5},
        {"properties": ["a"]},
        {"properties": {"a": 1}},
        {"time_zone": "Mars/Olympus"},
        {"time_zone": "../etc/passwd"},
    ],
    ids=str,
)
async def test_options_that_cannot_work_are_refused_in_words(
    session: aiohttp.ClientSession, options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"id_property|properties|time_zone"):
        hubspot(session, "http://127.0.0.1:1", **options)


@pytest.mark.parametrize(
    ("attribute", "name"),
    [("Subscription Date", "subscription_date"), ("a-b--c", "a_b_c"), ("_X_", "x"), ("名前", "名前"), ("2nd", "2nd")],
)
def test_attributes_take_hubspots_kind_of_name(attribute: str, name: str) -> None:
    assert property_name(attribute) == name


@pytest.mark.parametrize(
    ("ours", "theirs", "seen"),
    [
        (5, "5.0", Seen.MATCHES),
        (5, "5.1", Seen.DIFFERS),
        ("5", "5.0", Seen.DIFFERS),
        (True, "True", Seen.MATCHES),
        (" x ", "x", Seen.MATCHES),
        ("x", "X", Seen.DIFFERS),
        (None, None, Seen.MATCHES),
        ("", None, Seen.MATCHES),
        (7, None, Seen.DIFFERS),
    ],
)
async def test_read_back_forgives_what_hubspot_rewrites_and_nothing_else(
    session: aiohttp.ClientSession, script: Script, ours: object, theirs: str | None, seen: Seen
) -> None:
    person = sent("c0", 1, email="A@B.c", attributes={"it": ours})
    script.body = {"results": [{"id": "1", "properties": {"tranche_id": "c0", "email": "a@b.c", "it": theirs}}]}

    assert (await hubspot(session, script.url).read_back([person], Headers("r", "event-1"))).seen == {"c0": seen}


async def test_portals_are_accounts_of_their_own(session: aiohttp.ClientSession) -> None:
    async with open_sandbox("hubspot", fields=["tranche_id"]) as url:
        left, right = (hubspot(session, f"{url}/portal/{name}/") for name in ("left", "right"))
        await left.push([contact("c0")], Headers("r", "event-1"))

        assert (await left.read_back([contact("c0")], Headers("r", "event-1"))).seen == {"c0": Seen.MATCHES}
        assert (await right.read_back([contact("c0")], Headers("r", "event-1"))).seen == {"c0": Seen.ABSENT}
