"""The queries of a record and its history, typed."""

import uuid
from collections.abc import Sequence
from datetime import datetime

import msgspec

from app.destinations.kinds import Reach
from app.history.versions import Place, StoredVersion, read_block
from app.job_status.obstacles import Obstacle
from app.kit.postgres.database import Connection
from app.kit.postgres.query import Query, query


class VersionRow(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a record, and who made it."""

    changed_at: datetime
    job_id: uuid.UUID
    item_index: int
    block: bytes
    place: int
    kind: str | None
    key_id: str | None
    request_id: str | None
    undone_by: uuid.UUID | None

    @property
    def stored(self) -> StoredVersion:
        return read_block(self.block)[self.place]


class RecordRow(msgspec.Struct, frozen=True, kw_only=True):
    record_id: str
    version: int
    source_version: int | None
    deleted: bool
    document: str
    job_id: uuid.UUID
    created_at: datetime
    updated_at: datetime
    cleared: str | None
    withdrawn: str | None


class SyncRow(Obstacle, frozen=True):
    """A destination and what it holds of one record; `state` is `None` while nothing was tried."""

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


read_record = Query[[int, int, str], RecordRow | None]("read_record")
"""(tenant_id, type_id, record_id), as `record_exists`."""
record_exists = Query[[int, int, str], bool]("record_exists")

attribute_keys = Query[[int, int, int], list[str]]("attribute_keys")
"""(tenant_id, type_id, limit)"""


@query
async def list_records(
    connection: Connection, tenant_id: int, type_id: int, *, after: str, limit: int
) -> list[RecordRow]: ...


@query
async def records_by_id(
    connection: Connection, tenant_id: int, type_id: int, record_ids: Sequence[str]
) -> list[RecordRow]: ...


class ChangesRow(msgspec.Struct, frozen=True):
    changed_at: datetime
    job_id: uuid.UUID
    first_index: int
    versions: list[bytes] | None


@query
async def next_changes(
    connection: Connection,
    tenant_id: int,
    type: str,
    *,
    after_time: datetime,
    after_job: uuid.UUID,
    after_index: int,
    signature: int | None,
    most: int,
) -> ChangesRow | None: ...


@query
async def current_records(
    connection: Connection,
    tenant_id: int,
    type_id: int,
    job_id: uuid.UUID,
    record_ids: Sequence[str],
    *,
    name: str | None,
    value: str | None,
) -> list[RecordRow]: ...


@query
async def read_record_syncs(
    connection: Connection, tenant_id: int, type_id: int, record_id: str, reach: Reach
) -> list[SyncRow]: ...


@query("read_history")
async def _read_history(
    connection: Connection,
    tenant_id: int,
    type_id: int,
    record_id: str,
    after_job: uuid.UUID | None,
    after_item: int | None,
    limit: int,
) -> list[VersionRow]: ...


async def read_history(
    connection: Connection, tenant_id: int, type_id: int, record_id: str, *, after: Place | None, limit: int
) -> list[VersionRow]:
    """Newest first, after the version that `after` made (`None`: from the newest)."""
    job_id, item_index = after or (None, None)
    return await _read_history(connection, tenant_id, type_id, record_id, job_id, item_index, limit)
