"""What users of a CRM do: records that were there before an import, and fields that somebody types later."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from app.sandbox.ledger import Ledger, timestamp
from app.sandbox.records import Record, Records, effect_of

BY: Final = "user"


class Edit(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A record, by a property with unique values, and what is typed into it; `null` empties a field."""

    portal: str = "default"
    key_property: str
    key: str
    properties: dict[str, Any] = {}


def edit(records: Records, ledger: Ledger, wanted: Edit) -> Record:
    """Make the record if there is none, else set these properties of it; the ledger has a row of it either way."""
    at = timestamp()
    record = records.find(wanted.portal, wanted.key, wanted.key_property)
    created = record is None
    if record is None:
        record, *_ = records.upsert(wanted.portal, wanted.key_property, wanted.key, wanted.properties, at)
        changed = True
    else:
        changed = records.edit(record, wanted.properties, at)
    ledger.apply([effect_of(record, at, changed=changed, created=created, by=BY)])
    return record


def delete(records: Records, ledger: Ledger, portal: str, record_id: str) -> bool:
    """Take a record away; false: there is none with this id."""
    record = records.delete(portal, record_id)
    if record is not None:
        ledger.apply([effect_of(record, timestamp(), deleted=True, by=BY)])
    return record is not None
