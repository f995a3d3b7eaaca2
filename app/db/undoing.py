"""The queries of taking back what a job changed, typed. Each is for the caller's transaction."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from app.db import audit
from app.db.pool import Connection
from app.db.processing import LONG_SECONDS, allow_long
from app.db.sql import QUERIES
from app.domain import naming
from app.domain.naming import Cleared, Known, Takings

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


class Standing(msgspec.Struct, frozen=True):
    """A contact that is locked, with who made this version and the one before."""

    contact_id: str
    version: int
    source_version: int | None
    job_id: uuid.UUID
    item_index: int
    prev_job_id: uuid.UUID | None
    prev_item_index: int | None
    known: Known
    withdrawn: Takings


class Maker(msgspec.Struct, frozen=True):
    """Who was behind a job."""

    job_id: uuid.UUID
    kind: str
    key_id: str
    request_id: str


class Before(msgspec.Struct, frozen=True):
    """A contact as it stood before an item."""

    contact_id: str
    source_version: int | None
    email: str
    first_name: str | None
    last_name: str | None
    phone: str | None
    company: str | None
    attributes: str
    known: Known


class Refused(msgspec.Struct, frozen=True):
    """An item that some destination finally refused, and its open dead letters."""

    item_index: int
    letters: list[int]


class Relatives(msgspec.Struct, frozen=True):
    undo_of: uuid.UUID | None = None
    undone_by: uuid.UUID | None = None
    compensated_by: uuid.UUID | None = None


async def lock_undoable(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> Undoable | None:
    row = await connection.fetchrow(QUERIES["lock_undoable"], tenant_id, job_id)
    return None if row is None else Undoable(*row)


async def find_undo(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> uuid.UUID | None:
    """The undo job of a job that is locked."""
    found: uuid.UUID | None = await connection.fetchval(QUERIES["find_undo"], tenant_id, job_id)
    return found


async def resume_undo(connection: Connection, tenant_id: int, job_id: uuid.UUID, *, actor: str) -> bool:
    """Take a job up that failed to take something back; the audit log tells of it.

    False: this is no such job, or it did not fail, so there is nothing to be taken up.
    """
    resumed = await connection.fetchval(QUERIES["resume_undo"], tenant_id, job_id) is not None
    if resumed:
        await audit.write(connection, tenant_id, actor=actor, action="undo.resume", subject=f"job:{job_id}")
    return resumed


async def count_changes(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> int:
    """Of tens of millions this takes its time."""
    await allow_long(connection)
    count: int = await connection.fetchval(QUERIES["count_changes"], tenant_id, job_id, timeout=LONG_SECONDS)
    return count


async def insert_undo(connection: Connection, new: NewUndo) -> None:
    await connection.execute(
        QUERIES["insert_undo"],
        new.tenant_id,
        new.job_id,
        new.root_job_id,
        new.request_id,
        new.key_id,
        new.undo_of,
        new.items,
    )


async def grow_undo(connection: Connection, tenant_id: int, job_id: uuid.UUID, by: int) -> None:
    await connection.execute(QUERIES["grow_undo"], tenant_id, job_id, by)


async def read_undo(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> UndoRow | None:
    row = await connection.fetchrow(QUERIES["read_undo"], tenant_id, job_id)
    return None if row is None else UndoRow(*row)


async def read_changes(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, *, before: int, limit: int
) -> list[Change]:
    """What a job changed, the last item before the index `before` first."""
    rows = await connection.fetch(QUERIES["undo_items"], tenant_id, job_id, before, limit)
    return [Change(*row) for row in rows]


async def read_changes_of(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, indexes: Sequence[int]
) -> list[Change]:
    """What these items changed, the last one first; those that changed nothing are left out."""
    rows = await connection.fetch(QUERIES["undo_items_at"], tenant_id, job_id, indexes)
    return [Change(*row) for row in rows]


async def lock_contacts(
    connection: Connection, tenant_id: int, contact_ids: Sequence[str]
) -> dict[str, Standing]:
    rows = await connection.fetch(QUERIES["lock_contacts"], tenant_id, contact_ids)
    return {row["contact_id"]: _read_standing(tuple(row)) for row in rows}


def _read_standing(row: tuple[Any, ...]) -> Standing:
    keys, cleared, withdrawn = row[12:]
    known = naming.know(row[7:12], keys, naming.read_cleared(cleared))
    return Standing(*(*row[:7], known, naming.read_withdrawn(withdrawn)))


async def read_makers(
    connection: Connection, tenant_id: int, job_ids: Sequence[uuid.UUID]
) -> dict[uuid.UUID, Maker]:
    rows = await connection.fetch(QUERIES["read_makers"], tenant_id, job_ids)
    return {row["job_id"]: Maker(*row) for row in rows}


async def find_own(
    connection: Connection,
    tenant_id: int,
    job_id: uuid.UUID,
    changes: Sequence[Change],
    standing: Sequence[Standing],
) -> set[int]:
    """Places of changes of the job whose very versions stand again, restored by undos of what came after them."""
    rows = await connection.fetch(
        QUERIES["find_own"],
        tenant_id,
        [found.job_id for found in standing],
        [found.item_index for found in standing],
        [change.item_index for change in changes],
        job_id,
    )
    return {row["place"] - 1 for row in rows}


async def read_befores(
    connection: Connection, tenant_id: int, changes: Sequence[Change]
) -> dict[int, Before]:
    """What stood before each change, by its place among them; where there was nothing it is left out."""
    rows = await connection.fetch(
        QUERIES["read_befores"],
        tenant_id,
        [change.prev_job_id for change in changes],
        [change.prev_item_index for change in changes],
    )
    return {row["place"] - 1: _read_before(tuple(row)[1:]) for row in rows}


def _read_before(row: tuple[Any, ...]) -> Before:
    *found, cleared = row
    return Before(*(*found, naming.know(row[2:7], _attributes(row[7]), naming.read_cleared(cleared))))


async def restore(
    connection: Connection,
    tenant_id: int,
    job_id: uuid.UUID,
    places: Sequence[int],
    changes: Sequence[Change],
    namings: Sequence[tuple[Cleared, Takings]],
) -> int:
    """Give locked contacts back what stood before these changes; `places` are the items of the job that does so.

    `namings`: what is cleared and what is withdrawn of each contact then.
    """
    if not changes:
        return 0
    rows = sorted(zip(changes, places, namings, strict=True), key=lambda row: row[0].contact_id)
    written: int = await connection.fetchval(
        QUERIES["restore_contacts"],
        tenant_id,
        job_id,
        [change.contact_id for change, *_ in rows],
        [place for _, place, _ in rows],
        [change.prev_job_id for change, *_ in rows],
        [change.prev_item_index for change, *_ in rows],
        [_as_json(cleared) for *_, (cleared, _) in rows],
        [_as_json(withdrawn) for *_, (_, withdrawn) in rows],
    )
    return written


def _as_json(value: Cleared | Takings) -> str | None:
    return msgspec.json.encode(value).decode() if value else None


async def is_unsettled(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> bool:
    """Whether anything of an import can still change at a destination."""
    return bool(await connection.fetchval(QUERIES["read_unsettled"], tenant_id, job_id))


async def last_refused(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, *, before: int
) -> int | None:
    """No item after this one, and before the index `before`, was finally refused; `None`: none at all."""
    index: int | None = await connection.fetchval(QUERIES["last_refused"], tenant_id, job_id, before)
    return index


async def read_refused(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, low: int, high: int
) -> list[Refused]:
    rows = await connection.fetch(QUERIES["refused_items"], tenant_id, job_id, low, high)
    return [Refused(*row) for row in rows]


async def drop_letters(
    connection: Connection, tenant_id: int, letters: Sequence[int], *, by: str, note: str
) -> None:
    await connection.execute(QUERIES["drop_letters"], tenant_id, letters, by, note)


async def read_relatives(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> Relatives:
    row = await connection.fetchrow(QUERIES["read_relatives"], tenant_id, job_id)
    return Relatives() if row is None else Relatives(*row)
