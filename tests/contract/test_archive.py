"""Taking contacts away again, as the undoing of their creation does."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from app.sandbox import ANY, KINDS, open_sandbox
from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm import ADAPTERS
from jobs.crm.port import Crm, Health, Seen, SentRecord, Timeouts
from tests.contract.conftest import TOKEN, WITH_STAND_IN, Connect, Sandbox, contact, contacts, told, with_token
from tests.types import CONTACTS, sent

OK, RETRY, UNKNOWN = EffectState.OK, EffectState.RETRY, EffectState.UNKNOWN


async def tombstones(crm: Crm, *keys: str) -> list[SentRecord]:
    """Deleted contacts with the record ids that reading back finds for them."""
    gone = [sent(key, 2, deleted=True) for key in keys]
    found = (await crm.read_back(gone, told())).remote_ids
    return [sent(key, 2, deleted=True, remote_id=found.get(key)) for key in keys]


async def test_what_is_archived_is_absent_and_its_neighbours_stay(crm: Crm, sandbox: Sandbox) -> None:
    await crm.push(contacts(4), told())
    gone = await tombstones(crm, "c1", "c3")
    reply = await crm.archive(gone, told("undo"))

    assert [(o.record_id, o.state, o.code) for o in reply.outcomes] == [("c1", OK, None), ("c3", OK, None)]
    assert (reply.health, reply.pause, reply.rejected_whole) == (Health.WELL, None, False)
    back = await crm.read_back([*gone, contact("c0"), contact("c2")], told())
    assert back.seen == {"c1": Seen.ABSENT, "c3": Seen.ABSENT, "c0": Seen.MATCHES, "c2": Seen.MATCHES}
    assert {c["key"] for c in (await sandbox.get("contacts"))["contacts"]} == {"c0", "c2"}
    deletions = [(e["key"], e["request_id"]) for e in await sandbox.effects() if e["deleted"]]
    assert sorted(deletions) == [("c1", "undo"), ("c3", "undo")]


async def test_a_full_batch_can_be_archived(crm: Crm, sandbox: Sandbox) -> None:
    await crm.push(contacts(crm.batch_size), told())
    gone = await tombstones(crm, *(f"c{n}" for n in range(crm.batch_size)))
    reply = await crm.archive(gone, told())

    assert {o.state for o in reply.outcomes} == {OK}
    assert (await sandbox.get("contacts"))["total"] == 0


async def test_a_deleted_contact_that_is_there_differs_and_has_its_remote_id(crm: Crm) -> None:
    reply = await crm.push([contact("c0")], told())
    bare = sent("c0", 1, email="c0@example.org", deleted=True)
    back = await crm.read_back([bare], told())

    assert back.seen == {"c0": Seen.DIFFERS}
    assert back.remote_ids["c0"] in (reply.outcomes[0].remote_id, "c0")


async def test_archiving_what_is_not_there_any_more_is_well(crm: Crm, sandbox: Sandbox) -> None:
    await crm.push(contacts(2), told())
    gone = await tombstones(crm, "c0", "c1")
    await crm.archive(gone[:1], told())
    reply = await crm.archive(gone, told())

    assert [o.state for o in reply.outcomes] == [OK, OK]
    assert len([e for e in await sandbox.effects() if e["deleted"]]) == 2


async def test_a_lost_answer_leaves_a_deletion_open_until_it_is_read_back(crm: Crm, sandbox: Sandbox) -> None:
    await crm.push(contacts(2), told())
    gone = await tombstones(crm, "c0", "c1")
    await sandbox.faults(accept_then_drop={"times": 1})
    reply = await crm.archive(gone, told())

    if sandbox.kind == "kafka":  # a batch has a number, and may be sent until it is answered
        assert {o.state for o in reply.outcomes} == {OK}
        assert (await crm.read_back(gone, told())).seen == {"c0": Seen.ABSENT, "c1": Seen.ABSENT}
        return
    assert {(o.state, o.code) for o in reply.outcomes} == {(UNKNOWN, ErrorCode.OUTCOME_UNKNOWN)}
    assert len([c for c in await sandbox.calls() if c["faults"]]) == 1
    assert [c["faults"] for c in await sandbox.calls()][-1] == ["accept_then_drop"], "it was sent twice"
    assert (await crm.read_back(gone, told())).seen == {"c0": Seen.ABSENT, "c1": Seen.ABSENT}


@pytest.mark.parametrize(
    ("fault", "state", "health"),
    [
        ({"drop_before": {}}, UNKNOWN, Health.CRM_FAULT),
        ({"status": {"code": 500, "on": "write"}}, UNKNOWN, Health.CRM_FAULT),
        ({"status": {"code": 503, "on": "write"}}, RETRY, Health.CRM_FAULT),
        ({"unauthorized": {"on": "write"}}, RETRY, Health.CONNECTION_FAULT),
        ({"rate_limit": {"on": "write"}}, RETRY, Health.WELL),
        ({"lock": {"on": "write"}}, RETRY, Health.WELL),
    ],
    ids=str,
)
async def test_a_deletion_that_goes_wrong_has_an_honest_verdict(
    crm: Crm, sandbox: Sandbox, fault: dict[str, Any], state: EffectState, health: Health
) -> None:
    await crm.push(contacts(2), told())
    gone = await tombstones(crm, "c0", "c1")
    await sandbox.faults(**fault)
    reply = await crm.archive(gone, told())

    if sandbox.kind == "postgres":
        state = RETRY  # what was not committed certainly was not done
    assert {o.state for o in reply.outcomes} == {state}
    assert [o.record_id for o in reply.outcomes] == ["c0", "c1"]
    assert reply.health == health
    assert all(o.detail and TOKEN not in o.detail for o in reply.outcomes)
    assert (await crm.read_back(gone, told())).seen == {"c0": Seen.DIFFERS, "c1": Seen.DIFFERS}


async def test_a_refused_connection_was_certainly_not_sent(crm: Crm, sandbox: Sandbox) -> None:
    """A deletion by address alone has no body whose first byte could be watched; it must be known all the same."""
    await crm.push(contacts(1), told())
    gone = await tombstones(crm, "c0")
    await sandbox.faults(refuse={"seconds": 0.5})
    reply = await crm.archive(gone, told())

    # A batch of Kafka that may have gone out on the connection that was kept is sent until it is answered.
    assert {o.state for o in reply.outcomes} == {OK if sandbox.kind == "kafka" else RETRY}


async def test_an_archived_contact_can_be_sent_anew_as_another_record(crm: Crm, sandbox: Sandbox) -> None:
    await crm.push(contacts(1), told())
    await crm.archive(await tombstones(crm, "c0"), told())
    reply = await crm.push([contact("c0", version=3)], told())

    assert reply.outcomes[0].state == OK
    first, gone, second = await sandbox.effects()
    assert (first["id"], gone["deleted"], second["created"]) == (gone["id"], True, True)
    own = sandbox.kind not in WITH_STAND_IN
    assert (second["id"] == first["id"]) is own, "only there our key is its own"


async def test_nothing_to_archive_makes_no_call(crm: Crm, sandbox: Sandbox) -> None:
    assert (await crm.archive([], told())).outcomes == []
    assert await sandbox.calls() == []


@pytest.mark.parametrize("kind", WITH_STAND_IN)
async def test_a_deletion_outlives_a_restart_of_the_stand_in(
    tmp_path: Any, session: aiohttp.ClientSession, kind: str
) -> None:
    path = tmp_path / "effects.jsonl"
    arguments: dict[str, Any] = {
        "resource": CONTACTS,
        "session": session,
        "authorizer": with_token("t"),
        "timeouts": Timeouts(),
    }
    async with open_sandbox(kind, ledger_path=path, fields=[ANY]) as url:
        crm = ADAPTERS[kind](base_url=url, options=KINDS[kind]().options, **arguments)
        await crm.push(contacts(2), told())
        await crm.archive(await tombstones(crm, "c0"), told())
    async with open_sandbox(kind, ledger_path=path, fields=[ANY]) as url:
        crm = ADAPTERS[kind](base_url=url, options=KINDS[kind]().options, **arguments)
        assert (await crm.read_back([contact("c0"), contact("c1")], told())).seen == {
            "c0": Seen.ABSENT,
            "c1": Seen.MATCHES,
        }
        await crm.push([contact("c0", version=3)], told())
        ids = [e["id"] for e in await Sandbox(kind, url, session).effects() if e["created"]]
        assert len(ids) == len(set(ids)) == 3


async def test_a_record_whose_id_nobody_knows_is_left_open(connect: Connect, sandbox: Sandbox) -> None:
    """Where records are deleted by their own id; where they are by our key, the id is not needed."""
    crm = connect()
    await crm.push(contacts(1), told())
    unnamed = sent("c0", 2, deleted=True)
    reply = await crm.archive([unnamed], told())

    there = (await sandbox.get("contacts"))["total"]
    assert (reply.outcomes[0].state, there) in ((OK, 0), (UNKNOWN, 1))
