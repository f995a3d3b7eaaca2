"""A record as it is stored: one JSON object.

A name is that of a field, or `attributes.` and the key of an attribute. A name with null was cleared, and one that is
absent was never named.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from app.resources.contacts import STANDARD_FIELDS

ATTRIBUTE: Final = "attributes."
ALL_ATTRIBUTES: Final = "attributes"
"""Among the names that an item clears: all attributes."""

Document = dict[str, Any]

read: Final = msgspec.json.Decoder(Document).decode


def fields_of(document: Document) -> dict[str, Any]:
    """The value of every field; None where it has none."""
    return {name: document.get(name) for name in STANDARD_FIELDS}


def attributes_of(document: Document) -> dict[str, Any]:
    """By key."""
    start = len(ATTRIBUTE)
    return {name[start:]: value for name, value in document.items() if value is not None and name.startswith(ATTRIBUTE)}


def as_shown(document: Document) -> dict[str, Any]:
    """The fields, and the attributes as JSON, as they are shown."""
    return {**fields_of(document), "attributes": msgspec.Raw(msgspec.json.encode(attributes_of(document)))}
