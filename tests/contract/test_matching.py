"""Records that an account had before us are found by a field (`match_on`), kept, and written to by their own id."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp
import msgspec
import pytest

from app.deliveries.before_images import Adoption
from app.sandbox import ANY, KINDS, open_sandbox
from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm import ADAPTERS
from jobs.crm.port import Crm, Health, SentRecord, Timeouts
from tests.contract.conftest import Sandbox, told, with_token
from tests.contract.scripted import scripted
from tests.types import COMPANIES, CONTACTS, sent

OK, FAILED, RETRY = EffectState.OK, EffectState.FAILED, EffectState.RETRY


class Case(msgspec.Struct, frozen=True):
    """One way of looking: what is looked for, by what, and what it is called there."""

    kind: str
    object: str
    ours: str
    theirs: str
    other: str
    """Another field there, which pushes set, and its name here is `phone`."""
    name: str
    """A field there that a new record needs."""
    key: str

    @property
    def resource(self) -> Any:
        return CONTACTS if self.ours == "email" else COMPANIES

    def record(self, key: str, value: str | None = None, **more: Any) -> SentRecord:
        fields: dict[str, Any] = {self.ours: value or self.value(key), "phone": "+49 30 1"}
        fields |= {"last_name": "Lovelace"} if self.ours == "email" else {"name": key}
        return sent(key, **fields, **more)

    def value(self, key: str) -> str:
        return f"{key}@example.org" if self.ours == "email" else f"{key}.example"


CASES = [
    Case("hubspot", "contacts", "email", "email", "phone", "lastname", "tranche_id"),
    Case("hubspot", "companies", "domain", "domain", "phone", "name", "tranche_id"),
    Case("salesforce", "Contact", "email", "Email", "Phone", "LastName", "Tranche_Id__c"),
    Case("salesforce", "Account", "domain", "Website", "Phone", "Name", "Tranche_Id__c"),
    Case("http", "contacts", "email", "email", "phone", "last_name", "id"),
    Case("http", "companies", "domain", "domain", "phone", "name", "id"),
]
NOT_UNIQUE = [case for case in CASES if (case.kind, case.ours) != ("hubspot", "email")]


class Desk:
    """An adapter that looks for records, at a sandbox, and what it had kept."""

    def __init__(self, case: Case, sandbox: Sandbox) -> None:
        self.case = case
        self.sandbox = sandbox
        self.kept: list[Adoption] = []
        self.keeps = True
        self.crm: Crm = ADAPTERS[case.kind](
            resource=case.resource,
            session=sandbox.session,
            base_url=sandbox.url,
            authorizer=with_token(),
            options={**KINDS[case.kind]().options, "match_on": case.ours},
            timeouts=Timeouts(connect=1.0, total=2.0),
        )

    async def keep(self, adoptions: Sequence[Adoption]) -> frozenset[str]:
        self.kept += adoptions
        return frozenset(a.record_id for a in adoptions) if self.keeps else frozenset()

    async def push(self, *records: SentRecord) -> Any:
        return await self.crm.push(list(records), told(), self.keep)

    async def have(self, key: str, value: str | None = None, **fields: Any) -> str:
        """A record that is there, and its id."""
        case = self.case
        body = {
            "key_property": fields.pop("key_property", case.theirs),
            "key": value or case.value(key),
            "properties": {case.theirs: value or case.value(key), case.name: f"There {key}"} | fields,
        }
        url = f"{self.sandbox.url}/__sandbox__/contacts"
        async with self.sandbox.session.post(url, params={"object": case.object}, json=body) as answer:
            assert answer.status == 200, await answer.text()
            return str((await answer.json())["contact"]["id"])

    async def held(self) -> dict[str, dict[str, Any]]:
        """What there is, by its id there."""
        found = await self.sandbox.get(f"contacts?object={self.case.object}")
        return {c["id"]: c["properties"] for c in found["contacts"]}

    async def calls(self) -> list[str]:
        return [c["path"].rsplit("/", 1)[1] for c in await self.sandbox.calls()]


async def desk_of(case: Case, session: aiohttp.ClientSession) -> AsyncIterator[Desk]:
    async with open_sandbox(case.kind, fields=[ANY]) as url:
        yield Desk(case, Sandbox(case.kind, url, session))


@pytest.fixture(params=CASES, ids=lambda case: f"{case.kind} {case.object}")
async def desk(request: pytest.FixtureRequest, session: aiohttp.ClientSession) -> AsyncIterator[Desk]:
    async for made in desk_of(request.param, session):
        yield made


@pytest.fixture(params=NOT_UNIQUE, ids=lambda case: f"{case.kind} {case.object}")
async def loose(request: pytest.FixtureRequest, session: aiohttp.ClientSession) -> AsyncIterator[Desk]:
    """Where several records may have one value."""
    async for made in desk_of(request.param, session):
        yield made


async def test_what_is_there_is_adopted_and_the_rest_is_made(desk: Desk) -> None:
    case = desk.case
    spelled = (
        case.value("c1") if case.kind == "hubspot" else case.value("c1").upper()
    )  # HubSpot keeps addresses in lower case
    there = await desk.have("c1", spelled, **{case.other: "+1 999"})
    stranger = await desk.have("x")
    reply = await desk.push(*(case.record(f"c{n}") for n in range(60)))

    assert (reply.health, {o.state for o in reply.outcomes}) == (Health.WELL, {OK}), reply
    assert [o.created for o in reply.outcomes] == [n != 1 for n in range(60)]
    held = await desk.held()
    assert len(held) == 61, "a record was made twice, or not at all"
    assert (held[there][case.key], held[there][case.other]) == ("c1", "+49 30 1")
    assert case.key not in held[stranger]
    assert reply.outcomes[1].remote_id == there
    reads = [c for c in await desk.sandbox.calls() if c["on"] == "read"]
    assert len(reads) == 1, "at most one read a batch"
    [adoption] = desk.kept
    before = {field.name: (field.path, field.value) for field in adoption.before}
    assert (adoption.record_id, adoption.remote_id) == ("c1", there)
    assert before["phone"] == ((case.other,), "+1 999")
    assert before[case.ours][1].casefold() == case.value("c1")
    assert before["last_name" if case.ours == "email" else "name"] == ((case.name,), "There c1")

    # From now on it is ours, and is found by our key.
    calls = len(await desk.calls())
    again = await desk.push(case.record("c1", version=2, remote_id=there))
    assert (again.outcomes[0].state, again.outcomes[0].remote_id) == (OK, there)
    assert len(await desk.calls()) == calls + 1
    assert len(await desk.held()) == 61


async def test_several_matches_are_a_failure_that_names_them(loose: Desk) -> None:
    case = loose.case
    one = await loose.have("a", key_property=case.other, value="1", **{case.theirs: case.value("c1")})
    two = await loose.have("b", key_property=case.other, value="2", **{case.theirs: case.value("c1")})
    reply = await loose.push(case.record("c0"), case.record("c1"), case.record("c2"))

    assert [o.state for o in reply.outcomes] == [OK, FAILED, OK]
    refused = reply.outcomes[1]
    assert refused.code is ErrorCode.DESTINATION_REJECTED
    assert one in refused.detail
    assert two in refused.detail
    held = await loose.held()
    assert len(held) == 4
    assert case.key not in held[one]
    assert loose.kept == []

    # Whoever writes our key into the right one has decided, and a replay goes there.
    await loose.have("b", key_property=case.other, value="2", **{case.key: "c1", case.theirs: case.value("c1")})
    assert (await loose.push(case.record("c1"))).outcomes[0].state == OK
    assert (await loose.held())[two][case.key] == "c1"
    assert len(await loose.held()) == 4


async def test_a_record_there_becomes_one_of_ours(loose: Desk) -> None:
    """Not two, nor one that belongs to another of ours."""
    case = loose.case
    there = await loose.have("t")
    twins = [case.record("a", case.value("t")), case.record("b", case.value("t"))]
    reply = await loose.push(*twins)
    assert [o.state for o in reply.outcomes] == [OK, OK]
    assert reply.outcomes[0].remote_id == there
    assert reply.outcomes[1].remote_id != there
    third = await loose.push(case.record("c", case.value("t")))
    assert third.outcomes[0].remote_id not in (there, None)
    assert (await loose.held())[there][case.key] == "a"
    assert len(await loose.held()) == 3


async def test_what_cannot_be_kept_is_not_written(desk: Desk) -> None:
    there = await desk.have("c1")
    before = (await desk.held())[there]
    desk.keeps = False
    reply = await desk.push(desk.case.record("c0"), desk.case.record("c1"))
    assert [o.state for o in reply.outcomes] == [OK, RETRY]
    assert (await desk.held())[there] == before


async def test_an_adopted_one_is_written_by_its_id_without_another_look(desk: Desk) -> None:
    """A worker died after it had kept what was there."""
    case = desk.case
    there = await desk.have("c1")
    found = case.record("c1", "another@example.org", remote_id=there, adopted=True)
    reply = await desk.push(found, case.record("c2", remote_id="z"))
    assert [(o.state, o.created) for o in reply.outcomes] == [(OK, False), (OK, True)]
    assert desk.kept == []
    assert not [c for c in await desk.sandbox.calls() if c["on"] == "read"]
    assert (await desk.held())[there][case.key] == "c1"
    assert len(await desk.held()) == 2


async def test_a_released_one_holds_what_it_held_and_is_nobodys(desk: Desk) -> None:
    case = desk.case
    there = await desk.have("c1", **{case.other: "+1 999"})
    before = (await desk.held())[there]
    await desk.push(case.record("c1"), case.record("c2"))
    assert (await desk.held())[there] != before
    [adoption] = desk.kept
    release = SentRecord(
        record_id="c1", version=2, deleted=True, remote_id=there, released=True, restored=adoption.before
    )
    reply = await desk.push(release)
    assert [o.state for o in reply.outcomes] == [OK], reply
    assert (await desk.held())[there] == before
    back = await desk.crm.read_back([msgspec.structs.replace(release, version=2)], told())
    assert back.seen is not None
    assert back.seen["c1"] == "absent"
    # Once more, by whoever does not know that it is done.
    assert (await desk.push(release)).outcomes[0].state == OK
    assert (await desk.held())[there] == before


async def test_one_that_was_removed_there_meanwhile_is_looked_for_anew(desk: Desk) -> None:
    if desk.case.kind == "http":
        pytest.skip("what a service of one's own says of it is its own")
    case = desk.case
    there = await desk.have("c1")
    await desk.sandbox._control("DELETE", f"contacts/{there}?object={case.object}")
    release = SentRecord(record_id="c2", version=2, deleted=True, remote_id=there, released=True)
    for record, state in ((case.record("c1", remote_id=there, adopted=True), RETRY), (release, OK)):
        [outcome] = (await desk.push(record)).outcomes
        assert (outcome.state, outcome.remote_id) == (state, "")


async def test_a_look_that_fails_leaves_nothing_in_doubt(desk: Desk) -> None:
    await desk.sandbox.faults(drop_before={"on": "read"})
    reply = await desk.push(*(desk.case.record(f"c{n}") for n in range(60)))
    assert {(o.state, o.code) for o in reply.outcomes} == {(RETRY, ErrorCode.DESTINATION_UNAVAILABLE)}
    assert await desk.held() == {}


@pytest.mark.parametrize("value", ["o'brien@example.org", 'a\\"b@example.org', "50%+x&y=z@example.org", "é@例え.jp"])
async def test_values_of_every_kind_are_found(desk: Desk, value: str) -> None:
    there = await desk.have("c1", value)
    reply = await desk.push(desk.case.record("c1", value), *(desk.case.record(f"n{n}") for n in range(60)))
    assert (reply.outcomes[0].state, reply.outcomes[0].remote_id) == (OK, there)
    assert len(await desk.held()) == 61


async def test_salesforce_is_asked_once_however_long_the_values_are(session: aiohttp.ClientSession) -> None:
    """Longer than a URL may be: the queries are the requests of one call."""
    async for desk in desk_of(CASES[2], session):
        long = [f"{'x' * 50}.{'y' * 50}.{n}@{'z' * 60}.example.org" for n in range(200)]
        ids = [await desk.have(f"c{n}", value) for n, value in enumerate(long[:3])]
        reply = await desk.push(*(desk.case.record(f"c{n}", value) for n, value in enumerate(long)))
        assert {o.state for o in reply.outcomes} == {OK}
        assert [o.remote_id for o in reply.outcomes[:3]] == ids
        assert await desk.calls() == ["composite", "sobjects", "Tranche_Id__c"]


@pytest.mark.parametrize(
    "results",
    [
        [],
        [{"httpStatusCode": 500, "body": [{"errorCode": "UNKNOWN_EXCEPTION", "message": "no"}]}],
        [{"httpStatusCode": 200, "body": None}],
    ],
    ids=str,
)
async def test_a_look_that_is_not_complete_makes_nobody(session: aiohttp.ClientSession, results: list[Any]) -> None:
    async with scripted() as script:
        script.answers = [(200, {"compositeResponse": results})]
        arguments = {"session": session, "base_url": script.url, "authorizer": with_token()}
        crm = ADAPTERS["salesforce"](
            resource=CONTACTS, options={"match_on": "email"}, timeouts=Timeouts(connect=1.0, total=2.0), **arguments
        )
        reply = await crm.push([CASES[2].record("c1")], told())
        assert [(o.state, o.code) for o in reply.outcomes] == [(RETRY, ErrorCode.DESTINATION_UNAVAILABLE)]
        assert script.answers == []


@pytest.mark.parametrize(("case", "most"), [(CASES[1], 200), (CASES[2], 2_000)], ids=["hubspot", "salesforce"])
async def test_a_value_of_more_records_than_a_page_has_fails_alone(
    session: aiohttp.ClientSession, case: Case, most: int
) -> None:
    """Whose it is, halves show: nobody is made, and no circuit hears of it."""
    async for desk in desk_of(case, session):
        many = case.value("many")
        for n in range(most + 1):
            await desk.have(str(n), key_property=case.other, value=str(n), **{case.theirs: many})
        reply = await desk.push(case.record("c1"), case.record("c2", many))
        assert (reply.health, reply.rejected_whole) == (Health.WELL, True)
        assert len(await desk.held()) == most + 1
        [made] = (await desk.push(case.record("c1"))).outcomes
        [refused] = (await desk.push(case.record("c2", many))).outcomes
        assert (made.state, refused.state) == (OK, FAILED)
        assert f"{most} records there have the {case.ours} of this one" in refused.detail
