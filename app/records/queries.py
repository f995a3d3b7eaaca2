"""The queries of a contact and its history, typed."""

from __future__ import annotations

import uuid
from datetime import datetime

from app.job_status.obstacles import Obstacle
from app.kit.postgres.database import Connection
from app.kit.postgres.query import Query
from app.vocabulary.contact_fields import ContactFields

Place = tuple[uuid.UUID, int]
"""A job and the item in it that made a version."""


class VersionRow(ContactFields, frozen=True, kw_only=True):
    """A contact as an item left it, and who sent that."""

    version: int
    changed_at: datetime
    job_id: uuid.UUID
    item_index: int
    source_version: int | None
    attributes: str
    kind: str | None
    key_id: str | None
    request_id: str | None
    undone_by: uuid.UUID | None


class ContactRow(ContactFields, frozen=True, kw_only=True):
    contact_id: str
    version: int
    source_version: int | None
    attributes: str
    job_id: uuid.UUID
    created_at: datetime
    updated_at: datetime
    cleared: str | None


class SyncRow(Obstacle, frozen=True):
    """A destination and what it holds of one contact; `state` is `None` while nothing was tried."""

    name: str
    created_at: datetime
    synced_version: int | None
    synced_at: datetime | None
    remote_id: str | None
    state: str | None
    state_version: int | None
    error_code: str | None
    error_detail: str | None
    created: bool | None
    not_restored: str | None


read_contact = Query[[int, str], ContactRow | None]("read_contact")
read_contact_syncs = Query[[int, str], list[SyncRow]]("read_contact_syncs")
contact_exists = Query[[int, str], bool]("contact_exists")
_read_history = Query[[int, str, uuid.UUID | None, int | None, int], list[VersionRow]]("read_history")


async def read_history(
    connection: Connection, tenant_id: int, contact_id: str, *, after: Place | None, limit: int
) -> list[VersionRow]:
    """Newest first, after the version that `after` made (`None`: from the newest)."""
    job_id, item_index = after or (None, None)
    return await _read_history(connection, tenant_id, contact_id, job_id, item_index, limit)
