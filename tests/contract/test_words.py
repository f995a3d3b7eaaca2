"""A destination is told only what was said: what nobody named is in no call, what was cleared is cleared, and whether
a call made the record is known."""

from __future__ import annotations

from typing import Any

import pytest

from app.vocabulary.states import EffectState
from jobs.crm.port import Crm, Seen
from tests.contract.conftest import Connect, Sandbox, contact, told
from tests.types import sent

OK = EffectState.OK
KEYS = {
    "hubspot": "tranche_id",
    "salesforce": "Tranche_Id__c",
    "http": "id",
    "postgres": "id",
    "object": "id",
    "kafka": "id",
}
NAMES = {
    "hubspot": {
        "email": "email",
        "first_name": "firstname",
        "last_name": "lastname",
        "phone": "phone",
        "company": "company",
    },
    "salesforce": {
        "email": "Email",
        "first_name": "FirstName",
        "last_name": "LastName",
        "phone": "Phone",
        "company": "Company__c",
    },
    **{
        kind: {name: name for name in ("email", "first_name", "last_name", "phone", "company")}
        for kind in ("http", "postgres", "object", "kafka")
    },
}


def typed(kind: str, **attributes: str) -> dict[str, Any]:
    """What a user of the CRM typed into every standard field, and into fields of their own."""
    standard = {theirs: f"typed-{ours}" for ours, theirs in NAMES[kind].items() if ours != "email"}
    own: dict[str, Any] = (
        {"attributes": dict(attributes)}
        if kind in ("http", "postgres", "object", "kafka")
        else {(f"{name}__c" if kind == "salesforce" else name): text for name, text in attributes.items()}
    )
    return standard | {NAMES[kind]["email"]: "old@example.org"} | own


async def stood_before(sandbox: Sandbox, key: str, **attributes: str) -> dict[str, Any]:
    """A record that somebody made there by hand."""
    properties = typed(sandbox.kind, **attributes)
    await sandbox.edit(KEYS[sandbox.kind], key, properties)
    return properties


async def held(sandbox: Sandbox, key: str) -> dict[str, Any]:
    [record] = [c for c in (await sandbox.get("contacts"))["contacts"] if c["key"] == key]
    found: dict[str, Any] = record["properties"]
    return found


async def test_what_nobody_named_is_left_as_it_is(crm: Crm, sandbox: Sandbox) -> None:
    """Also where the record is in the way of a default, such as that of a last name."""
    before = await stood_before(sandbox, "c1", region="EMEA")
    bare = sent("c1", 1, email="c1@example.org", attributes={"plan": "gold"})
    assert (await crm.push([bare], told())).outcomes[0].state == OK

    after = await held(sandbox, "c1")
    for ours, theirs in NAMES[sandbox.kind].items():
        assert after[theirs] == ("c1@example.org" if ours == "email" else before[theirs])
    assert "EMEA" in str(after)
    assert "gold" in str(after)
    assert (await crm.read_back([bare], told())).seen == {"c1": Seen.MATCHES}


async def test_what_was_cleared_is_cleared_and_its_neighbours_stay(crm: Crm, sandbox: Sandbox) -> None:
    before = await stood_before(sandbox, "c1", region="EMEA", plan="gold")
    cleared = sent("c1", 2, email="c1@example.org", phone=None, attributes={"plan": None})
    assert (await crm.read_back([cleared], told())).seen == {"c1": Seen.DIFFERS}
    assert (await crm.push([cleared], told())).outcomes[0].state == OK

    after = await held(sandbox, "c1")
    names = NAMES[sandbox.kind]
    assert not after.get(names["phone"])
    assert "gold" not in str(after)
    assert after[names["company"]] == before[names["company"]]
    assert "EMEA" in str(after)
    assert (await crm.read_back([cleared], told())).seen == {"c1": Seen.MATCHES}


async def test_what_somebody_typed_beside_it_does_not_make_it_differ(crm: Crm, sandbox: Sandbox) -> None:
    bare = sent("c1", 1, email="c1@example.org", last_name="L", attributes={"plan": "gold"})
    await crm.push([bare], told())
    await sandbox.edit(KEYS[sandbox.kind], "c1", {NAMES[sandbox.kind]["phone"]: "040 1"})

    assert (await crm.read_back([bare], told())).seen == {"c1": Seen.MATCHES}
    assert (await crm.push([bare], told())).outcomes[0].state == OK
    assert (await held(sandbox, "c1"))[NAMES[sandbox.kind]["phone"]] == "040 1"


async def test_whether_a_call_made_the_record_is_told(crm: Crm, sandbox: Sandbox) -> None:
    if sandbox.kind == "kafka":
        pytest.skip("a topic does not say")
    await stood_before(sandbox, "c1")
    first = await crm.push([contact("c1"), contact("c2")], told())
    again = await crm.push([contact("c1", version=2), contact("c2", version=2)], told())

    assert [o.created for o in first.outcomes] == [False, True]
    assert [o.created for o in again.outcomes] == [False, False]


async def test_a_lost_answer_tells_nothing_of_who_made_the_record(crm: Crm, sandbox: Sandbox) -> None:
    # A batch of Kafka is sent until one of a few answers arrives.
    await sandbox.faults(accept_then_drop={} if sandbox.kind == "kafka" else {"times": 1})
    reply = await crm.push([contact("c1")], told())
    assert reply.outcomes[0].created is None


async def test_a_user_of_the_stand_in_can_take_a_record_away(crm: Crm, sandbox: Sandbox) -> None:
    reply = await crm.push([contact("c1")], told())
    await sandbox.remove(str(reply.outcomes[0].remote_id))

    assert (await crm.read_back([contact("c1")], told())).seen == {"c1": Seen.ABSENT}
    [made, gone] = await sandbox.effects()
    assert (made["by"], gone["by"], gone["deleted"]) == ("api", "user", True)


@pytest.mark.parametrize("kind", ["http"])
async def test_a_service_that_wants_no_nulls_gets_none(connect: Connect, sandbox: Sandbox) -> None:
    before = await stood_before(sandbox, "c1", plan="gold")
    crm = connect(options={"nulls": "omit"})
    cleared = sent("c1", 2, email="c1@example.org", phone=None, attributes={"plan": None})
    assert (await crm.push([cleared], told())).outcomes[0].state == OK
    assert (await held(sandbox, "c1")) == before | {"email": "c1@example.org", "version": 2, "id": "c1"}


@pytest.mark.parametrize("kind", ["salesforce"])
async def test_a_new_record_gets_the_default_last_name_and_an_old_one_keeps_its_own(
    connect: Connect, sandbox: Sandbox
) -> None:
    crm = connect(options={"default_last_name": "Nameless"})
    await stood_before(sandbox, "c1")
    bare = [sent(key, 1, email=f"{key}@example.org") for key in ("c1", "c2", "c3")]
    reply = await crm.push([*bare, contact("c4")], told())

    assert [(o.state, o.created) for o in reply.outcomes] == [(OK, False), (OK, True), (OK, True), (OK, True)]
    assert [(await held(sandbox, f"c{n}"))["LastName"] for n in (1, 2, 3, 4)] == [
        "typed-last_name",
        "Nameless",
        "Nameless",
        "Łovelace",
    ]
    assert len(await sandbox.calls()) == 2
    assert set((await crm.read_back(bare, told())).seen.values()) == {Seen.MATCHES}  # type: ignore[union-attr]
