"""The use case of undoing a job: it is asked for here, and a saga of the workers does it (`jobs.sagas.undo`).

Nothing is ever deleted: the state before each item becomes a new version. A job is undone once; to have its changes
again, undo the undo job.
"""

import uuid
from collections.abc import Callable

import msgspec
import structlog

from app.audit.queries import write_audit
from app.errors import JobNotUndoable, NotFound
from app.history import queries as history
from app.kit.postgres.database import Database
from app.sagas import queries as saga_queries
from app.telemetry import SagaMoved, emit
from app.tracing import context
from app.tracing.context import TraceContext
from app.undo import queries as undo_queries
from app.undo.queries import NewUndo, Undoable
from app.undo.restore import WORKFLOW
from app.vocabulary.states import UNDECIDED_JOB_STATES, JobKind, SagaState

log = structlog.get_logger()


class Asked(msgspec.Struct, frozen=True):
    """The undo job; `new`: it did not exist before, or had failed and goes on now."""

    job_id: uuid.UUID
    new: bool


async def undo(
    database: Database,
    tenant_id: int,
    job_id: uuid.UUID,
    *,
    key_id: str,
    request_id: str,
    trace: TraceContext | None = None,
    new_id: Callable[[], uuid.UUID],
) -> Asked:
    """Have a job undone, or find that it is being undone already; an undo that failed goes on where it ended.

    Raises:
        NotFound: the tenant has no such job.
        JobNotUndoable: it is still at work, or there is nothing of its own to take back.
    """
    async with database.connection() as connection, connection.transaction():
        job = await undo_queries.lock_undoable(connection, tenant_id, job_id)
        if job is None:
            raise NotFound("There is no such job.")
        found = await undo_queries.find_undo(connection, tenant_id, job_id)
        if found is not None:
            resumed = await undo_queries.resume_undo(connection, tenant_id, found, actor=key_id)
            return Asked(found, new=resumed)
        _check(job_id, job)
        undo_id = new_id()
        changes = await history.count_versions(connection, tenant_id, job_id)
        await undo_queries.insert_undo(
            connection,
            NewUndo(
                tenant_id=tenant_id,
                job_id=undo_id,
                root_job_id=job.root_job_id,
                undo_of=job_id,
                request_id=request_id,
                trace_context=context.keep(trace),
                key_id=key_id,
                items=changes,
            ),
        )
        await saga_queries.begin(connection, tenant_id, new_id(), workflow=WORKFLOW, subject=undo_id, actor=key_id)
        for subject, detail in (
            (job_id, {"undo_job": str(undo_id), "changes": changes}),
            (undo_id, {"undo_of": str(job_id), "changes": changes}),
        ):
            await write_audit(connection, tenant_id, key_id, "undo.ask", f"job:{subject}", detail)
    log.info("undo_asked", tenant_id=tenant_id, job_id=str(job_id), undo_job_id=str(undo_id))
    state = SagaState.RUNNING
    emit(SagaMoved(tenant_id=tenant_id, workflow=WORKFLOW, subject=str(undo_id), state=state, began=True))
    return Asked(undo_id, new=True)


def _check(job_id: uuid.UUID, job: Undoable) -> None:
    if job.kind == JobKind.ERASE:
        raise JobNotUndoable("What was erased is not kept anywhere, so nobody can bring it back.")
    if job.kind not in (JobKind.IMPORT, JobKind.UNDO):
        known = (
            f"undo the job {job.root_job_id} that changed them"
            if job.root_job_id != job_id
            else "undo the jobs that changed them, which its dead letters name"
        )
        raise JobNotUndoable(f"A {job.kind} changes no record here, it only sends them again; {known}.")
    if job.dry_run:
        raise JobNotUndoable("This job was a dry run: it changed nothing.")
    if job.history_trimmed:
        raise JobNotUndoable(
            "This job changed records so long ago that the versions before are no longer kept "
            "(TRANCHE_HISTORY_RETENTION), so nobody knows what to restore. Import what the records shall hold."
        )
    if job.state in UNDECIDED_JOB_STATES:
        wait = "wait until it is done" if job.kind == JobKind.UNDO else "cancel it, or wait until it is done"
        raise JobNotUndoable(f"This job is {job.state}; {wait}, then undo it.")
