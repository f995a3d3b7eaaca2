"""Every adapter with every type of record that has a place there: each built-in one, and one that a tenant declares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from app.destinations.kinds import KINDS as REGISTERED
from app.destinations.kinds import HttpOptions, HubSpotOptions, SalesforceOptions
from app.resources.declaration import Field, Kind, Resource
from app.resources.json_schema import Definition, compile_type
from app.resources.types import BUILT_IN
from app.resources.types.contacts import CONTACTS
from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.hubspot.fields import Fields as HubSpotFields
from jobs.crm.mapping import FieldMap
from jobs.crm.port import Crm, Health, Seen, SentRecord
from jobs.crm.salesforce.fields import Fields as SalesforceFields
from tests.contract.conftest import UNREAD, Connect, Sandbox, told
from tests.types import sent

OWN = compile_type(
    "order-lines",
    Definition(
        schema={
            "properties": {
                "title": {"type": "string"},
                "price": {"type": "number"},
                "count": {"type": "integer"},
                "open": {"type": "boolean"},
                "tags": {"type": "array", "items": {"type": "string"}},
                "due": {"type": "string", "format": "date"},
            },
            "required": ["title"],
        }
    ),
    type_id=100,
    version=1,
)
PLACES = [
    (kind, resource)
    for kind, registered in sorted(REGISTERED.items())
    for resource in (*BUILT_IN.values(), OWN)
    if registered.takes_any or kind in resource.objects
]
Make = Callable[..., SentRecord]


def _value(field: Field, n: int) -> Any:
    """Values that every CRM takes as they are."""
    if field.many is not None:
        return [f"{field.name} {n}", "x"]
    if field.choices:
        return field.choices[n % len(field.choices)]
    return {
        Kind.EMAIL: f"x{n}@example.org",
        Kind.PHONE: f"001-808-617-6467x{n}",
        Kind.INTEGER: n + 1,
        Kind.NUMBER: n + 0.5,
        Kind.BOOLEAN: n % 2 == 0,
        Kind.DATE: f"2026-03-{n % 28 + 1:02}",
    }.get(field.kind, {"industry": "BANKING", "domain": f"x{n}.example"}.get(field.name, f"{field.name} {n}"))


@pytest.fixture(params=PLACES, ids=lambda place: f"{place[0]}-{place[1].name}")
def place(request: pytest.FixtureRequest) -> tuple[str, Resource]:
    return request.param


@pytest.fixture
def kind(place: tuple[str, Resource]) -> str:
    return place[0]


@pytest.fixture
def of(place: tuple[str, Resource]) -> str:
    """The object at the CRM."""
    kind, resource = place
    return resource.objects.get(kind, resource.name)


@pytest.fixture
def crm(place: tuple[str, Resource], connect: Connect) -> Crm:
    return connect(resource=place[1])


@pytest.fixture
def record(place: tuple[str, Resource]) -> Make:
    def make(n: int, version: int = 1, **changes: Any) -> SentRecord:
        fields = {field.name: _value(field, n) for field in place[1].fields}
        return sent(f"k{n}", version, **(fields | changes))

    return make


def optional(place: tuple[str, Resource]) -> str:
    """A field that can be cleared at every CRM."""
    return next(f.name for f in place[1].fields if not f.required and f.name not in ("first_name", "last_name"))


async def held(sandbox: Sandbox, of: str) -> set[str]:
    return {c["key"] for c in (await sandbox.get(f"contacts?object={of}"))["contacts"]}


async def test_a_full_batch_arrives_as_it_is_and_in_its_own_object(
    crm: Crm, sandbox: Sandbox, record: Make, of: str
) -> None:
    batch = [record(n) for n in range(crm.batch_size)]
    reply = await crm.push(batch, told("req-1"))
    assert [(o.record_id, o.state, o.created) for o in reply.outcomes] == [
        (r.record_id, EffectState.OK, True) for r in batch
    ]
    effects = await sandbox.effects()
    assert {e["key"]: e["id"] for e in effects} == {o.record_id: o.remote_id for o in reply.outcomes}
    assert {(e["object"], e["request_id"]) for e in effects} == {(of, "req-1")}
    back = await crm.read_back(batch, told())
    assert (set(back.seen.values()), back.health) == ({Seen.MATCHES}, Health.WELL)


async def test_a_second_push_changes_nothing(crm: Crm, sandbox: Sandbox, record: Make) -> None:
    await crm.push([record(0)], told())
    await crm.push([record(0)], told())
    effects = await sandbox.effects()
    assert [e["created"] for e in effects if e["changed"]] == [True]
    assert len({e["id"] for e in effects}) == 1


async def test_one_rejected_record_does_not_touch_its_neighbours(crm: Crm, sandbox: Sandbox, record: Make) -> None:
    await sandbox.faults(reject={"keys": ["k1"], "message": "No such country"})
    reply = await crm.push([record(n) for n in range(3)], told())
    assert [o.state for o in reply.outcomes] == [EffectState.OK, EffectState.FAILED, EffectState.OK]
    assert (reply.outcomes[1].code, reply.health) == (ErrorCode.DESTINATION_REJECTED, Health.WELL)
    assert {e["key"] for e in await sandbox.effects()} == {"k0", "k2"}


async def test_a_cleared_field_is_cleared_there_and_an_absent_one_stays(
    crm: Crm, sandbox: Sandbox, record: Make, place: tuple[str, Resource]
) -> None:
    await crm.push([record(0)], told())
    name = optional(place)
    cleared = record(0, 2, **{name: None})
    assert (await crm.read_back([cleared], told())).seen == {"k0": Seen.DIFFERS}
    await crm.push([cleared], told())
    assert (await crm.read_back([cleared], told())).seen == {"k0": Seen.MATCHES}
    if place[0] in UNREAD:
        return  # a line has all of its record
    required = {field.name: _value(field, 0) for field in place[1].fields if field.required}
    await crm.push([sent("k0", 3, **required)], told())
    _, before, after = [e["properties"] for e in await sandbox.effects()]
    assert {k: v for k, v in before.items() if k != "version"} == {k: v for k, v in after.items() if k != "version"}


async def test_read_back_tells_match_difference_and_absence_apart(
    crm: Crm, record: Make, place: tuple[str, Resource]
) -> None:
    await crm.push([record(0), record(1)], told())
    name = optional(place)
    other = record(1, 2, **{name: _value(next(f for f in place[1].fields if f.name == name), 5)})
    if other.fields[name] == record(1).fields[name]:
        pytest.fail(f"{name} has the same value in every record")
    back = await crm.read_back([record(0), other, record(2)], told())
    assert back.seen == {"k0": Seen.MATCHES, "k1": Seen.DIFFERS, "k2": Seen.ABSENT}


async def test_a_lost_answer_is_in_doubt_until_it_is_read_back(crm: Crm, sandbox: Sandbox, record: Make) -> None:
    await sandbox.faults(accept_then_drop={} if sandbox.kind == "kafka" else {"times": 1})
    reply = await crm.push([record(0)], told())
    assert [(o.state, o.code) for o in reply.outcomes] == [(EffectState.UNKNOWN, ErrorCode.OUTCOME_UNKNOWN)]
    assert (await crm.read_back([record(0)], told())).seen == {"k0": Seen.MATCHES}


async def test_what_is_archived_is_absent_and_its_neighbours_stay(
    crm: Crm, sandbox: Sandbox, record: Make, of: str
) -> None:
    await crm.push([record(n) for n in range(3)], told())
    gone = [sent("k1", 2, deleted=True)]
    found = (await crm.read_back(gone, told())).remote_ids
    gone = [sent("k1", 2, deleted=True, remote_id=found.get("k1"))]
    reply = await crm.archive(gone, told())
    assert [(o.record_id, o.state) for o in reply.outcomes] == [("k1", EffectState.OK)]
    assert await held(sandbox, of) == {"k0", "k2"}
    assert (await crm.read_back([*gone, record(0)], told())).seen == {"k1": Seen.ABSENT, "k0": Seen.MATCHES}


def test_a_field_that_a_tenant_added_is_named_as_an_attribute_is() -> None:
    """At a CRM it can only be a custom field; an HTTP service gets it under its own name."""
    added = Definition(schema={"properties": {"birthday": {"type": "string", "format": "date"}}})
    people = compile_type("contacts", added, type_id=CONTACTS.type_id, version=1, base=CONTACTS)
    record = SentRecord(record_id="c1", version=1, fields={"phone": "1", "birthday": "2026-03-31"})
    assert HubSpotFields(HubSpotOptions(), people).names([record]) == ["birthday", "phone", "tranche_id"]
    assert SalesforceFields(SalesforceOptions(), people).names([record]) == [
        "Phone", "Tranche_Id__c", "birthday__c",
    ]  # fmt: skip
    assert FieldMap(HttpOptions(), people, key="id", name_of=lambda _: None).names([record]) == [
        "birthday",
        "id",
        "phone",
    ]


async def test_an_id_of_another_type_is_another_record(
    crm: Crm, sandbox: Sandbox, record: Make, connect: Connect, place: tuple[str, Resource], of: str
) -> None:
    kind, resource = place
    neighbor = next(other for where, other in PLACES if where == kind and other is not resource)
    fields = {field.name: _value(field, 7) for field in neighbor.fields}
    await connect(resource=neighbor).push([sent("k0", 9, **fields)], told())
    assert (await crm.read_back([record(0)], told())).seen == {"k0": Seen.ABSENT}
    assert (await crm.push([record(0)], told())).outcomes[0].created is True
    assert await held(sandbox, of) == await held(sandbox, neighbor.objects.get(kind, neighbor.name)) == {"k0"}
