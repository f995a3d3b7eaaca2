"""A record as it is stored: one JSON object.

A name is that of a field, or `attributes.` and the key of an attribute. A name with null was cleared, and one that is
absent was never named.
"""

from typing import Any, Final

import msgspec

from app.resources.declaration import Resource

ATTRIBUTE: Final = "attributes."
ALL_ATTRIBUTES: Final = "attributes"
"""Among the names that an item clears: all attributes."""

Document = dict[str, Any]

read: Final = msgspec.json.Decoder(Document).decode


def fields_of(document: Document) -> Document:
    """What it names of fields: None where they were cleared."""
    return {name: value for name, value in document.items() if not name.startswith(ATTRIBUTE)}


def attributes_of(document: Document) -> dict[str, Any]:
    """By key."""
    start = len(ATTRIBUTE)
    return {name[start:]: value for name, value in document.items() if value is not None and name.startswith(ATTRIBUTE)}


def as_named(document: Document) -> dict[str, Any]:
    """The fields that it names, and the attributes."""
    return {**fields_of(document), "attributes": attributes_of(document)}


def as_shown(resource: Resource, document: Document) -> dict[str, Any]:
    """Every field of the type, and the attributes."""
    shown = {name: document.get(name) for name in resource.names}
    return {**shown, "attributes": attributes_of(document)} if resource.attributes else shown
