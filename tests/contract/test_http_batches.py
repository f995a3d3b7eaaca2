"""Batches by purpose: new and known records in calls of their own, and removals that name many."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import msgspec
import pytest

from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.http.adapter import Http
from jobs.crm.port import Health, Seen, Timeouts
from jobs.delivery.attempt_items import batches
from tests.contract.conftest import told, with_token
from tests.contract.scripted import Script
from tests.types import CONTACTS, sent

OK, RETRY, FAILED, UNKNOWN = EffectState.OK, EffectState.RETRY, EffectState.FAILED, EffectState.UNKNOWN
Make = Callable[..., Http]

ITEM = {"key": "{id}", "email": "{fields.email}", "phone": "{fields.phone}"}
BATCHES: dict[str, Any] = {
    "path": "/items",
    "item": ITEM,
    "body": "{records}",
    "results": "echoed",
    "results_field": "data",
    "result_id": "key",
    "result_remote_id": "id",
    "update": {"path": "/items", "item": {"id": "{remote_id}", **ITEM}},
    "delete": {"path": "/items", "body": "{remote_ids}"},
    "read": {
        "path": "/items",
        "query": {"key": "in.({ids:quoted})"},
        "records": "data",
        "id": "key",
        "remote_id": "id",
    },
}


@pytest.fixture
async def make(script: Script) -> AsyncIterator[Make]:
    async with aiohttp.ClientSession() as session:

        def make(**options: Any) -> Http:
            return Http(
                resource=CONTACTS,
                session=session,
                base_url=script.url,
                authorizer=with_token(),
                options={**BATCHES, **options},
                timeouts=Timeouts(connect=1.0, total=2.0),
            )

        yield make


async def test_new_and_known_records_go_in_two_calls(make: Make, script: Script) -> None:
    crm = make()
    records = [
        sent("k1", 1, email="a@x.org"),
        sent("k2", 2, email="b@x.org", phone=None, remote_id="7"),
        sent("k3", 1, email="c@x.org"),
        sent("k4", 2, email="d@x.org", remote_id="8"),
        sent("k5", 3, deleted=True, remote_id="9"),
    ]
    new, known, gone = calls = batches(records, crm)
    assert [(c.operation, [r.record_id for r in c.records]) for c in calls] == [
        ("push", ["k1", "k3"]),
        ("push", ["k2", "k4"]),
        ("archive", ["k5"]),
    ]

    script.answers = [
        (200, {"data": [{"id": 1, "key": "k1"}, {"id": 3, "key": "k3"}]}),
        (200, {"data": [{"id": 7, "key": "k2"}]}),
    ]
    made = (await crm.push(new.records, told())).outcomes
    changed = (await crm.push(known.records, told())).outcomes
    script.raw, script.status = b"", 204
    removed = (await crm.archive(gone.records, told())).outcomes

    assert [(r.method, r.path_qs) for r in script.asked] == [
        ("POST", "/items"),
        ("PATCH", "/items"),
        ("DELETE", "/items"),
    ]
    assert script.bodies == [
        [{"key": "k1", "email": "a@x.org"}, {"key": "k3", "email": "c@x.org"}],
        [{"id": "7", "key": "k2", "email": "b@x.org", "phone": None}, {"id": "8", "key": "k4", "email": "d@x.org"}],
        ["9"],
    ]
    assert [(o.record_id, o.state, o.remote_id) for o in made] == [("k1", OK, "1"), ("k3", OK, "3")]
    # Whom the update does not show was not there: reading back settles it.
    assert [(o.record_id, o.state) for o in changed] == [("k2", OK), ("k4", UNKNOWN)]
    assert [o.state for o in removed] == [OK]


async def test_an_update_is_another_event_than_the_creation_of_the_same_version(make: Make, script: Script) -> None:
    crm = make()
    script.body = {"data": [{"id": 7, "key": "k1"}]}
    new, known = sent("k1", 1, email="a@x.org"), sent("k1", 1, email="a@x.org", remote_id="7")
    for record in (new, known, new, known, msgspec.structs.replace(known, remote_id="8")):
        await crm.push([record], told(event_id="e1"))
    first, second, *again, other = [asked.headers["Idempotency-Key"] for asked in script.asked]
    assert again == [first, second]
    assert len({first, second, other}) == 3


async def test_a_repeated_creation_is_the_same_call_though_some_of_it_is_known(make: Make, script: Script) -> None:
    # Whoever repeats a lost call passes its records as they were then (`jobs.delivery.resend`).
    crm = make()
    script.body = {"data": []}
    pair = [sent("k1", 1, email="a@x.org", remote_id="7"), sent("k2", 1, email="b@x.org")]
    await crm.push(pair, told())
    assert script.asked[0].method == "POST"


@pytest.mark.parametrize("where", ["path", "item", "body"])
async def test_a_record_whose_id_is_not_answered_is_in_doubt(make: Make, script: Script, where: str) -> None:
    update: dict[str, Any] = {
        "item": {"path": "/items", "item": {"id": "{remote_id}", **ITEM}},
        "body": {"path": "/items", "body": {"ids": "{remote_ids}", "rows": "{records}"}},
        "path": {"path": "/items/{remote_id}"},
    }[where]
    one = {"body": "{record}", "results": "status"} if where == "path" else {}
    script.body = {"data": [{"key": "k1"}]}
    [outcome] = (await make(update=update, **one).push([sent("k1", 1, email="a@x.org")], told())).outcomes
    assert (outcome.state, outcome.code) == (UNKNOWN, ErrorCode.OUTCOME_UNKNOWN)
    assert "no id of it under 'id' (option result_remote_id)" in outcome.detail


async def test_a_batch_by_position_says_who_is_gone(make: Make, script: Script) -> None:
    crm = make(
        results="required", results_by="position", results_field="", result_ok="status", result_remote_id="body.id"
    )
    known = [sent(f"k{n}", 2, email=f"{n}@x.org", remote_id=f"r{n}") for n in (1, 2, 3)]
    script.body = [{"status": 200}, {"status": 404}, {"status": 409, "error": "taken"}]
    first, gone, refused = (await crm.push(known, told())).outcomes
    assert (first.state, gone.state, refused.state) == (OK, FAILED, FAILED)
    # A retry by an operator creates the one that is gone anew.
    assert (gone.remote_id, refused.remote_id) == ("", None)
    assert "a retry creates it anew" in gone.detail

    # To a removal it means that it is done.
    script.body = [{"status": 200}, {"status": 404}, {"status": 500}]
    removed = [msgspec.structs.replace(record, deleted=True) for record in known]
    assert [o.state for o in (await crm.archive(removed, told())).outcomes] == [OK, OK, UNKNOWN]


async def test_who_has_no_id_there_is_not_said_to_be_removed(make: Make, script: Script) -> None:
    gone = [sent("k1", 2, deleted=True, remote_id="7"), sent("k2", 2, deleted=True)]
    script.body = {}
    crm = make()
    reply = await crm.archive(gone, told(event_id="e1"))
    assert [o.state for o in reply.outcomes] == [OK, UNKNOWN]  # which reading back settles
    assert script.bodies == [["7"]]
    await crm.archive(gone[:1], told(event_id="e1"))
    first, second = [asked.headers["Idempotency-Key"] for asked in script.asked]
    assert first != second, "the removal of one is another call than that of both"

    script.asked.clear()
    [well, failed] = (await make(read=None).archive(gone, told())).outcomes
    assert (well.state, failed.state, failed.code) == (OK, FAILED, ErrorCode.DESTINATION_REJECTED)
    assert "its id there" in failed.detail
    await make(read=None).archive(gone[1:], told())
    assert len(script.asked) == 1, "nobody is named by the second"


async def test_an_address_has_an_end(make: Make, script: Script) -> None:
    """In a query of ids; a part of the records goes in a call of its own."""
    crm = make(delete={"path": "/items", "query": {"key": "in.({ids:quoted})"}}, batch_size=100)
    key = 'ä,"' + "x" * 200
    gone = [sent(f"{key}{n}", 2, deleted=True, remote_id=f"r{n}") for n in range(100)]
    reply = await crm.archive(gone, told())
    assert reply.rejected_whole
    assert {(o.state, o.code) for o in reply.outcomes} == {(RETRY, ErrorCode.DESTINATION_REJECTED)}
    assert "at most 8000 are sent" in reply.outcomes[0].detail
    assert script.asked == []

    script.raw, script.status = b"", 204
    assert [o.state for o in (await crm.archive(gone[:2], told())).outcomes] == [OK, OK]
    names = ",".join(f'"{key}{n}"'.replace(',"', ',\\"') for n in (0, 1))
    assert script.asked[0].query["key"] == f"in.({names})"

    [endless] = (await crm.archive([sent("x" * 9000, 2, deleted=True, remote_id="r")], told())).outcomes
    assert (endless.state, endless.code) == (FAILED, ErrorCode.DESTINATION_REJECTED)


async def test_many_records_are_read_back_in_several_calls(make: Make, script: Script) -> None:
    crm = make()
    keys = [f"{'x' * 200}{n}" for n in range(60)]
    records = [sent(key, 1, email="a@x.org") for key in keys]
    script.body = {"data": [{"id": n, "key": key, "email": "a@x.org"} for n, key in enumerate(keys) if n != 7]}
    back = await crm.read_back(records, told())
    assert len(script.asked) == 2
    assert all(len(asked.raw_path) <= 8000 for asked in script.asked)
    assert back.seen == {key: Seen.ABSENT if n == 7 else Seen.MATCHES for n, key in enumerate(keys)}
    assert back.remote_ids[keys[59]] == "59"

    # One that fails leaves nothing known, and the rest is not asked.
    script.asked.clear()
    script.status, script.body = 500, None
    back = await crm.read_back(records, told())
    assert (back.seen, len(script.asked)) == (None, 1)
    script.asked.clear()
    script.status, script.answers = 500, [(200, {"data": []})]
    back = await crm.read_back(records, told())
    assert (back.seen, len(script.asked), back.health) == (None, 2, Health.CRM_FAULT)
