"""The queries of dead letters that undos leave, typed. Each is for the caller's transaction."""

import uuid
from collections.abc import Sequence
from typing import Final

import msgspec

from app.kit.postgres.database import Connection
from app.kit.postgres.query import Query, query
from app.undo.conflicts import Conflict
from app.vocabulary.outcomes_wire import as_json
from app.vocabulary.states import SENTENCES, ErrorCode

_LISTED_BYTES: Final = 16_000
"""Of the items that one event lists, as in `app.deliveries.queries`."""


class OpenConflict(msgspec.Struct, frozen=True):
    """An open dead letter of an undone item."""

    dead_letter_id: int
    chain_id: int
    record_id: str
    item_index: int


class NewConflict(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter to be written."""

    record_id: str
    version: int
    """That the undone item made."""
    item_index: int
    """Of the job that could not restore it."""
    detail: str
    chain_id: int | None
    conflict: Conflict


lock_conflicts = Query[[int, int, Sequence[str], uuid.UUID], list[OpenConflict]]("lock_conflicts")
"""(tenant_id, type_id, record_ids, of) Open dead letters of these records and items of the job `of`."""


@query("insert_conflicts")
async def _insert(
    connection: Connection,
    tenant_id: int,
    type_id: int,
    job_id: uuid.UUID,
    request_id: str,
    code: str,
    record_ids: list[str],
    versions: list[int],
    item_indexes: list[int],
    details: list[str],
    chain_ids: list[int | None],
    conflicts: list[str],
) -> None: ...


@query("notify_conflicts")
async def _notify(
    connection: Connection,
    tenant_id: int,
    job_id: uuid.UUID,
    type: str,
    item_indexes: list[int],
    sentence: str,
    most_bytes: int,
) -> None: ...


async def insert(
    connection: Connection,
    tenant_id: int,
    type_id: int,
    type: str,
    job_id: uuid.UUID,
    request_id: str,
    left: Sequence[NewConflict],
) -> None:
    """Write a dead letter for each, and the event that reports them. `type`: the name of their type."""
    if not left:
        return
    indexes = [one.item_index for one in left]
    await _insert(
        connection,
        tenant_id,
        type_id,
        job_id,
        request_id,
        ErrorCode.VERSION_CONFLICT,
        [one.record_id for one in left],
        [one.version for one in left],
        indexes,
        [one.detail for one in left],
        [one.chain_id for one in left],
        [as_json(one.conflict) for one in left],
    )
    await _notify(connection, tenant_id, job_id, type, indexes, SENTENCES[ErrorCode.VERSION_CONFLICT], _LISTED_BYTES)


@query("supersede_conflicts")
async def supersede(connection: Connection, tenant_id: int, dead_letters: Sequence[int], *, note: str) -> None:
    """The job that undoes their items has decided about them again."""


being_erased = Query[[int, str, Sequence[str]], set[str]]("being_erased")
"""(tenant_id, type, record_ids) Those that an unfinished erasure names."""
