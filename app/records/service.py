"""A record as HTTP and the command line show it, with its state at every destination; nothing here writes."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from datetime import datetime
from typing import Any

import msgspec

from app.errors import NotFound
from app.job_status.obstacles import explain_wait
from app.kit.postgres.database import Connection
from app.records import queries
from app.records.queries import SyncRow
from app.resources import documents
from app.resources.contacts import ContactDocument
from app.vocabulary.states import EffectState


class RecordSync(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The state of a record's newest version at one destination."""

    state: EffectState
    synced_version: int = 0
    """The newest version that the destination is known to hold."""
    synced_at: datetime | None = None
    remote_id: str | None = None
    created: bool | None = None
    """Whether a call of Tranche made the record there; absent: not known, or there is none. An undo
    archives no other."""
    not_restored: list[str] | None = None
    """Fields that undos have left there as they were, because nobody knows what they held before."""
    error_code: str | None = None
    detail: str | None = None
    retry_after_seconds: int | None = None


class Contact(ContactDocument, frozen=True, kw_only=True):
    version: int
    source_version: int | None
    job_id: uuid.UUID
    """Who made this version."""
    created_at: datetime
    updated_at: datetime
    destinations: dict[str, RecordSync]


async def read_record(connection: Connection, tenant_id: int, record_id: str) -> Contact:
    """The current version of a record, with its state at every destination of the tenant.

    Raises:
        NotFound: the tenant has no such record.
    """
    row = None if "\0" in record_id else await queries.read_record(connection, tenant_id, record_id)
    if row is None:
        raise NotFound("There is no such record.")
    if row.deleted:
        raise NotFound(
            f"The creation of this record was undone by job {row.job_id}. Its history is kept (…/history), "
            f"and an import of this id creates it again."
        )
    syncs = await queries.read_record_syncs(connection, tenant_id, record_id)
    document = documents.read(row.document)
    return Contact(
        id=row.record_id,
        version=row.version,
        source_version=row.source_version,
        job_id=row.job_id,
        created_at=row.created_at,
        updated_at=row.updated_at,
        destinations={sync.name: _describe_sync(sync, row.version, row.updated_at, document) for sync in syncs},
        **documents.as_shown(document),
    )


def _describe_sync(sync: SyncRow, version: int, updated_at: datetime, named: Collection[str]) -> RecordSync:
    left = {} if sync.not_restored is None else msgspec.json.decode(sync.not_restored)
    held: dict[str, Any] = {
        "created": sync.created,
        "not_restored": sorted(name for name in left if name not in named) or None,
        "synced_version": sync.synced_version or 0,
        "synced_at": sync.synced_at,
        "remote_id": sync.remote_id,
    }
    settled = sync.state is not None and sync.state_version is not None and sync.state_version >= version
    state = EffectState(sync.state) if settled and sync.state else EffectState.PENDING
    if not settled and sync.created_at > updated_at:
        detail = "the destination was added after the record last changed; its next change goes there"
        return RecordSync(state=EffectState.SKIPPED, detail=detail, **held)
    code, detail_text = (sync.error_code, sync.error_detail) if settled else (None, None)
    seconds = None
    if state in (EffectState.PENDING, EffectState.RETRY, EffectState.UNKNOWN):
        blocked = explain_wait(sync)
        if blocked is not None:
            code, seconds = blocked.code or code, blocked.seconds
            detail_text = blocked.describe(detail_text)
    return RecordSync(state=state, error_code=code, detail=detail_text, retry_after_seconds=seconds, **held)
