"""What every adapter does with the contacts of a call that was answered."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.port import Crm, Health, Seen
from tests.contract.conftest import WITH_STAND_IN, Connect, Sandbox, contact, contacts, told


async def test_a_full_batch_arrives_and_every_contact_gets_its_own_outcome(crm: Crm, sandbox: Sandbox) -> None:
    """Results come shuffled: remote ids must still belong to the contact they name."""
    batch = contacts(crm.batch_size)
    reply = await crm.push(batch, told("req-1"))

    assert [o.record_id for o in reply.outcomes] == [c.record_id for c in batch]
    assert {o.state for o in reply.outcomes} == {EffectState.OK}
    assert (reply.health, reply.pause, reply.rejected_whole) == (Health.WELL, None, False)
    effects = await sandbox.effects()
    assert {e["key"]: e["id"] for e in effects} == {o.record_id: o.remote_id for o in reply.outcomes}
    assert len(effects) == len(batch)
    assert {e["request_id"] for e in effects} == {"req-1"}
    assert all(e["created"] for e in effects)


async def test_one_rejected_contact_does_not_touch_its_neighbours(crm: Crm, sandbox: Sandbox) -> None:
    await sandbox.faults(reject={"keys": ["c1"], "emails": ["c3@example.org"], "message": "No such country"})
    reply = await crm.push(contacts(5), told("r"))

    assert [o.state for o in reply.outcomes] == [
        EffectState.OK,
        EffectState.FAILED,
        EffectState.OK,
        EffectState.FAILED,
        EffectState.OK,
    ]
    assert reply.outcomes[1].code == ErrorCode.DESTINATION_REJECTED
    assert "No such country" in reply.outcomes[1].detail
    assert reply.health == Health.WELL
    assert {e["key"] for e in await sandbox.effects()} == {"c0", "c2", "c4"}


async def test_an_item_that_failed_for_a_passing_reason_is_tried_again(crm: Crm, sandbox: Sandbox) -> None:
    await sandbox.faults(reject={"keys": ["c0"], "passing": True, "message": "try later"})
    reply = await crm.push(contacts(2), told("r"))

    assert [(o.state, o.code) for o in reply.outcomes] == [
        (EffectState.RETRY, ErrorCode.DESTINATION_UNAVAILABLE),
        (EffectState.OK, None),
    ]


async def test_a_contact_the_answer_does_not_mention_is_unknown_not_ok(crm: Crm, sandbox: Sandbox) -> None:
    await sandbox.faults(omit={"keys": ["c1"], "on": "write"})
    reply = await crm.push(contacts(3), told("r"))

    if sandbox.kind == "salesforce":  # results bear no names: with one missing, nobody knows whose they are
        assert {o.state for o in reply.outcomes} == {EffectState.UNKNOWN}
    else:
        assert [o.state for o in reply.outcomes] == [EffectState.OK, EffectState.UNKNOWN, EffectState.OK]
    assert reply.outcomes[1].code == ErrorCode.OUTCOME_UNKNOWN
    back = await crm.read_back(contacts(3), told("r"))
    assert back.seen == {"c0": Seen.MATCHES, "c1": Seen.MATCHES, "c2": Seen.MATCHES}


async def test_a_second_push_of_the_same_contact_changes_nothing(crm: Crm, sandbox: Sandbox) -> None:
    await crm.push([contact("c1")], told("r1"))
    await crm.push([contact("c1")], told("r2"))

    effects = await sandbox.effects()
    assert [e["created"] for e in effects if e["changed"]] == [True]
    assert len({e["id"] for e in effects}) == 1


async def test_a_cleared_field_is_cleared_over_there(crm: Crm, sandbox: Sandbox) -> None:
    await crm.push([contact("c1")], told("r"))
    bare = contact("c1", phone=None, version=2)
    assert (await crm.read_back([bare], told("r"))).seen == {"c1": Seen.DIFFERS}
    await crm.push([bare], told("r"))

    assert (await crm.read_back([bare], told("r"))).seen == {"c1": Seen.MATCHES}
    before, after = await sandbox.effects()
    assert "001-808-617-6467x12895" in before["properties"].values()
    assert "001-808-617-6467x12895" not in after["properties"].values()


async def test_read_back_tells_match_difference_and_absence_apart(crm: Crm) -> None:
    await crm.push([contact("same", email="Mixed.Case@Example.ORG"), contact("other")], told("r"))
    back = await crm.read_back(
        [contact("same", email="Mixed.Case@Example.ORG"), contact("other", phone="0", version=2), contact("never")],
        told("r"),
    )

    assert back.seen == {"same": Seen.MATCHES, "other": Seen.DIFFERS, "never": Seen.ABSENT}
    assert set(back.remote_ids) == {"same", "other"}
    assert back.health == Health.WELL


async def test_a_contact_the_read_does_not_mention_is_not_called_absent(crm: Crm, sandbox: Sandbox) -> None:
    await crm.push(contacts(2), told("r"))
    await sandbox.faults(omit={"keys": ["c0"], "on": "read"})
    back = await crm.read_back(contacts(2), told("r"))

    assert back.seen == {"c1": Seen.MATCHES}


@pytest.mark.parametrize(
    "value",
    [True, False, 0, 3, 2.5, 10**30, "", "  padded ", "a;b", ["x", "y"], {"b": 1, "a": None}, None, "ü\t€", "0012"],
    ids=repr,
)
async def test_every_kind_of_attribute_survives_the_round_trip(crm: Crm, value: object) -> None:
    person = contact("c1", attributes={"Some Attribute": value})
    reply = await crm.push([person], told("r"))

    assert reply.outcomes[0].state == EffectState.OK
    assert (await crm.read_back([person], told("r"))).seen == {"c1": Seen.MATCHES}


async def test_awkward_keys_come_back_to_their_contact(crm: Crm) -> None:
    batch = [
        contact(key, email=f"x{number}@example.org")
        for number, key in enumerate(("0", "1", "None", "ключ 1", 'q"uo\\te', "a/b?c", "x" * 255))
    ]
    reply = await crm.push(batch, told("r"))

    assert {o.state for o in reply.outcomes} == {EffectState.OK}
    back = await crm.read_back(batch, told("r"))
    assert back.seen == {c.record_id: Seen.MATCHES for c in batch}


async def test_two_calls_at_once_do_not_mix(crm: Crm, sandbox: Sandbox) -> None:
    await sandbox.faults(latency={"latency": 0.05})
    left, right = contacts(40)[:20], contacts(40)[20:]
    replies = await asyncio.gather(crm.push(left, told("l")), crm.push(right, told("r")))

    assert [o.record_id for reply in replies for o in reply.outcomes] == [f"c{n}" for n in range(40)]
    assert {(e["key"], e["request_id"]) for e in await sandbox.effects()} == {
        (f"c{n}", "l" if n < 20 else "r") for n in range(40)
    }
    assert (await sandbox.get("calls"))["max_concurrent"] == 2


async def test_nothing_to_do_makes_no_call(crm: Crm, sandbox: Sandbox) -> None:
    assert (await crm.push([], told("r"))).outcomes == []
    assert (await crm.read_back([], told("r"))).seen == {}
    assert await sandbox.calls() == []


async def test_a_connection_that_cannot_be_used_is_refused_when_made(connect: Connect, kind: str) -> None:
    tokens: list[dict[str, Any]] = [{"token": ""}, {"token": "two words"}, {"token": "a\r\nX-Evil: 1"}]
    for wrong in [*(tokens if kind in WITH_STAND_IN else ()), {"base_url": "ftp://x"}]:
        with pytest.raises(ValueError, match="must"):
            connect(**wrong)
