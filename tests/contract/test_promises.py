"""What every adapter promises beyond the fate of contacts: names, limits, secrets, and who is calling."""

from __future__ import annotations

import importlib
from typing import Any

import aiohttp
import pytest

from app.destinations import kinds
from app.sandbox import KINDS
from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm import ADAPTERS
from jobs.crm.port import Crm, Headers, Health, Seen
from tests.contract.conftest import (
    KAFKA_OPTIONS,
    POSTGRES_OPTIONS,
    TOKEN,
    UNREAD,
    WITH_STAND_IN,
    Connect,
    Sandbox,
    contact,
    contacts,
    told,
)

LISTING = {"path": "/contacts/list", "method": "POST", "next": "next"}
OK, RETRY, FAILED = EffectState.OK, EffectState.RETRY, EffectState.FAILED


def test_every_registered_kind_has_an_adapter_and_another_side() -> None:
    assert ADAPTERS.keys() == kinds.KINDS.keys() == {*WITH_STAND_IN, "postgres", *UNREAD}
    for kind in kinds.KINDS:
        module = importlib.import_module(f"jobs.crm.{kind}.adapter")
        assert module.connect is ADAPTERS[kind]
        assert kinds.KINDS[kind].description
        own = {"postgres": POSTGRES_OPTIONS, "object": {"bucket": "exports"}, "kafka": KAFKA_OPTIONS}
        kinds.parse(kind, KINDS[kind]().options if kind in KINDS else own[kind])


async def test_a_call_tells_which_request_and_which_contents_it_is_about(crm: Crm, sandbox: Sandbox) -> None:
    await crm.push(contacts(2), Headers("req-1", "event-of-these-two"))
    [call] = await sandbox.calls()

    if sandbox.kind == "postgres":  # an upsert needs no key to be repeated
        assert call["request_id"] == "req-1"
        return
    assert (call["request_id"], call["event_id"]) == ("req-1", "event-of-these-two")
    if sandbox.kind in UNREAD:
        return
    seen = await sandbox.get("idempotency")
    assert seen["keys"] == [{"key": "event-of-these-two", "calls": 1, "replayed": 0}]


async def test_the_default_batch_is_what_the_kind_says(connect: Connect, kind: str) -> None:
    assert connect().batch_size == kinds.KINDS[kind].batch_size


async def test_options_bound_the_batch(connect: Connect) -> None:
    assert connect(options={"batch_size": 7}).batch_size == 7


async def test_fields_get_other_names_and_null_keeps_them_at_home(connect: Connect, sandbox: Sandbox) -> None:
    crm = connect(options={"fields": {"phone": "Work_Phone__c", "company": None, "Plan": "Tier__c", "Notes": None}})
    person = contact("c1", attributes={"Plan": "gold", "Notes": "for our eyes only"})
    assert (await crm.push([person], told())).outcomes[0].state == OK

    [effect] = await sandbox.effects()
    held = effect["properties"]
    assert (held["Work_Phone__c"], held["Tier__c"]) == ("001-808-617-6467x12895", "gold")
    assert "Analytical, Inc." not in str(held)
    assert "for our eyes only" not in str(held)
    assert (await crm.read_back([person], told())).seen == {"c1": Seen.MATCHES}


async def test_a_mapped_attribute_goes_before_one_that_falls_there_by_its_name(connect: Connect) -> None:
    """Two sources of one name must not make the two sides disagree for ever."""
    crm = connect(options={"fields": {"Plan": "Tier__c"}})
    person = contact("c1", attributes={"Tier": "by its name", "tier__c": "too", "Plan": "mapped"})

    assert (await crm.push([person], told())).outcomes[0].state == OK
    assert (await crm.read_back([person], told())).seen == {"c1": Seen.MATCHES}


async def test_null_clears_an_attribute_and_a_field(crm: Crm, sandbox: Sandbox) -> None:
    await crm.push([contact("c1", attributes={"Plan": "gold"})], told())
    bare = contact("c1", version=2, phone=None, attributes={"Plan": None})
    await crm.push([bare], told())

    assert (await crm.read_back([bare], told())).seen == {"c1": Seen.MATCHES}
    before, after = await sandbox.effects()
    assert "gold" in str(before["properties"])
    assert "gold" not in str(after["properties"])
    assert "001-808" not in str(after["properties"])


async def test_a_batch_refused_as_a_whole_condemns_nobody_and_halves_tell(crm: Crm, sandbox: Sandbox) -> None:
    await sandbox.faults(reject_batch={"keys": ["c2"], "message": "somebody here is wrong"})
    reply = await crm.push(contacts(4), told())

    assert reply.rejected_whole
    assert {(o.state, o.code) for o in reply.outcomes} == {(RETRY, ErrorCode.DESTINATION_REJECTED)}
    assert reply.health == Health.WELL
    assert "somebody here is wrong" in reply.detail
    assert await sandbox.effects() == []
    assert {o.state for o in (await crm.push(contacts(2), told())).outcomes} == {OK}
    alone = await crm.push([contact("c2")], told())
    assert not alone.rejected_whole
    assert (alone.outcomes[0].state, alone.outcomes[0].code) == (FAILED, ErrorCode.DESTINATION_REJECTED)
    assert "somebody here is wrong" in alone.outcomes[0].detail


