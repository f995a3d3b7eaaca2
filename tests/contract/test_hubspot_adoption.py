"""Contacts that HubSpot has already by their e-mail address: taken over, and never from another of ours."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from app.destinations import kinds
from app.sandbox import open_sandbox
from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.hubspot.adapter import HubSpot
from jobs.crm.port import Health, Timeouts
from tests.contract.conftest import Sandbox, contact, contacts, told, with_token
from tests.contract.scripted import Script
from tests.types import CONTACTS, sent

OK, FAILED, RETRY, UNKNOWN = EffectState.OK, EffectState.FAILED, EffectState.RETRY, EffectState.UNKNOWN
HEADERS = {"Authorization": "Bearer t"}
BASE = "/crm/v3/objects/contacts/batch"


@pytest.fixture
def kind() -> str:
    return "hubspot"


@pytest.fixture
async def sandbox(kind: str, session: aiohttp.ClientSession) -> AsyncIterator[Sandbox]:
    async with open_sandbox(kind, fields=["tranche_id"]) as url:
        yield Sandbox(kind, url, session)


def hubspot(session: aiohttp.ClientSession, url: str, **options: Any) -> HubSpot:
    timeouts = Timeouts(connect=1.0, total=2.0)
    return HubSpot(
        resource=CONTACTS, session=session, base_url=url, authorizer=with_token(), options=options, timeouts=timeouts
    )


async def have(sandbox: Sandbox, *rows: dict[str, str]) -> list[str]:
    """Contacts that are there before; gives their record ids."""
    inputs = [{"properties": row, "objectWriteTraceId": str(n)} for n, row in enumerate(rows)]
    async with sandbox.session.post(
        f"{sandbox.url}{BASE}/create", json={"inputs": inputs}, headers=HEADERS
    ) as response:
        assert response.status == 201, await response.text()
        results = (await response.json())["results"]
    traced = {r["objectWriteTraceId"]: str(r["id"]) for r in results}
    return [traced[str(n)] for n in range(len(rows))]


async def paths(sandbox: Sandbox, since: int) -> list[str]:
    return [c["path"].rsplit("/", 1)[1] for c in (await sandbox.calls())[since:]]


async def records(sandbox: Sandbox) -> dict[str, dict[str, Any]]:
    return {c["id"]: c["properties"] for c in (await sandbox.get("contacts"))["contacts"]}


async def test_a_contact_known_by_its_address_is_taken_over(session: aiohttp.ClientSession, sandbox: Sandbox) -> None:
    [there] = await have(sandbox, {"email": "C1@Example.org", "city": "Turin", "firstname": "Augusta"})
    crm = hubspot(session, sandbox.url)
    reply = await crm.push(contacts(3), told())

    assert [(o.state, o.created) for o in reply.outcomes] == [(OK, True), (OK, False), (OK, True)]
    assert (reply.outcomes[1].remote_id, reply.health, reply.pause) == (there, Health.WELL, None)
    assert await paths(sandbox, 1) == ["upsert", "read", "update"]
    held = await records(sandbox)
    assert len(held) == 3
    assert (held[there]["tranche_id"], held[there]["firstname"], held[there]["city"]) == ("c1", "Ada", "Turin")
    effects = await sandbox.effects()
    assert [(e["key"], e["id"], e["created"]) for e in effects if e["key"] == "c1"] == [("c1", there, False)]

    # From now on it is ours, and costs a call like any other.
    assert (await crm.push([contact("c1", phone="2")], told())).outcomes[0].remote_id == there
    assert await paths(sandbox, 4) == ["upsert"]


async def test_a_whole_account_is_taken_over_at_two_calls_a_batch(
    session: aiohttp.ClientSession, sandbox: Sandbox
) -> None:
    """From the first batch on: contacts are looked for before they are refused."""
    for start in range(0, 300, 100):
        await have(sandbox, *({"email": f"c{n}@example.org"} for n in range(start, start + 100)))
    crm = hubspot(session, sandbox.url)
    for start in range(0, 300, 100):
        before = len(await sandbox.calls())
        reply = await crm.push(contacts(300)[start : start + 100], told())
        assert {o.state for o in reply.outcomes} == {OK}
        assert await paths(sandbox, before) == ["read", "update"]
    held = await records(sandbox)
    assert len(held) == 300
    assert {p["tranche_id"] for p in held.values()} == {f"c{n}" for n in range(300)}

    # New ones again: nothing is looked for in vain for long.
    newcomers = [contact(f"n{n}") for n in range(100)]
    before = len(await sandbox.calls())
    assert {o.state for o in (await crm.push(newcomers[:50], told())).outcomes} == {OK}
    assert {o.state for o in (await crm.push(newcomers[50:], told())).outcomes} == {OK}
    assert await paths(sandbox, before) == ["read", "upsert", "upsert"]


async def test_a_batch_of_which_hubspot_has_some_costs_three_calls(
    session: aiohttp.ClientSession, sandbox: Sandbox
) -> None:
    """One to know whose they are, one to update those by record id, one to create the others."""
    crm = hubspot(session, sandbox.url)
    for start in range(0, 300, 100):
        await have(sandbox, *({"email": f"c{n}@example.org"} for n in range(start, start + 100, 3)))
        before = len(await sandbox.calls())
        reply = await crm.push(contacts(300)[start : start + 100], told())
        assert {o.state for o in reply.outcomes} == {OK}
        assert sorted(await paths(sandbox, before)) == ["read", "update", "upsert"]
    assert len(await records(sandbox)) == 300


async def test_a_few_contacts_are_not_looked_for(session: aiohttp.ClientSession, sandbox: Sandbox) -> None:
    crm = hubspot(session, sandbox.url)
    for n in range(3):
        assert (await crm.push([contact(f"c{n}")], told())).outcomes[0].state == OK
    assert await paths(sandbox, 0) == ["upsert"] * 3


@pytest.mark.parametrize("status", [400, 403, 404, 409])
async def test_a_look_that_is_refused_says_nothing_against_the_write(
    session: aiohttp.ClientSession, script: Script, status: int
) -> None:
    """A token may write contacts and not read them."""
    crm = hubspot(session, script.url)
    script.answers = [
        (status, {"message": "no"}),
        wrote(*((str(n), f"c{n}") for n in range(100))),
        wrote(*((str(n), f"c{n}") for n in range(100))),
    ]
    for _ in range(2):
        assert {o.state for o in (await crm.push(contacts(100), told())).outcomes} == {OK}
    assert script.answers == []


async def test_a_look_that_fails_leaves_nothing_in_doubt(session: aiohttp.ClientSession, script: Script) -> None:
    """Nothing was written, so nobody has to be read back."""
    script.answers = [(500, {})]
    reply = await hubspot(session, script.url).push(contacts(60), told())
    codes = {(o.state, o.code) for o in reply.outcomes}
    assert codes == {(RETRY, ErrorCode.DESTINATION_UNAVAILABLE)}


async def test_a_look_that_has_to_wait_says_why(session: aiohttp.ClientSession, script: Script) -> None:
    known = [contact(f"k{n}", remote_id=f"9{n}") for n in range(3)]
    script.answers = [(423, {"message": "locked"})]
    reply = await hubspot(session, script.url).push([*contacts(97), *known], told())
    assert {(o.state, o.code) for o in reply.outcomes} == {(RETRY, ErrorCode.DESTINATION_UNAVAILABLE)}
    assert reply.pause is not None
    assert script.answers == []


async def test_a_contact_is_never_taken_from_another_of_ours(session: aiohttp.ClientSession, sandbox: Sandbox) -> None:
    crm = hubspot(session, sandbox.url)
    first = await crm.push([contact("a", email="same@example.org")], told())
    there = first.outcomes[0].remote_id
    twins = [contact("b", email="Same@Example.org"), contact("c"), contact("d", email="new@example.org")]
    reply = await crm.push([*twins, contact("e", email="new@example.org")], told())

    assert [(o.state, o.code) for o in reply.outcomes] == [
        (FAILED, ErrorCode.DESTINATION_REJECTED),
        (OK, None),
        (OK, None),
        (FAILED, ErrorCode.DESTINATION_REJECTED),
    ]
    assert f"record {there}" in reply.outcomes[0].detail
    assert '"a"' in reply.outcomes[0].detail
    assert '"d"' in reply.outcomes[3].detail
    assert {p["tranche_id"] for p in (await records(sandbox)).values()} == {"a", "c", "d"}


async def test_two_of_ours_cannot_take_over_one_contact(session: aiohttp.ClientSession, sandbox: Sandbox) -> None:
    [there] = await have(sandbox, {"email": "same@example.org"})
    twins = [contact("a", email="same@example.org"), contact("b", email="same@example.org")]
    reply = await hubspot(session, sandbox.url).push(twins, told())

    assert [o.state for o in reply.outcomes] == [OK, FAILED]
    assert '"a"' in reply.outcomes[1].detail
    assert (await records(sandbox))[there]["tranche_id"] == "a"


async def test_a_contact_of_ours_does_not_move_to_another_record(
    session: aiohttp.ClientSession, sandbox: Sandbox
) -> None:
    """Its address became that of somebody else there: which of the two is meant, people must say."""
    crm = hubspot(session, sandbox.url)
    mine = (await crm.push([contact("a")], told())).outcomes[0].remote_id
    [there] = await have(sandbox, {"email": "other@example.org"})
    reply = await crm.push([contact("a", email="other@example.org", remote_id=mine)], told())

    assert reply.outcomes[0].state == FAILED
    assert f"record {there}" in reply.outcomes[0].detail
    assert "merge the two" in reply.outcomes[0].detail
    assert (await records(sandbox))[there] == {"email": "other@example.org"}


async def test_without_matching_it_is_left_alone_and_the_way_is_named(
    session: aiohttp.ClientSession, sandbox: Sandbox
) -> None:
    [there] = await have(sandbox, {"email": "c1@example.org"})
    reply = await hubspot(session, sandbox.url, match_on=None).push(contacts(3), told())

    assert [o.state for o in reply.outcomes] == [OK, FAILED, OK]
    assert f"Existing ID: {there}" in reply.outcomes[1].detail
    assert "match_on=email" in reply.outcomes[1].detail
    assert await paths(sandbox, 1) == ["upsert"]
    assert (await records(sandbox))[there] == {"email": "c1@example.org"}


def conflict(there: str) -> tuple[int, object]:
    return 409, {"status": "error", "message": f"Contact already exists. Existing ID: {there}", "category": "CONFLICT"}


def read(*rows: tuple[str, str, str | None]) -> tuple[int, object]:
    return 200, {"results": [{"id": i, "properties": {"email": e, "tranche_id": k}} for i, e, k in rows]}


def wrote(*rows: tuple[str, str]) -> tuple[int, object]:
    return 200, {"results": [{"id": i, "properties": {"tranche_id": k}} for i, k in rows]}


@pytest.mark.parametrize("match_on", ["email", None])
async def test_a_batch_that_one_address_refuses_is_not_halved(
    session: aiohttp.ClientSession, script: Script, match_on: str | None
) -> None:
    """HubSpot names one record and not whose it is: a look at all addresses tells."""
    adopts = match_on == "email"
    script.answers = [
        conflict("51"),
        read(("51", "c1@example.org", None), ("52", "c2@example.org", "z")),
        *([wrote(("51", "c1"))] if adopts else []),
        wrote(("60", "c0"), ("63", "c3")),
    ]
    crm = hubspot(session, script.url, match_on=match_on)
    reply = await crm.push(contacts(4), told())

    assert [o.state for o in reply.outcomes] == [OK, OK if adopts else FAILED, FAILED, OK]
    assert not reply.rejected_whole
    assert script.answers == []
    assert [i["id"] for i in script.bodies[1]["inputs"]] == [f"c{n}@example.org" for n in range(4)]
    assert script.bodies[1]["idProperty"] == "email"
    if adopts:
        [given] = script.bodies[2]["inputs"]
        assert (given["id"], given["properties"]["tranche_id"]) == ("51", "c1")
    assert [i["id"] for i in script.bodies[-1]["inputs"]] == ["c0", "c3"]

    # From now on they are looked for first, which saves a call.
    if adopts:
        script.answers = [read(("71", "c4@example.org", None)), wrote(("71", "c4")), wrote(("72", "c5"))]
        assert [o.state for o in (await crm.push(contacts(6)[4:], told())).outcomes] == [OK, OK]
        assert script.answers == []


async def test_a_secondary_address_is_found_by_the_record_that_hubspot_names(
    session: aiohttp.ClientSession, script: Script
) -> None:
    script.answers = [conflict("51"), read(("51", "primary@example.org", None)), wrote(("51", "c0"))]
    reply = await hubspot(session, script.url).push(contacts(1), told())

    assert (reply.outcomes[0].state, reply.outcomes[0].remote_id) == (OK, "51")
    assert script.bodies[1]["inputs"] == [{"id": "51"}]
    assert "idProperty" not in script.bodies[1]


async def test_addresses_that_are_nowhere_to_be_found_end_in_halves_and_words(
    session: aiohttp.ClientSession, script: Script
) -> None:
    script.answers = [conflict("51"), read()]
    reply = await hubspot(session, script.url).push(contacts(2), told())
    assert reply.rejected_whole

    script.answers = [conflict("51"), (207, {"results": [], "errors": []})]
    reply = await hubspot(session, script.url).push(contacts(1), told())
    assert (reply.outcomes[0].state, reply.rejected_whole) == (FAILED, False)
    assert "Existing ID: 51" in reply.outcomes[0].detail


@pytest.mark.parametrize(
    ("then", "states", "health"),
    [
        ([(429, {"policyName": "SECONDLY"})], [OK, RETRY], Health.WELL),
        ([(500, {})], [OK, RETRY], Health.CRM_FAULT),
        ([(401, {})], [OK, RETRY], Health.CONNECTION_FAULT),
        ([read(("51", "c1@example.org", None)), (500, {})], [OK, UNKNOWN], Health.CRM_FAULT),
        ([read(("51", "c1@example.org", None)), (429, {})], [OK, RETRY], Health.WELL),
        ([read(("51", "c1@example.org", None)), (400, {"message": "no"})], [OK, FAILED], Health.WELL),
    ],
    ids=str,
)
async def test_what_fails_on_the_way_leaves_the_others_as_they_are(
    session: aiohttp.ClientSession,
    script: Script,
    then: list[tuple[int, object]],
    states: list[EffectState],
    health: Health,
) -> None:
    error = {
        "status": "error",
        "category": "CONFLICT",
        "message": "Contact already exists. Existing ID: 51",
        "context": {"objectWriteTraceId": ["1"]},
    }
    script.answers = [(207, {"results": wrote(("60", "c0"))[1]["results"], "errors": [error]}), *then]  # type: ignore[index]
    reply = await hubspot(session, script.url).push(contacts(2), told())

    assert [o.state for o in reply.outcomes] == states
    assert reply.health == health
    assert (reply.pause is not None) == (then[-1][0] == 429)
    assert script.answers == []


def test_contacts_are_matched_by_their_address_unless_said_otherwise() -> None:
    assert kinds.HubSpotOptions().match_on == "email"
    with pytest.raises(kinds.OptionsError, match="match_on=email"):
        kinds.parse("hubspot", {"id_property": "email"})


def test_a_contact_that_keeps_its_address_at_home_is_nobodys_double() -> None:
    from jobs.crm.hubspot.adoption import address
    from jobs.crm.hubspot.fields import Fields

    person = sent("a", 1, email="A@Example.org ")
    assert address(Fields(kinds.HubSpotOptions(), CONTACTS), person) == "a@example.org"
    assert address(Fields(kinds.HubSpotOptions(fields={"email": None}), CONTACTS), person) is None
