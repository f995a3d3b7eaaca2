"""The queries of taking back what a job changed, typed. Each is for the caller's transaction."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from app.audit.queries import write_audit
from app.imports.processing_queries import LONG_SECONDS, allow_long
from app.kit.postgres.database import Connection
from app.kit.postgres.query import Found, Query, query
from app.resources import field_states
from app.resources.field_states import Cleared, Known, Takings
from app.vocabulary.contact_fields import ContactFields, fields_of

_attributes: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

END: Final = 2**31 - 1
"""Above every item index."""


class Undoable(msgspec.Struct, frozen=True):
    """A job that shall be undone."""

    kind: str
    state: str
    root_job_id: uuid.UUID
    dry_run: bool


class NewUndo(msgspec.Struct, frozen=True, kw_only=True):
    """`undo_of`: `None` where only some items of the root are taken back; `items` then grows."""

    tenant_id: int
    job_id: uuid.UUID
    root_job_id: uuid.UUID
    undo_of: uuid.UUID | None
    request_id: str
    key_id: str
    items: int


class UndoRow(msgspec.Struct, frozen=True):
    job_id: uuid.UUID
    undo_of: uuid.UUID | None
    root_job_id: uuid.UUID
    state: str
    request_id: str
    key_id: str
    finished: bool


class Change(msgspec.Struct, frozen=True):
    """An item that made a version, and who made the one before (`None`: there was none)."""

    item_index: int
    contact_id: str
    version: int
    source_version: int | None
    prev_job_id: uuid.UUID | None
    prev_item_index: int | None


class Version(ContactFields, frozen=True, kw_only=True):
    """A version of a contact."""

    contact_id: str
    source_version: int | None
    cleared: str | None

    def know(self, attributes: Iterable[str]) -> Known:
        """What is known of it, which has these attributes."""
        return field_states.know(list(fields_of(self).values()), attributes, field_states.read_cleared(self.cleared))


class CurrentVersion(Version, frozen=True, kw_only=True):
    """A contact that is locked, with who made this version and the one before."""

    version: int
    job_id: uuid.UUID
    item_index: int
    prev_job_id: uuid.UUID | None
    prev_item_index: int | None
    keys: list[str]
    """Of its attributes."""
    withdrawn: str | None

    @property
    def known(self) -> Known:
        return self.know(self.keys)


class Maker(msgspec.Struct, frozen=True):
    """Who was behind a job."""

    job_id: uuid.UUID
    kind: str
    key_id: str
    request_id: str


class Before(Version, frozen=True, kw_only=True):
    """The state of a contact before an item."""

    place: int
    """Among what was asked for, from 1."""
    attributes: str

    @property
    def known(self) -> Known:
        return self.know(_attributes(self.attributes))


class Refused(msgspec.Struct, frozen=True):
    """An item that some destination finally refused, and its open dead letters."""

    item_index: int
    dead_letters: list[int]


lock_undoable = Query[[int, uuid.UUID], Undoable | None]("lock_undoable")
find_undo = Query[[int, uuid.UUID], uuid.UUID | None]("find_undo")
"""The undo job of a job that is locked."""
_resume_undo = Query[[int, uuid.UUID], Found]("resume_undo")


async def resume_undo(connection: Connection, tenant_id: int, job_id: uuid.UUID, *, actor: str) -> bool:
    """Resume a job that failed to undo something; the audit log records it.

    False: this is no such job, or it did not fail, so there is nothing to be taken up.
    """
    resumed = await _resume_undo(connection, tenant_id, job_id)
    if resumed:
        await write_audit(connection, tenant_id, actor, "undo.resume", f"job:{job_id}")
    return resumed


_count_changes = Query[[int, uuid.UUID], int]("count_changes", timeout=LONG_SECONDS)


async def count_changes(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> int:
    """Of tens of millions this takes its time."""
    await allow_long(connection)
    return await _count_changes(connection, tenant_id, job_id)


insert_undo = Query[[NewUndo], None]("insert_undo")
grow_undo = Query[[int, uuid.UUID, int], None]("grow_undo")
"""(tenant_id, job_id, by)"""
read_undo = Query[[int, uuid.UUID], UndoRow | None]("read_undo")


@query("undo_items")
async def read_changes(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, *, before: int, limit: int
) -> list[Change]:
    """What a job changed, the last item before the index `before` first."""


read_changes_of = Query[[int, uuid.UUID, Sequence[int]], list[Change]]("undo_items_at")
"""(tenant_id, job_id, indexes)

