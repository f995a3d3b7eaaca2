"""What an object of a stand-in CRM has: records, and fields of its own."""

from __future__ import annotations

import pytest

from app.sandbox.records import Objects
from app.sandbox.vendor import ANY, Schema

NOW = "2026-01-14T08:00:00.000Z"


def test_an_id_means_nothing_among_other_records() -> None:
    objects = Objects(lambda count, of: f"{of}-{count}", "contacts")
    made = [objects.of(name).upsert("p", "k", "a", {}, NOW)[0] for name in ("contacts", "companies")]
    assert [(record.object, record.id) for record in made] == [("contacts", "contacts-0"), ("companies", "companies-0")]
    assert objects.of("companies").find("p", "contacts-0", None) is None
    assert objects.of("companies").delete("p", "companies-0") is made[1]
    assert objects.of("contacts").find("p", "a", "k") is made[0]
    objects.clear()
    assert [record for name in ("contacts", "companies") for record in objects.of(name)] == []


@pytest.mark.parametrize(
    ("declared", "contacts", "companies"),
    [
        (["plan"], True, True),
        (["companies.plan"], False, True),
        (["contacts.plan", "companies.tier"], True, False),
        ([f"companies.{ANY}"], False, True),
        ([ANY], True, True),
        ([], False, False),
    ],
    ids=str,
)
def test_what_is_declared_for_one_object_the_other_lacks(declared: list[str], contacts: bool, companies: bool) -> None:
    schema = Schema(lambda of: frozenset({"name"} if of == "companies" else {"email"}), declared)
    assert [schema.has("plan", of) for of in ("contacts", "companies")] == [contacts, companies]
    assert [schema.is_declared("plan", of) for of in ("contacts", "companies")] == [contacts, companies]
    assert schema.has("name", "companies")
    assert not schema.is_declared("name", "companies")
