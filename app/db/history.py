"""The queries of a contact's history, typed."""

from __future__ import annotations

import uuid
from datetime import datetime

import msgspec

from app.db.pool import Connection
from app.db.query import Query

Place = tuple[uuid.UUID, int]
"""A job and the item in it that made a version."""


class VersionRow(msgspec.Struct, frozen=True):
    """A contact as an item left it, and who sent that."""

    version: int
    changed_at: datetime
    job_id: uuid.UUID
    item_index: int
    source_version: int | None
    email: str
    first_name: str | None
    last_name: str | None
    phone: str | None
    company: str | None
    attributes: str
    kind: str | None
    key_id: str | None
    request_id: str | None
    undone_by: uuid.UUID | None


contact_exists = Query[[int, str], bool]("contact_exists")
"""(tenant_id, contact_id)"""
_read_history = Query[[int, str, uuid.UUID | None, int | None, int], list[VersionRow]]("read_history")


async def read_history(
    connection: Connection, tenant_id: int, contact_id: str, *, after: Place | None, limit: int
) -> list[VersionRow]:
    """Newest first, after the version that `after` made (`None`: from the newest)."""
    job_id, item_index = after or (None, None)
    return await _read_history(connection, tenant_id, contact_id, job_id, item_index, limit)
