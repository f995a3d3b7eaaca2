"""Requests of any shape: templates, methods and paths by purpose, fixed headers and query, one record per call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.http.adapter import Http
from jobs.crm.port import Health, Seen, Timeouts
from tests.contract.conftest import TOKEN, contact, contacts, told, with_token
from tests.contract.scripted import Script
from tests.types import CONTACTS, sent

OK, RETRY, FAILED, UNKNOWN = EffectState.OK, EffectState.RETRY, EffectState.FAILED, EffectState.UNKNOWN
Make = Callable[..., Http]


@pytest.fixture
async def make(script: Script) -> AsyncIterator[Make]:
    async with aiohttp.ClientSession() as session:

        def make(**options: Any) -> Http:
            return Http(
                resource=CONTACTS,
                session=session,
                base_url=f"{script.url}/api",
                authorizer=with_token(),
                options=options,
                timeouts=Timeouts(connect=1.0, total=2.0),
            )

        yield make


async def test_a_template_places_names_constants_and_the_rest(make: Make, script: Script) -> None:
    crm = make(
        path="/v1/{values.list}/batch",
        query={"on_conflict": "id", "type": "{type}"},
        headers={"Revision": "2026-01-15", "X-List": "list {values.list}"},
        values={"list": "a b"},
        fields={"first_name": "firstName", "company": None, "tier": "plan"},
        item={
            "type": "identify",
            "userId": "{id}",
            "uid": "tranche:{id}:{version}",
            "traits": {"email": "{fields.email}", "...": ["{fields}", "{attributes}"]},
            "phones": [{"value": "{fields.phone}", "primary": True}],
        },
        body={"batch": "{records}", "sentBy": "tranche"},
    )
    person = sent(
        "k1", 3, email="a@x.org", first_name="Ada", phone="1", company="X", attributes={"tier": "gold", "n": 2}
    )
    await crm.push([person, sent("k2", 1, email="b@x.org", phone=None)], told())

    [asked] = script.asked
    assert asked.path_qs == "/api/v1/a%20b/batch?on_conflict=id&type=contacts"
    assert asked.headers["Revision"] == "2026-01-15"
    assert asked.headers["X-List"] == "list a b"
    assert asked.headers["Authorization"] == f"Bearer {TOKEN}"
    first, second = script.bodies[0]["batch"]
    assert script.bodies[0]["sentBy"] == "tranche"
    assert first == {
        "type": "identify",
        "userId": "k1",
        "uid": "tranche:k1:3",
        "traits": {"email": "a@x.org", "firstName": "Ada", "plan": "gold", "n": 2},
        "phones": [{"value": "1", "primary": True}],
    }
    # What was cleared empties its list; what nobody named is in no call.
    assert second == {
        "type": "identify",
        "userId": "k2",
        "uid": "tranche:k2:1",
        "traits": {"email": "b@x.org"},
        "phones": [],
    }


@pytest.mark.parametrize(
    ("nulls", "traits"),
    [
        ("send", {"email": "a@x.org", "phone": None, "more": {"tier": None}}),
        ("empty", {"email": "a@x.org", "phone": "", "more": {"tier": ""}}),
        ("omit", {"email": "a@x.org"}),
    ],
)
async def test_what_was_cleared(make: Make, script: Script, nulls: str, traits: dict[str, Any]) -> None:
    item = {"traits": {"phone": "{fields.phone}", "more": "{attributes}", "...": "{fields}"}}
    await make(nulls=nulls, item=item, body="{records}").push(
        [sent("k1", 1, email="a@x.org", phone=None, attributes={"tier": None})], told()
    )
    assert script.bodies == [[{"traits": traits}]]


async def test_dots_of_names_nest_where_they_are_to(make: Make, script: Script) -> None:
    fields = {"first_name": "name.first", "last_name": "name.last", "tier": "custom.plan.tier"}
    person = sent("k1", 1, email="a@x.org", first_name="Ada", last_name="L", attributes={"tier": "gold"})
    await make(fields=fields, attributes_field=None, dots="nest", wrapper="data.people").push([person], told())
    await make(fields=fields, attributes_field=None, wrapper=None).push([person], told())

    [nested] = script.bodies[0]["data"]["people"]
    assert nested["name"] == {"first": "Ada", "last": "L"}
    assert nested["custom"] == {"plan": {"tier": "gold"}}
    [flat] = script.bodies[1]
    assert (flat["name.first"], flat["custom.plan.tier"]) == ("Ada", "gold")


async def test_lines_instead_of_a_list(make: Make, script: Script) -> None:
    item = [{"index": {"_id": "{id}"}}, {"email": "{fields.email}"}]
    crm = make(path="/_bulk", format="ndjson", item=item, body="{records}")
    await crm.push([sent("k1", 1, email="a@x.org"), sent("k2", 1, email="b@x.org")], told())
    [asked] = script.asked
    assert asked.headers["Content-Type"] == "application/x-ndjson"
    assert script.contents == [
        b'{"index":{"_id":"k1"}}\n{"email":"a@x.org"}\n{"index":{"_id":"k2"}}\n{"email":"b@x.org"}\n'
    ]


REST: dict[str, Any] = {
    "path": "/contacts",
    "body": "{record}",
    "item": {"external_id": "{id}", "email": "{fields.email}", "phone": "{fields.phone}"},
    "results": "status",
    "result_remote_id": "data.id",
    "update": {"path": "/contacts/{remote_id}"},
    "delete": {"path": "/contacts/{remote_id}"},
    "read": {"path": "/contacts/by/{id}", "records": "data", "id": "external_id", "remote_id": "id"},
}


async def test_one_record_per_call_by_purpose(make: Make, script: Script) -> None:
    crm = make(**REST)
    assert (crm.batch_size, crm.reads_back, crm.archives, crm.repeatable) == (1, True, True, False)

    script.answers = [(201, {"data": {"id": 7, "status": "failed"}}), (200, {"data": {"id": 7}}), (204, None)]
    [made] = (await crm.push([sent("k1", 1, email="a@x.org")], told())).outcomes
    [updated] = (await crm.push([sent("k1", 2, email="b@x.org", remote_id="7/8")], told())).outcomes
    [gone] = (await crm.archive([sent("k1", 3, deleted=True, remote_id="7")], told())).outcomes

    assert [(r.method, r.path_qs) for r in script.asked] == [
        ("POST", "/api/contacts"),
        ("PATCH", "/api/contacts/7%2F8"),
        ("DELETE", "/api/contacts/7"),
    ]
    assert script.bodies == [{"external_id": "k1", "email": "a@x.org"}, {"external_id": "k1", "email": "b@x.org"}, None]
    assert (made.state, made.remote_id, made.created) == (OK, "7", True)
    assert (updated.state, updated.remote_id, updated.created) == (OK, "7", None)
    assert gone.state == OK
    assert "Content-Type" not in script.asked[2].headers


async def test_a_record_that_is_gone_there(make: Make, script: Script) -> None:
    crm = make(**REST)
    script.status, script.body = 404, {"message": "not here"}
    known = sent("k1", 2, email="b@x.org", remote_id="7")

    reply = await crm.push([known], told())
    [updated] = reply.outcomes
    # A retry by an operator creates it anew, because its id is forgotten.
    assert (updated.state, updated.code, updated.remote_id) == (FAILED, ErrorCode.DESTINATION_REJECTED, "")
    assert "retry creates it anew" in updated.detail
    assert reply.health is Health.WELL

    assert (await crm.archive([sent("k1", 3, deleted=True, remote_id="7")], told())).outcomes[0].state == OK
    assert (await crm.read_back([known], told())).seen == {"k1": Seen.ABSENT}
    # A call that creates has no record in its path: it is the address that does not exist.
    reply = await crm.push([sent("k1", 1, email="a@x.org")], told())
    assert (reply.outcomes[0].state, reply.health) == (RETRY, Health.CONNECTION_FAULT)


@pytest.mark.parametrize(
    ("data", "seen", "remote"),
    [
        ({"id": 7, "external_id": "k1", "email": "A@x.org", "phone": None, "more": 1}, Seen.MATCHES, "7"),
        ({"id": 7, "external_id": "k1", "email": "a@x.org", "phone": "2"}, Seen.DIFFERS, "7"),
        ({"id": 7, "external_id": "k1"}, Seen.DIFFERS, "7"),
    ],
)
async def test_reading_one_record_back(
    make: Make, script: Script, data: dict[str, Any], seen: Seen, remote: str
) -> None:
    script.body = {"data": data}
    back = await make(**REST).read_back([sent("k1", 1, email="a@x.org", phone=None)], told())
    assert (back.seen, back.remote_ids) == ({"k1": seen}, {"k1": remote})
    [asked] = script.asked
    assert (asked.method, asked.path_qs) == ("GET", "/api/contacts/by/k1")


@pytest.mark.parametrize("key", ["..", "."])
async def test_a_key_that_would_be_another_address_is_refused_without_a_call(
    make: Make, script: Script, key: str
) -> None:
    crm = make(path="/contacts/{id}", method="PUT", body="{record}")
    [refused] = (await crm.push([sent(key, 1, email="a@x.org")], told())).outcomes
    assert (refused.state, refused.code) == (FAILED, ErrorCode.DESTINATION_REJECTED)
    assert "cannot be a part of a path" in refused.detail
    assert script.asked == []

    await crm.push([sent("a/../b?c#d ä", 1, email="a@x.org")], told())
    assert script.asked[0].raw_path == "/api/contacts/a%2F..%2Fb%3Fc%23d%20%C3%A4"


async def test_several_records_are_removed_by_their_ids(make: Make, script: Script) -> None:
    crm = make(delete={"path": "/contacts", "query": {"ids": "{remote_ids}"}, "method": "DELETE"})
    script.body = {}
    gone = [sent(f"k{n}", 2, deleted=True, remote_id=f"r {n}") for n in (1, 2)]
    assert [o.state for o in (await crm.archive(gone, told())).outcomes] == [OK, OK]
    assert script.asked[0].raw_path == "/api/contacts?ids=r%201%2Cr%202"

    script.asked.clear()
    crm = make(delete={"method": "POST", "path": "/gone", "body": {"external_ids": "{ids}"}})
    await crm.archive(gone, told())
    assert script.bodies[-1] == {"external_ids": ["k1", "k2"]}


@pytest.mark.parametrize("option", ["repeatable", "idempotent"])
async def test_an_upsert_by_key_is_repeatable_whatever_the_option_is_called(make: Make, option: str) -> None:
    assert make(**{option: True}).repeatable
    assert not make().repeatable


async def test_the_old_shape_is_untouched(make: Make, script: Script) -> None:
    await make().push(contacts(2), told())
    assert list(script.bodies[0]) == ["contacts"]
    assert script.asked[0].path_qs == "/api/contacts"
    assert contact("k1").fields["email"] == "k1@example.org"


async def test_a_test_of_the_destination_reports_what_it_saw(make: Make, script: Script) -> None:
    script.status, script.body = 404, {}
    [read] = await make(**REST).check(told())
    assert (read.name, read.ok) == ("read", True)
    assert script.asked[0].path_qs == "/api/contacts/by/tranche-check-nobody"

    script.status = 401
    [read] = await make(**REST).check(told())
    assert (read.ok, read.status) == (False, 401)
    assert "This is the call to read" in read.detail

    script.status, script.body = 200, {"data": []}
    listed = {"read": {"path": "/all", "query": {"key": "{id}"}, "records": "rows", "id": "k"}}
    [read] = await make(**{**REST, **listed}).check(told())
    assert (read.ok, read.detail) == (
        False,
        "The answer of read has no list of records under 'rows' (option read.records).",
    )

    [reach, template] = await make(item={"mail": "{fields.emial}"}, body="{records}").check(told())
    assert (reach.name, reach.ok, template.ok) == ("reach", None, None)
    assert template.detail.endswith("so they are never sent: emial.")


async def test_a_record_whose_id_is_not_answered_is_not_created_twice(make: Make, script: Script) -> None:
    script.status, script.body = 201, {"id": 7}  # the option says that it is under data
    [outcome] = (await make(**REST).push([sent("k1", 1, email="a@x.org")], told())).outcomes
    assert (outcome.state, outcome.code) == (UNKNOWN, ErrorCode.OUTCOME_UNKNOWN)
    assert "no id of it under 'data.id' (option result_remote_id)" in outcome.detail
    # An update says nothing new about its id.
    [outcome] = (await make(**REST).push([sent("k1", 2, email="a@x.org", remote_id="7")], told())).outcomes
    assert outcome.state == OK


KEYSET = {
    "path": "/{type}",
    "query": {"select": "id,external_id", "order": "id", "limit": "2", "id": "gt.{cursor}"},
    "records": "",
    "id": "external_id",
    "remote_id": "id",
    "next": "[-1].id",
}


async def test_all_records_are_listed_by_keyset(make: Make, script: Script) -> None:
    crm = make(listing=KEYSET)
    assert crm.lists
    script.answers = [
        (200, [{"id": 7, "external_id": "k1"}, {"id": 8, "external_id": None}]),
        (200, [{"id": 9, "external_id": "k2"}]),
        (200, []),
    ]
    listed: dict[str, str] = {}
    after = None
    for _ in range(3):
        page = await crm.list_keys(after, told())
        assert page.keys is not None
        listed |= page.keys
        after = page.after
    assert (listed, after) == ({"k1": "7", "k2": "9"}, None)
    first, second, third = [asked.path_qs for asked in script.asked]
    assert first == "/api/contacts?select=id%2Cexternal_id&order=id&limit=2", "without the cursor"
    assert second.endswith("&id=gt.8")
    assert third.endswith("&id=gt.9")


async def test_a_service_that_ignores_the_cursor_is_not_asked_for_ever(make: Make, script: Script) -> None:
    crm = make(listing=KEYSET)
    script.body = [{"id": 7, "external_id": "k1"}]
    page = await crm.list_keys(None, told())
    assert page.after == "7"
    assert (await crm.list_keys(page.after, told())).after is None


@pytest.mark.parametrize("body", [{"data": []}, "no", None, {"error": "no"}])
async def test_an_answer_without_a_list_says_nothing(make: Make, script: Script, body: object) -> None:
    script.body = body
    assert (await make(listing=KEYSET).list_keys(None, told())).keys is None
