"""The text fields of a contact, from which documents and files follow.

What else a new one needs: its check (`app.resources.decoding.Item`), and the names that files and CRMs have for it
(`app.resources.rules`, `app.destinations.kinds`).
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, UnsetType

JsonObject = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "object"})]
"""An object that goes out as it was stored."""


class ContactFields(msgspec.Struct, frozen=True, kw_only=True):
    """As they are stored."""

    email: str
    first_name: str | None
    last_name: str | None
    phone: str | None
    company: str | None


class ContactDocument(msgspec.Struct, frozen=True, kw_only=True):
    """As they are shown."""

    id: str
    email: str
    first_name: str | None
    last_name: str | None
    phone: str | None
    company: str | None
    attributes: JsonObject


class SentFields(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """As a destination receives them. `UNSET`: in no call; None: to be cleared there."""

    email: str | None
    first_name: str | UnsetType | None = UNSET
    last_name: str | UnsetType | None = UNSET
    phone: str | UnsetType | None = UNSET
    company: str | UnsetType | None = UNSET


STANDARD_FIELDS: Final = ContactFields.__struct_fields__
OPTIONAL_FIELDS: Final = STANDARD_FIELDS[1:]
"""Every item names the e-mail address."""


def fields_of(record: object) -> dict[str, Any]:
    """The fields of anything that has them, by name."""
    return {name: getattr(record, name) for name in STANDARD_FIELDS}
