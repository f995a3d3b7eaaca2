"""The history of a record: every version with who made it, when, and its previous state. Nothing of it is lost by an
undo, which is a version like any other; but versions that were superseded long ago may be past their retention."""

import uuid
from datetime import datetime

import msgspec

from app.errors import NotFound
from app.history.versions import Place, StoredVersion
from app.kit.postgres.database import Connection
from app.records import queries as rows
from app.records.queries import VersionRow
from app.resources import documents
from app.resources.declaration import Resource
from app.vocabulary.outcomes_wire import JsonObject
from app.vocabulary.states import JobKind


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a record."""

    version: int
    changed_at: datetime
    kind: JobKind
    job_id: uuid.UUID
    item_index: int
    """Of the job."""
    key_id: str
    """The API key that asked for it."""
    request_id: str
    deleted: bool
    """The record was removed by this change: its creation was undone, or an item deleted it."""
    before: JsonObject | None
    """Its `source_version`, fields and attributes; null: there was no record, or `before_kept` is false."""
    before_kept: bool
    """False: the version before this one is past its retention, and gone."""
    after: JsonObject | None
    """The same afterwards; null: there is none any more."""
    undone_by: uuid.UUID | None
    """The job that took this change back."""


async def read_history(
    connection: Connection, tenant_id: int, resource: Resource, record_id: str, *, after: Place | None, limit: int
) -> tuple[list[Version], Place | None]:
    """A page, newest first, and what the next one comes after (`None`: that was all).

    Raises:
        NotFound: the tenant has no such record, and never had.
    """
    if "\0" in record_id or not await rows.record_exists(connection, tenant_id, resource.type_id, record_id):
        raise NotFound("There is no such record, and never was.")
    # One more shows what was there before the last of the page.
    found = await rows.read_history(connection, tenant_id, resource.type_id, record_id, after=after, limit=limit + 1)
    versions = [row.stored for row in found]
    more = len(found) > limit
    page = [
        _describe(resource, row, made, older)
        for row, made, older in zip(found[:limit], versions, [*versions[1:], None], strict=False)
    ]
    return page, (found[limit - 1].job_id, found[limit - 1].item_index) if more else None


def _describe(resource: Resource, row: VersionRow, made: StoredVersion, older: StoredVersion | None) -> Version:
    return Version(
        version=made.version,
        changed_at=row.changed_at,
        kind=JobKind(row.kind or JobKind.IMPORT),
        job_id=row.job_id,
        item_index=row.item_index,
        key_id=row.key_id or "",
        request_id=row.request_id or "",
        deleted=made.deleted,
        before=_fields(resource, older),
        before_kept=older is not None or made.version == 1,
        after=_fields(resource, made),
        undone_by=row.undone_by,
    )


def _fields(resource: Resource, stored: StoredVersion | None) -> msgspec.Raw | None:
    if stored is None or stored.deleted:
        return None
    shown = documents.as_shown(resource, documents.read(stored.document))
    return msgspec.Raw(msgspec.json.encode({"source_version": stored.source_version, **shown}))
