"""The history of a contact: every version with who made it, when, and its previous state. Nothing of it is ever lost,
not by an undo either, which is a version like any other."""

from __future__ import annotations

import uuid
from datetime import datetime

import msgspec

from app.errors import NotFound
from app.kit.postgres.database import Connection
from app.records import queries as rows
from app.records.queries import Place, VersionRow
from app.vocabulary.contact_fields import ContactFields, JsonObject, fields_of
from app.vocabulary.states import JobKind


class ContactVersion(ContactFields, frozen=True, kw_only=True):
    """A contact in that version."""

    source_version: int | None
    attributes: JsonObject


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a contact."""

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
    """The creation of the contact was undone by this change."""
    before: ContactVersion | None
    """Null: there was no contact."""
    after: ContactVersion | None
    """Null: there is none any more."""
    undone_by: uuid.UUID | None
    """The job that took this change back."""


async def read_history(
    connection: Connection, tenant_id: int, contact_id: str, *, after: Place | None, limit: int
) -> tuple[list[Version], Place | None]:
    """A page, newest first, and what the next one comes after (`None`: that was all).

    Raises:
        NotFound: the tenant has no such contact, and never had.
    """
    if "\0" in contact_id or not await rows.contact_exists(connection, tenant_id, contact_id):
        raise NotFound("There is no such contact, and never was.")
    # One more tells what stood before the last of the page.
    found = await rows.read_history(connection, tenant_id, contact_id, after=after, limit=limit + 1)
    page = found[:limit]
    versions = [_describe(row, older) for row, older in zip(page, [*found[1:], None], strict=False)]
    more = len(found) > limit
    return versions, (page[-1].job_id, page[-1].item_index) if more else None


def _describe(row: VersionRow, older: VersionRow | None) -> Version:
    return Version(
        version=row.version,
        changed_at=row.changed_at,
        kind=JobKind(row.kind or JobKind.IMPORT),
        job_id=row.job_id,
        item_index=row.item_index,
        key_id=row.key_id or "",
        request_id=row.request_id or "",
        deleted=not row.email,
        before=_fields(older),
        after=_fields(row),
        undone_by=row.undone_by,
    )


def _fields(row: VersionRow | None) -> ContactVersion | None:
    if row is None or not row.email:
        return None
    return ContactVersion(
        source_version=row.source_version, attributes=msgspec.Raw(row.attributes.encode()), **fields_of(row)
    )