async def test_a_field_that_does_not_exist_there_is_named(crm: Crm, sandbox: Sandbox) -> None:
    await crm.push([contact("c0")], told())
    [effect] = await sandbox.effects()
    [email] = [name for name, value in effect["properties"].items() if value == "c0@example.org"]
    await sandbox.faults(missing_fields={"names": [email]})
    reply = await crm.push([contact("c1"), contact("c2")], told())

    assert all(email in o.detail for o in reply.outcomes)
    if sandbox.kind == "http":  # a service's own words, and nobody knows what they mean
        assert {o.code for o in reply.outcomes} == {ErrorCode.DESTINATION_REJECTED}
        return
    assert {(o.state, o.code) for o in reply.outcomes} == {(RETRY, ErrorCode.DESTINATION_UNAVAILABLE)}
    assert (reply.health, reply.rejected_whole) == (Health.SETUP_FAULT, False)
    assert email in reply.detail
    assert '--field "email="' in reply.detail


async def test_fields_that_differ_are_named_with_both_values(crm: Crm) -> None:
    await crm.push([contact("c0", phone="+49 1"), contact("c1", phone="+49 1")], told())
    back = await crm.read_back([contact("c0", phone="+49 1"), contact("c1", phone="+49 2")], told(), by_fields=True)

    assert back.seen == {"c0": Seen.MATCHES, "c1": Seen.DIFFERS}
    [(key, [difference])] = back.differences.items()
    assert (key, difference.here, difference.there) == ("c1", "+49 2", "+49 1")


async def test_what_is_there_is_listed_page_by_page(
    crm: Crm, connect: Connect, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert crm.lists is (sandbox.kind not in UNREAD)
    if not crm.lists:
        return
    if sandbox.kind == "http":
        crm = connect(options={"listing": LISTING | {"body": {"after": "{cursor}", "limit": 2}}})
    for place in ("hubspot.adapter.BATCH_SIZE", "salesforce.adapter.PAGE"):
        monkeypatch.setattr(f"jobs.crm.{place}", 2)
    for place in ("statements", "adapter"):
        monkeypatch.setattr(f"jobs.crm.postgres.{place}.PAGE", 2)
    await crm.push(contacts(5), told())
    listed: dict[str, str] = {}
    after, pages = None, 0
    while pages == 0 or after is not None:
        page = await crm.list_keys(after, told())
        assert page.keys is not None, page.detail
        assert page.health is Health.WELL
        listed |= page.keys
        after, pages = page.after, pages + 1
    assert pages >= 3
    assert listed == (await crm.read_back(contacts(5), told())).remote_ids


async def test_a_list_that_cannot_be_read_says_why(crm: Crm, sandbox: Sandbox) -> None:
    if not crm.lists:
        pytest.skip("it does not list")
    await sandbox.faults(status={"code": 503})
    page = await crm.list_keys(None, told())
    assert page.keys is None
    assert (page.health, page.status) == (Health.CRM_FAULT, 503)


async def test_an_asked_for_wait_is_obeyed(crm: Crm, sandbox: Sandbox) -> None:
    await sandbox.faults(rate_limit={"retry_after": 37})
    reply = await crm.push(contacts(2), told())

    assert reply.pause is not None
    assert reply.pause.seconds == 37
    assert {(o.state, o.code) for o in reply.outcomes} == {(RETRY, ErrorCode.DESTINATION_RATE_LIMIT)}
    assert await sandbox.effects() == []


@pytest.mark.parametrize("action", ["push", "read_back"])
async def test_a_secret_that_the_other_side_echoes_is_told_to_nobody(
    connect: Connect, sandbox: Sandbox, action: str
) -> None:
    crm = connect()
    echo = f"your token {TOKEN} is no good"
    await sandbox.faults(reject={"message": echo, "on": "any"}, reject_batch={"message": echo, "times": 1})
    told_of: list[Any] = []
    for _ in range(2):
        reply: Any = await getattr(crm, action)(contacts(2), told())
        told_of += [reply.detail, *(o.detail for o in getattr(reply, "outcomes", []))]
    assert TOKEN not in str(told_of)


async def test_a_kind_ignores_options_that_its_release_does_not_know(connect: Connect) -> None:
    """A newer release of the service may have stored them; a worker of this one still delivers."""
    assert (await connect(options={"from_the_future": 1}).push([contact("c1")], told())).outcomes[0].state == OK


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"fields": []}, {"rate": "fast"}], ids=str)
async def test_stored_options_that_cannot_work_are_refused_in_words(
    session: aiohttp.ClientSession, connect: Connect, options: dict[str, Any]
) -> None:
    [name] = options
    with pytest.raises(ValueError, match=f"options.{name}"):
        connect(options=options)
