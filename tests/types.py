"""Contacts as tests use them, where the product takes any type of record."""

from __future__ import annotations

from typing import Any, Final

from app.files.csv_mapping import names_of
from app.resources.decoding import reader_of
from app.resources.types.companies import COMPANIES
from app.resources.types.contacts import CONTACTS
from jobs.crm.port import SentRecord

__all__ = ["COMPANIES", "CONTACTS", "NAMES", "read_items", "sent"]

NAMES: Final = names_of(CONTACTS)
read_items: Final = reader_of(CONTACTS).read


def sent(key: str, version: int = 1, *, deleted: bool = False, **given: Any) -> SentRecord:
    """What a destination is sent; `given` are fields, `attributes`, `remote_id` and `adopted`."""
    rest = {name: given.pop(name) for name in ("attributes", "remote_id", "adopted") if name in given}
    return SentRecord(record_id=key, version=version, deleted=deleted, fields=given, **rest)
