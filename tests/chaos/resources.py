"""The types of record that a round imports side by side, under the same ids, and how each kind of CRM names them.

Contacts and companies are the product's; products are declared by the tenant of the round. Clients and checker read
this, and nothing here is asked of Tranche.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Final

import msgspec

Place = tuple[str, str]
"""Type and id of a record: the same id in two types is two records."""


class Type(msgspec.Struct, frozen=True, kw_only=True):
    """What items of a type may say. Texts are formats of the record's `id`, and of a `tag` that no other item has."""

    name: str
    always: Mapping[str, Any]
    """By field, its value."""
    sometimes: Mapping[str, tuple[float, tuple[Any, ...]]]
    """By field, how many of the items name it, and its values."""
    columns: tuple[str, ...]
    """Fields of a CSV."""
    poison: tuple[dict[str, Any], ...]
    """What cannot be stored."""
    unnamed: str
    """A field that no import names: people type into it."""
    typed: tuple[str, str]
    """Fields that an import may name, and people typed into before."""
    schema: Mapping[str, Any] = {}
    """What the tenant declares of it; empty: it is the product's."""

    def write(self, chance: random.Random, record_id: str, tag: str) -> dict[str, Any]:
        """The fields of a sound item."""
        found = dict(self.always)
        for name, (share, values) in self.sometimes.items():
            if chance.random() < share:
                found[name] = chance.choice(values)
        return {k: v.format(id=record_id, tag=tag) if isinstance(v, str) else v for k, v in found.items()}

    def declare(self, more: Mapping[str, Any]) -> dict[str, Any]:
        """The whole definition, with `more` optional fields."""
        return {"schema": {**self.schema, "properties": {**self.schema.get("properties", {}), **more}}}


CONTACTS: Final = Type(
    name="contacts",
    always={"email": "{id}@example.com"},
    sometimes={
        "first_name": (0.7, ("Ada", "Grace", "Mary Ann", "Zoë", "Nguyễn", "李", "O'Neil")),
        "phone": (0.5, ("040 {tag}",)),
        "company": (0.3, (None, "Acme", 'Say "so", Ltd.')),
    },
    columns=("email", "first_name", "phone"),
    poison=({"email": "nobody at all"}, {"phone": "none"}, {"first_name": "a\0b"}),
    unnamed="last_name",
    typed=("phone", "first_name"),
)
COMPANIES: Final = Type(
    name="companies",
    always={"name": "{id} Ltd."},
    sometimes={
        "domain": (0.5, ("{id}.example",)),
        "phone": (0.4, ("030 {tag}",)),
        "city": (0.4, (None, "Köln", "St. John's")),
        "country": (0.3, ("DE", "GB")),
        "employees": (0.4, (None, 0, 7, 1200)),
        "annual_revenue": (0.3, (0.5, 1200000)),
    },
    columns=("name", "domain", "phone", "country", "employees"),
    poison=({"name": None}, {"country": "Narnia"}, {"employees": -1}, {"name": "a\0b"}),
    unnamed="street",
    typed=("phone", "city"),
)


def products(seed: int) -> Type:
    """Its currencies are those of one round: what another tenant has declared under this name would not do."""
    currencies = tuple(random.Random(f"tranche chaos {seed}: currencies").sample(("CHF", "EUR", "GBP", "USD"), 2))
    return Type(
        name="products",
        always={"title": "The {id}", "price": 12.5},
        sometimes={
            "price": (0.5, (0, 7, 0.25)),
            "currency": (0.6, currencies),
            "stock": (0.4, (None, 0, 12)),
            "active": (0.5, (None, True, False)),
            "tags": (0.5, (None, ["red"], ["red", "très bleu"])),
            "size": (0.3, (None, "size {tag}")),
        },
        columns=("title", "price", "currency", "stock", "active", "tags"),
        poison=(
            {"title": None},
            {"price": "cheap"},
            {"price": -1},
            {"currency": "XXX"},
            {"active": "perhaps"},
            {"tags": ["red", 1]},
            {"title": "a\0b"},
        ),
        unnamed="maker",
        typed=("size", "maker"),
        schema={
            "properties": {
                "title": {"type": "string", "minLength": 1, "maxLength": 200},
                "price": {"type": "number", "minimum": 0},
                "currency": {"enum": list(currencies)},
                "stock": {"type": "integer", "minimum": 0},
                "active": {"type": "boolean"},
                "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 10},
                "size": {"type": "string"},
                "maker": {"type": "string"},
            },
            "required": ["title", "price"],
        },
    )


def types_of(seed: int) -> tuple[Type, ...]:
    """The types of a round."""
    return CONTACTS, COMPANIES, products(seed)


# at the CRMs

KEYS: Final = {"hubspot": "tranche_id", "salesforce": "Tranche_Id__c", "http": "id"}
"""By kind of CRM, the field that has our id."""
ADDED: Final = "new"
"""What the names of fields begin with that are added in a round."""
_OBJECTS: Final = {
    "hubspot": {"contacts": "contacts", "companies": "companies"},
    "salesforce": {"contacts": "Contact", "companies": "Account"},
}
_FIELDS: Final = {
    ("hubspot", "contacts"): {"first_name": "firstname", "last_name": "lastname"},
    ("hubspot", "companies"): {
        "street": "address",
        "employees": "numberofemployees",
        "annual_revenue": "annualrevenue",
    },
    ("salesforce", "contacts"): {
        "email": "Email",
        "first_name": "FirstName",
        "last_name": "LastName",
        "phone": "Phone",
        "company": "Company__c",
    },
    ("salesforce", "companies"): {
        "name": "Name",
        "domain": "Website",
        "phone": "Phone",
        "street": "BillingStreet",
        "city": "BillingCity",
        "country": "BillingCountry",
        "employees": "NumberOfEmployees",
        "annual_revenue": "AnnualRevenue",
    },
}


def object_of(kind: str, type: str) -> str | None:
    """What a kind of CRM calls the records of a type; `None`: they have no place there."""
    return _OBJECTS[kind].get(type) if kind in _OBJECTS else type


def type_at(kind: str, name: str) -> str:
    """The type whose records an object of this name has; of an object of none, its own name."""
    return next((ours for ours, theirs in _OBJECTS.get(kind, {}).items() if theirs == name), name)


def field_at(kind: str, type: str, name: str) -> str:
    """The name of a field at a kind of CRM; of an attribute it is `attributes.` and its key. A field that was added in
    the round is named as an attribute is, but for an HTTP service."""
    key = name.removeprefix("attributes.")
    if key != name:
        return {"hubspot": key.lower(), "salesforce": f"{key}__c"}.get(kind, name)
    if name.startswith(ADDED) and kind == "salesforce":
        return f"{name}__c"
    return _FIELDS.get((kind, type), {}).get(name, name)


def value_at(kind: str, value: Any) -> Any:
    """What becomes of a value there."""
    as_text = kind == "hubspot" or (kind == "salesforce" and isinstance(value, list))
    return value if isinstance(value, str) or not as_text else msgspec.json.encode(value).decode()
