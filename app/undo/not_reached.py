"""Records that an undo has not come to: those of a failed one are named by nothing else."""

import uuid
from typing import Any

import msgspec

from app.errors import NotFound
from app.kit.postgres.database import Connection
from app.kit.postgres.transactions import one_moment
from app.sagas import consistency
from app.sagas import queries as sagas
from app.undo import queries
from app.undo.queries import END, Change, UndoRow
from app.undo.restore import RANGE, WORKFLOW
from app.vocabulary.states import JobKind


class NotReached(msgspec.Struct, frozen=True):
    """A record that is to be restored."""

    type: str
    record_id: str
    version: int
    """That is to be taken back."""
    job_id: uuid.UUID
    """The job that made it…"""
    item_index: int
    """…and its item."""


async def list_not_reached(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, *, before: int | None, limit: int
) -> tuple[list[NotReached], int | None]:
    """A page, and before which item of the undone job the next one goes on (`None`: that was all).

    Raises `NotFound`: the tenant has no such job.
    """
    async with one_moment(connection):
        job = await queries.read_undo(connection, tenant_id, job_id)
        if job is None:
            raise NotFound("There is no such job.")
        if job.kind != JobKind.UNDO or job.retakes is not None:
            return [], None  # it takes nothing back, or all at once
        if job.undo_of is not None:
            data = await sagas.read_data(connection, tenant_id, WORKFLOW, job_id)
            of, changes, position = await _of_undo(connection, tenant_id, job.undo_of, _first(data, before), limit)
        else:
            data = await sagas.read_data(connection, tenant_id, consistency.WORKFLOW, job.root_job_id)
            of, changes, position = await _of_compensation(
                connection, tenant_id, job, _first((data or {}).get("tally"), before), limit
            )
    return [NotReached(job.type, c.record_id, c.version, of, c.item_index) for c in changes], position


def _first(tally: Any, before: int | None) -> int:
    """Before which item the list begins: the items from the remembered one on are done."""
    reached: int = (tally or {}).get("before", END)
    return reached if before is None else min(reached, before)


async def _of_undo(
    connection: Connection, tenant_id: int, of: uuid.UUID, before: int, limit: int
) -> tuple[uuid.UUID, list[Change], int | None]:
    changes = await queries.read_changes(connection, tenant_id, of, before=before, limit=limit)
    return of, changes, changes[-1].item_index if len(changes) == limit else None


async def _of_compensation(
    connection: Connection, tenant_id: int, job: UndoRow, before: int, limit: int
) -> tuple[uuid.UUID, list[Change], int | None]:
    """Of an import, what destinations refused and nobody has decided about since."""
    of = job.root_job_id
    found: list[Change] = []
    while len(found) < limit:
        high = await queries.last_refused(connection, tenant_id, of, before=before)
        if high is None:
            return of, found, None
        before = max(0, high - RANGE + 1)
        refused = await queries.read_refused(connection, tenant_id, of, before, high)
        found += await queries.read_changes_of(connection, tenant_id, of, [item.item_index for item in refused])
    page = found[:limit]
    return of, page, page[-1].item_index
