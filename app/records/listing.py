"""Lists of records: by id, by the value of a field, or in the order in which they changed; nothing here writes."""

import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import msgspec

from app.errors import Invalid
from app.history.versions import read_block, signature
from app.http.cursors import NextCursor
from app.kit.postgres.database import Connection
from app.records import queries
from app.records.queries import RecordRow
from app.records.service import RecordFacts, facts_of, members_of
from app.resources.declaration import Resource, define
from app.vocabulary.freshness import Freshness

_LONGEST: Final = 1.0
"""Seconds after which a page ends: it may hold fewer records than it could, even none."""
_NO_JOB: Final = uuid.UUID(int=0)
_MOST_PASSED: Final = 5_000
"""Runs of changes that are passed at a time on the way to one that may have a value."""
_EVER: Final = datetime.min.replace(tzinfo=UTC)


class ChangedAt(msgspec.Struct, frozen=True, array_like=True):
    """After which run of changes a page goes on."""

    time: datetime
    job_id: uuid.UUID
    first_index: int


@lru_cache(maxsize=512)
def row_shape(resource: Resource) -> Any:
    """The struct of a record of this type in a list."""
    return define(
        f"Listed{resource.title}",
        f"A {resource.singular} in a list.",
        # A tombstone has no fields.
        [(name, kind if name == "id" else kind | None) for name, kind in members_of(resource)]
        + [("deleted", bool, False)],
        module=__name__,
        bases=(RecordFacts,),
        frozen=True,
        kw_only=True,
        omit_defaults=True,
    )


@lru_cache(maxsize=512)
def page_shape(resource: Resource) -> Any:
    """The struct of a page of them."""
    row: Any = row_shape(resource)
    members: list[tuple[Any, ...]] = [("records", list[row]), ("next_cursor", NextCursor)]
    return define(
        f"{resource.title}List",
        f"A page of {resource.name}.",
        members,
        module=__name__,
        bases=(Freshness,),
        frozen=True,
    )


async def list_by_key(
    connection: Connection, tenant_id: int, resource: Resource, *, after: str, limit: int
) -> tuple[list[RecordRow], str | None]:
    """A page in the order of ids, and the id that the next one comes after (`None`: that was all)."""
    found = await queries.list_records(connection, tenant_id, resource.type_id, after=after, limit=limit + 1)
    return found[:limit], found[limit - 1].record_id if len(found) > limit else None


async def find_by_ids(
    connection: Connection, tenant_id: int, resource: Resource, ids: Sequence[str]
) -> list[RecordRow]:
    sound = [one for one in ids if "\0" not in one]
    return await queries.records_by_id(connection, tenant_id, resource.type_id, sound)


async def list_changed(
    connection: Connection,
    tenant_id: int,
    resource: Resource,
    *,
    since: datetime | None,
    having: tuple[str, str] | None,
    after: ChangedAt | None,
    limit: int,
) -> tuple[list[RecordRow], ChangedAt | None]:
    """Records that changed since then, tombstones too, or records `having` a value of a field; each once and as it is
    now, in the order of their last change. And after what the next page comes (`None`: that was all).

    The versions that jobs made are found by time; a record is listed where its current version was made. A page ends
    with a run of them, so it may hold more than `limit` by the rest of the run.

    Raises:
        Invalid: the type has no such field.
    """
    name, value = having or (None, None)
    if name is not None and name not in resource.names:
        raise Invalid(f"A {resource.singular} has no field {name!r}.")
    if value is not None and "\0" in value:
        return [], None
    at = after or ChangedAt(since or _EVER, _NO_JOB, -1)
    page: list[RecordRow] = []
    end = time.monotonic() + _LONGEST
    while len(page) < limit and time.monotonic() < end:
        run = await queries.next_changes(
            connection,
            tenant_id,
            resource.name,
            after_time=at.time,
            after_job=at.job_id,
            after_index=at.first_index,
            signature=having and signature(*having),
            most=_MOST_PASSED,
        )
        if run is None:
            return page, None
        at = ChangedAt(run.changed_at, run.job_id, run.first_index)
        ids = [version.record_id for block in run.versions or () for version in read_block(block)]
        page += await queries.current_records(
            connection, tenant_id, resource.type_id, run.job_id, ids, name=name, value=value
        )
    return page, at


def show_page(resource: Resource, rows: Sequence[RecordRow], next_cursor: str | None) -> Any:
    shape = row_shape(resource)
    return page_shape(resource)([shape(**facts_of(resource, row), deleted=row.deleted) for row in rows], next_cursor)
