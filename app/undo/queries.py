"""The queries of taking back what a job changed, typed. Each is for the caller's transaction."""

import uuid
from collections.abc import Sequence
from typing import Final

import msgspec

from app.audit.queries import write_audit
from app.history import queries as history
from app.history.versions import NOTHING, NewVersion, Place, StoredVersion
from app.kit.postgres.database import Connection
from app.kit.postgres.query import Found, Query, query
from app.resources import documents, field_states
from app.resources.field_states import Cleared, Known, Takings

END: Final = 2**31 - 1
"""Above every item index."""


class Undoable(msgspec.Struct, frozen=True):
    """A job that shall be undone."""

    kind: str
    state: str
    root_job_id: uuid.UUID
    dry_run: bool
    history_trimmed: bool
    """Versions that it made, or those before them, are gone."""


class NewUndo(msgspec.Struct, frozen=True, kw_only=True):
    """`undo_of`: `None` where only some items of a job are taken back: of the root, and `items` then grows; or of
    `retakes`, by a replay of dead letters."""

    tenant_id: int
    job_id: uuid.UUID
    root_job_id: uuid.UUID
    undo_of: uuid.UUID | None
    request_id: str
    trace_context: str | None
    key_id: str
    items: int
    retakes: uuid.UUID | None = None


class UndoRow(msgspec.Struct, frozen=True):
    job_id: uuid.UUID
    kind: str
    undo_of: uuid.UUID | None
    retakes: uuid.UUID | None
    root_job_id: uuid.UUID
    type: str
    state: str
    request_id: str
    trace_context: str | None
    key_id: str
    finished: bool


class Change(msgspec.Struct, frozen=True):
    """An item that made a version, and who made the one before (`None`: there was none)."""

    item_index: int
    stored: StoredVersion
    before: Place | None

    @property
    def record_id(self) -> str:
        return self.stored.record_id

    @property
    def version(self) -> int:
        return self.stored.version


class CurrentVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A record that is locked, with who made this version and the one before."""

    record_id: str
    version: int
    source_version: int | None
    document: str
    cleared: str | None
    withdrawn: str | None
    job_id: uuid.UUID
    item_index: int
    prev_job_id: uuid.UUID | None
    prev_item_index: int | None

    @property
    def known(self) -> Known:
        return field_states.know(documents.read(self.document), field_states.read_cleared(self.cleared))


class Maker(msgspec.Struct, frozen=True):
    """Who was behind a job."""

    job_id: uuid.UUID
    kind: str
    key_id: str
    request_id: str


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


insert_undo = Query[[NewUndo], None]("insert_undo")
grow_undo = Query[[int, uuid.UUID, int], None]("grow_undo")
"""(tenant_id, job_id, by)"""
read_undo = Query[[int, uuid.UUID], UndoRow | None]("read_undo")


async def read_changes(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, *, before: int, limit: int
) -> list[Change]:
    """What a job changed, the last item before the index `before` first."""
    found: list[Change] = []
    while len(found) < limit and (chunk := await history.chunk_before(connection, tenant_id, job_id, before)):
        found += [Change(index, stored, place) for index, stored, place in chunk.read() if index < before]
        before = chunk.first_index
    return found[:limit]


async def read_changes_of(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, indexes: Sequence[int]
) -> list[Change]:
    """What these items changed, the last one first; those that changed nothing are left out."""
    found = await history.read_versions(connection, tenant_id, [(job_id, index) for index in indexes])
    changes = [Change(index, stored, before) for (_, index), (stored, before) in found.items()]
    return sorted(changes, key=lambda change: -change.item_index)


_lock_records = Query[[int, int, Sequence[str]], list[CurrentVersion]]("lock_records")


async def lock_records(
    connection: Connection, tenant_id: int, type_id: int, record_ids: Sequence[str]
) -> dict[str, CurrentVersion]:
    return {row.record_id: row for row in await _lock_records(connection, tenant_id, type_id, record_ids)}


_read_makers = Query[[int, Sequence[uuid.UUID]], list[Maker]]("read_makers")


async def read_makers(connection: Connection, tenant_id: int, job_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, Maker]:
    return {maker.job_id: maker for maker in await _read_makers(connection, tenant_id, job_ids)}


@query("find_own")
async def _find_own(
    connection: Connection,
    tenant_id: int,
    job_ids: list[uuid.UUID],
    item_indexes: list[int],
    own_indexes: list[int],
    of: uuid.UUID,
) -> list[int]: ...


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


async def read_befores(connection: Connection, tenant_id: int, changes: Sequence[Change]) -> list[StoredVersion | None]:
    """The state before each change; `None`: there was no record, or a tombstone."""
    places = [change.before for change in changes if change.before is not None]
    found = await history.read_versions(connection, tenant_id, places)
    befores = [None if change.before is None else found[change.before][0] for change in changes]
    return [None if before is None or before.deleted else before for before in befores]


class RestoredRecord(msgspec.Struct, frozen=True):
    """The state that a locked record gets back, as a new version."""

    item_index: int
    """Of the job that restores it."""
    current: CurrentVersion
    before: StoredVersion | None
    cleared: Cleared
    withdrawn: Takings

    @property
    def nothing_withdrawn(self) -> str | None:
        """A tombstone without this is one that an item made (`app.deliveries.record_states`)."""
        return "{}" if self.before is None else None

    @property
    def made(self) -> NewVersion:
        found, before = self.current, self.before
        stored = StoredVersion(
            found.record_id,
            found.version + 1,
            None if before is None else before.source_version,
            before is None,
            msgspec.Raw(b"{}") if before is None else before.document,
            msgspec.Raw(msgspec.json.encode(self.cleared)) if self.cleared else NOTHING,
        )
        return NewVersion(self.item_index, stored, str(found.job_id), found.item_index)


@query("restore_records")
async def _restore(
    connection: Connection,
    tenant_id: int,
    type_id: int,
    job_id: uuid.UUID,
    record_ids: list[str],
    item_indexes: list[int],
    source_versions: list[int | None],
    deleted: list[bool],
    documents: list[str],
    cleared: list[str | None],
    withdrawn: list[str | None],
) -> int: ...


async def restore(
    connection: Connection, tenant_id: int, type_id: int, job_id: uuid.UUID, restored: Sequence[RestoredRecord]
) -> list[NewVersion]:
    """Give locked records back the state that they had."""
    if not restored:
        return []
    rows = sorted(restored, key=lambda row: row.current.record_id)
    made = [row.made for row in rows]
    await _restore(
        connection,
        tenant_id,
        type_id,
        job_id,
        [one.stored.record_id for one in made],
        [one.index for one in made],
        [one.stored.source_version for one in made],
        [one.stored.deleted for one in made],
        [bytes(one.stored.document).decode() for one in made],
        [_as_json(row.cleared) for row in rows],
        # Of a tombstone always: without it, an item has deleted the record (`app.deliveries.record_states`).
        [
            _as_json(row.withdrawn) or ("{}" if one.stored.deleted else None)
            for row, one in zip(rows, made, strict=True)
        ],
    )
    return made


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
