"""Steps that workflows share which restore records: a range of items a transaction, then the wait for destinations."""

import uuid
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import msgspec

from app.imports import processing_queries
from app.sagas.rules import Answer, Done, Wait
from app.undo import queries
from app.undo.queries import END, Change, UndoRow
from app.undo.restore import Restoration, Restored, restore
from app.vocabulary import outcomes_wire
from app.vocabulary.states import ErrorCode
from jobs.sagas.runner import StepContext

_LONGEST_WAIT: Final = 30.0
_SHARE: Final = 0.1
"""Of the time that a saga has waited already, until it looks again."""


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """The progress that a saga remembers. `before`: the items from this one on are done."""

    before: int = END
    done: int = 0
    restored: int = 0
    unchanged: int = 0
    conflicts: int = 0

    def add(self, found: Restored, *, before: int) -> "Tally":
        restored, unchanged, conflicts = (len(c) for c in (found.restored, found.unchanged, found.conflicts))
        return Tally(
            before=before,
            done=self.done + restored + unchanged + conflicts,
            restored=self.restored + restored,
            unchanged=self.unchanged + unchanged,
            conflicts=self.conflicts + conflicts,
        )

    def audit_detail(self) -> dict[str, Any]:
        return {"restored": self.restored, "already_taken_back": self.unchanged, "changed_since": self.conflicts}


def wait_longer(context: StepContext) -> Wait:
    """A saga that has waited for long can wait longer: a thousand of them must not ask every second."""
    return Wait(min(max(context.settings.saga_interval, _SHARE * context.saga.age), _LONGEST_WAIT))


async def restore_range(
    context: StepContext, job: UndoRow, changes: Sequence[Change], *, of: uuid.UUID, first_index: int
) -> Restored:
    """Restore a range of items; their destinations are notified once it is committed."""
    tenant_id = context.tenant_id
    restoration = Restoration(
        tenant_id=tenant_id,
        resource=await context.catalog.find(context.connection, tenant_id, job.type),
        job_id=job.job_id,
        request_id=job.request_id,
        of=of,
        chunk_size=context.settings.chunk_size,
    )
    found = await restore(context.connection, restoration, changes, first_index=first_index)
    for destination_id in found.to_notify:
        context.after_commit.append(partial(context.serve, tenant_id, destination_id))
    return found


async def end(context: StepContext, job_id: uuid.UUID) -> None:
    """Every item of the job is decided; the deliveries remain."""
    if await processing_queries.lock_undo(context.connection, context.tenant_id, job_id):
        await processing_queries.end_import(context.connection, context.tenant_id, job_id)


async def deliver(context: StepContext, job_id: uuid.UUID) -> Answer:
    """Wait until no effect of the job is open; what a destination refused has its dead letters."""
    job = await queries.read_undo(context.connection, context.tenant_id, job_id)
    if job is None or job.finished:
        return Done(audit_detail={"state": job.state} if job else {})
    return wait_longer(context)


async def fail(context: StepContext, job_id: uuid.UUID) -> None:
    """Not all can be restored. What was, remains: restoring it once more could lose later changes."""
    undoes = context.saga.workflow != "erase"
    rest = f"GET /v1/jobs/{job_id}/not-reached lists the records" if undoes else "progress.not_processed is the number"
    error = outcomes_wire.as_json(
        {
            "code": ErrorCode.INTERNAL,
            "detail": "Undoing failed repeatedly; the workers' log says why. What was restored remains so; "
            f"{rest} that were not. Retry this job to continue where it ended.",
        }
    )
    await processing_queries.fail_import(context.connection, context.tenant_id, job_id, error)
