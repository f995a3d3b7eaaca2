"""A record as HTTP and the command line show it, with its state at every destination; nothing here writes."""

import uuid
from collections.abc import Collection
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import UNSET

from app.destinations.kinds import reach_of
from app.erasure import service as erasure
from app.errors import NotFound
from app.http.encryption_key import open_vault
from app.job_status.obstacles import explain_wait
from app.kit.postgres.database import Connection
from app.records import queries
from app.records.queries import RecordRow, SyncRow
from app.resources import documents
from app.resources.declaration import Resource, define
from app.settings import Settings
from app.vocabulary.freshness import AgeSeconds, Stale
from app.vocabulary.outcomes_wire import JsonObject
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


class RecordFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What every record has beside its fields."""

    version: int
    source_version: int | None
    job_id: uuid.UUID
    """Who made this version."""
    created_at: datetime
    updated_at: datetime


class RecordState(RecordFacts, frozen=True, kw_only=True):
    """What a record by itself has beside its fields."""

    destinations: dict[str, RecordSync]
    stale: Stale = UNSET
    age_seconds: AgeSeconds = UNSET


def members_of(resource: Resource) -> list[tuple[Any, ...]]:
    """Of a record as it is shown."""
    return [*resource.as_shown(), *([("attributes", JsonObject)] if resource.attributes else [])]


def facts_of(resource: Resource, row: RecordRow) -> dict[str, Any]:
    """A record as it is shown, by the names of its members."""
    shown = documents.as_shown(resource, documents.read(row.document))
    if resource.attributes:
        shown["attributes"] = msgspec.Raw(msgspec.json.encode(shown["attributes"]))
    facts = {name: getattr(row, name) for name in RecordFacts.__struct_fields__}
    return {"id": row.record_id, **shown, **facts}


@lru_cache(maxsize=512)
def shape_of(resource: Resource) -> Any:
    """The struct of a record of this type as it is shown, with its state at every destination."""
    return define(
        resource.title,
        f"A {resource.singular}.",
        members_of(resource),
        module=__name__,
        bases=(RecordState,),
        frozen=True,
        kw_only=True,
    )


async def read_record(connection: Connection, tenant_id: int, resource: Resource, record_id: str) -> Any:
    """The current version of a record (`shape_of` its type), with its state at every destination it goes to.

    Raises:
        NotFound: the tenant has no such record.
    """
    row = None if "\0" in record_id else await queries.read_record(connection, tenant_id, resource.type_id, record_id)
    if row is None:
        raise NotFound(f"There is no such {resource.singular}.")
    if row.deleted:
        deletion = "deleted" if row.withdrawn is None else "removed when its creation was undone"
        raise NotFound(
            f"This {resource.singular} was {deletion} by job {row.job_id}. Its history is kept (…/history), and an "
            "import of this id creates it again."
        )
    syncs = await queries.read_record_syncs(connection, tenant_id, resource.type_id, record_id, reach_of(resource))
    named = documents.read(row.document)
    return shape_of(resource)(
        **facts_of(resource, row),
        destinations={sync.name: _describe_sync(sync, row.version, row.updated_at, named) for sync in syncs},
    )


async def check_erased(
    connection: Connection, settings: Settings, tenant_id: int, resource: Resource, record_id: str
) -> None:
    """Raises `RecordErased`: there is no such record any more, not even deleted, because it was erased."""
    if settings.secret_key and not await queries.record_exists(connection, tenant_id, resource.type_id, record_id):
        await erasure.check_erased(connection, open_vault(settings), tenant_id, resource, record_id)


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