What these items changed, the last one first; those that changed nothing are left out.
"""
_lock_contacts = Query[[int, Sequence[str]], list[CurrentVersion]]("lock_contacts")


async def lock_contacts(
    connection: Connection, tenant_id: int, contact_ids: Sequence[str]
) -> dict[str, CurrentVersion]:
    return {row.contact_id: row for row in await _lock_contacts(connection, tenant_id, contact_ids)}


_read_makers = Query[[int, Sequence[uuid.UUID]], list[Maker]]("read_makers")


async def read_makers(connection: Connection, tenant_id: int, job_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, Maker]:
    return {maker.job_id: maker for maker in await _read_makers(connection, tenant_id, job_ids)}


_find_own = Query[[int, list[uuid.UUID], list[int], list[int], uuid.UUID], list[int]]("find_own")


async def find_own(
    connection: Connection,
    tenant_id: int,
    job_id: uuid.UUID,
    changes: Sequence[Change],
    current: Sequence[CurrentVersion],
) -> set[int]:
    """Positions of changes of the job whose versions are current again, restored by undos of later changes."""
    places = await _find_own(
        connection,
        tenant_id,
        [found.job_id for found in current],
        [found.item_index for found in current],
        [change.item_index for change in changes],
        job_id,
    )
    return {place - 1 for place in places}


_read_befores = Query[[int, list[uuid.UUID | None], list[int | None]], list[Before]]("read_befores")


async def read_befores(connection: Connection, tenant_id: int, changes: Sequence[Change]) -> dict[int, Before]:
    """The state before each change, by its position; absent if there was none."""
    jobs, indexes = [change.prev_job_id for change in changes], [change.prev_item_index for change in changes]
    return {row.place - 1: row for row in await _read_befores(connection, tenant_id, jobs, indexes)}


@query("restore_contacts")
async def _restore(
    connection: Connection,
    tenant_id: int,
    job_id: uuid.UUID,
    contact_ids: list[str],
    places: list[int],
    prev_job_ids: list[uuid.UUID | None],
    prev_item_indexes: list[int | None],
    cleared: list[str | None],
    withdrawn: list[str | None],
) -> int: ...


async def restore(
    connection: Connection,
    tenant_id: int,
    job_id: uuid.UUID,
    places: Sequence[int],
    changes: Sequence[Change],
    namings: Sequence[tuple[Cleared, Takings]],
) -> int:
    """Restore the state of locked contacts before these changes; `places` are the items of the job that does so.

    `namings`: what is cleared and what is withdrawn of each contact then.
    """
    if not changes:
        return 0
    rows = sorted(zip(changes, places, namings, strict=True), key=lambda row: row[0].contact_id)
    return await _restore(
        connection,
        tenant_id,
        job_id,
        [change.contact_id for change, *_ in rows],
        [place for _, place, _ in rows],
        [change.prev_job_id for change, *_ in rows],
        [change.prev_item_index for change, *_ in rows],
        [_as_json(cleared) for *_, (cleared, _) in rows],
        [_as_json(withdrawn) for *_, (_, withdrawn) in rows],
    )


def _as_json(value: Cleared | Takings) -> str | None:
    return msgspec.json.encode(value).decode() if value else None


is_unsettled = Query[[int, uuid.UUID], bool | None]("read_unsettled")
"""Whether anything of an import can still change at a destination."""


@query
async def last_refused(connection: Connection, tenant_id: int, job_id: uuid.UUID, *, before: int) -> int | None:
    """No item after this one, and before the index `before`, was finally refused; `None`: none at all."""


read_refused = Query[[int, uuid.UUID, int, int], list[Refused]]("refused_items")
"""(tenant_id, job_id, low, high)"""


@query
async def drop_dead_letters(
    connection: Connection, tenant_id: int, dead_letters: Sequence[int], *, by: str, note: str
) -> None: ...
