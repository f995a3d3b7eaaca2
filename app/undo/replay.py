"""The use case of replaying dead letters of an undo: an operator wants records restored although somebody changed them.

One transaction, within the caller's: the job, its items, the new versions and the deliveries are there, or nothing is.
"""

import uuid
from collections.abc import Callable, Sequence

import msgspec

from app.imports import processing_queries
from app.kit.postgres.database import Connection
from app.resources.declaration import Resource
from app.settings import Settings
from app.tracing import context
from app.tracing.context import TraceContext
from app.undo import queries
from app.undo.conflicts import Conflict
from app.undo.queries import NewUndo
from app.undo.restore import Restoration, Restored, restore
from app.vocabulary.states import JobState


class Replayable(msgspec.Struct, frozen=True):
    """An open dead letter that the caller's transaction holds."""

    record_id: str
    version: int
    conflict: Conflict


class Replayed(msgspec.Struct, frozen=True):
    job_id: uuid.UUID
    state: JobState
    restored: Restored


async def replay(
    connection: Connection,
    tenant_id: int,
    resource: Resource,
    root_job_id: uuid.UUID,
    dead_letters: Sequence[Replayable],
    settings: Settings,
    *,
    key_id: str,
    request_id: str,
    trace: TraceContext | None,
    new_id: Callable[[], uuid.UUID],
) -> Replayed:
    """Take back the items that these name, all of one undone job and each of another record, by a job of its own.

    Raises:
        SerializationError: one of the records was erased meanwhile.
    """
    of = dead_letters[0].conflict.job_id
    new = NewUndo(
        tenant_id=tenant_id,
        job_id=new_id(),
        root_job_id=root_job_id,
        undo_of=None,
        retakes=of,
        request_id=request_id,
        trace_context=context.keep(trace),
        key_id=key_id,
        items=len(dead_letters),
    )
    await queries.insert_undo(connection, new)
    job = Restoration(
        tenant_id=tenant_id,
        resource=resource,
        job_id=new.job_id,
        request_id=request_id,
        of=of,
        chunk_size=settings.chunk_size,
    )
    restored = await restore(
        connection,
        job,
        [one.conflict.change(one.record_id, one.version) for one in dead_letters],
        first_index=0,
        accepted=[one.conflict for one in dead_letters],
    )
    state = await processing_queries.end_import(connection, tenant_id, new.job_id)
    return Replayed(new.job_id, JobState(state or JobState.SYNCING), restored)
