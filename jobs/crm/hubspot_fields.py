"""A contact as HubSpot properties, and whether a record that was read back carries them.

Property values are strings on this wire; the empty string clears a property.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from jobs.crm.port import Contact

STANDARD: Final = {
    "email": "email",
    "first_name": "firstname",
    "last_name": "lastname",
    "phone": "phone",
    "company": "company",
}
"""Our field → HubSpot's property."""

_OTHER: Final = re.compile(r"[^a-z0-9]+")
_encoder: Final = msgspec.json.Encoder(order="sorted", decimal_format="number")


class Fields:
    """How one destination names things.

    Every attribute goes, under its own name in lower case with each run of other characters as one `_`
    ("Subscription Date" → `subscription_date`). `mapping` ({attribute: property}) names exceptions, `null`
    keeps an attribute at home. HubSpot refuses a contact with a property that it does not know, and names it.

    Where two sources meet in one property, the key wins over a standard field, that over an attribute, and a
    mapped attribute over one that fell there by its name.

    Raises:
        ValueError: the key property is a standard field, or `mapping` is no object of strings and nulls.
    """

    def __init__(self, id_property: object, mapping: object) -> None:
        if not isinstance(id_property, str) or not id_property:
            raise ValueError("id_property must be the name of a HubSpot property")
        if id_property in STANDARD.values():
            raise ValueError(
                f"id_property cannot be {id_property!r}: a unique property must hold the key alone"
            )
        if not isinstance(mapping, Mapping) or not all(
            isinstance(k, str) and (v is None or (isinstance(v, str) and v)) for k, v in mapping.items()
        ):
            raise ValueError("properties must map attribute names to HubSpot property names, or to null")
        self.id_property = id_property
        self._mapping: dict[str, str | None] = dict(mapping)

    def sources(self, contact: Contact) -> dict[str, Any]:
        """Property → our value, before it becomes a string; the key property is among them."""
        found: dict[str, Any] = {}
        for name in sorted(contact.attributes, key=lambda name: (name not in self._mapping, name)):
            target = self._mapping[name] if name in self._mapping else property_name(name)
            if target is not None:
                found.setdefault(target, contact.attributes[name])
        for field, target in STANDARD.items():
            found[target] = getattr(contact, field)
        found[self.id_property] = contact.contact_id
        return found

    def properties(self, contact: Contact) -> dict[str, str]:
        """What an upsert of the contact sets."""
        return {name: text(value) for name, value in self.sources(contact).items()}

    def match(self, contact: Contact, record: Mapping[str, Any]) -> bool:
        """Whether the record carries every property that a push of the contact would set."""
        return all(_same(name, value, record.get(name)) for name, value in self.sources(contact).items())


@functools.lru_cache(4096)
def property_name(attribute: str) -> str:
    """HubSpot's internal names are lower-case ASCII; a name without any such character is its to refuse."""
    return _OTHER.sub("_", attribute.lower()).strip("_") or attribute


def text(value: Any) -> str:
    """A value as HubSpot takes it: `true`/`false`, plain numbers, nested values as JSON, `None` as empty."""
    if value is None:
        return ""
    return value if isinstance(value, str) else _encoder.encode(value).decode()


def _same(name: str, ours: Any, theirs: Any) -> bool:
    """HubSpot trims, writes e-mail addresses in lower case and numbers in its own way."""
    mine, other = text(ours).strip(), text(theirs).strip()
    if name == "email" or isinstance(ours, bool):
        return mine.casefold() == other.casefold()
    if mine != other and isinstance(ours, int | float | Decimal):
        try:
            return Decimal(mine) == Decimal(other)
        except InvalidOperation:
            return False
    return mine == other
