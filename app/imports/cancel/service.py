"""The use case of canceling an import: what is not applied yet never will be, what is applied stays."""

import uuid
from typing import Final

import asyncpg
import msgspec
import structlog

from app.audit.queries import write_audit
from app.errors import JobNotCancelable, NotFound, TrancheError
from app.imports.cancel import queries as cancel_queries
from app.kit.postgres.database import Database
from app.vocabulary.outcomes_wire import JobError
from app.vocabulary.states import UNDECIDED_JOB_STATES, JobState

log = structlog.get_logger()

ERROR: Final = JobError(
    "CANCELED",
    "The job was canceled. Items that were applied before remain and are delivered to their destinations; "
    "`progress.not_processed` counts the others.",
)
_REASONS: Final = {
    JobState.SYNCING: "Every item of this job is applied and being delivered; to stop the delivery, pause "
    "or remove a destination.",
    JobState.FAILED: "This job has failed already; its error has the reason.",
}
_UNDO: Final = "An undo cannot be canceled; once it has finished, it can be undone itself."
_DONE: Final = "This job is completed: every item is decided, so there is nothing left to cancel."


async def cancel(database: Database, tenant_id: int, job_id: uuid.UUID, *, actor: str) -> None:
    """Cancel a job, or find it canceled. A chunk in flight is undone by whoever works on it.

    Raises:
        NotFound: the tenant has no such job.
        JobNotCancelable: every item of it is decided.
    """
    async with database.connection() as connection:
        error = msgspec.json.encode(ERROR).decode()
        async with connection.transaction():
            canceled = await cancel_queries.cancel_job(connection, tenant_id, job_id, error)
            if canceled:
                await write_audit(connection, tenant_id, actor, "job.cancel", f"job:{job_id}")
        if not canceled:
            state = await cancel_queries.read_state(connection, tenant_id, job_id)
            if state is None:
                raise NotFound("There is no such job.")
            if state is not JobState.CANCELED:
                raise JobNotCancelable(_UNDO if state in UNDECIDED_JOB_STATES else _REASONS.get(state, _DONE))
            return
    log.info("job_canceled", tenant_id=tenant_id, job_id=str(job_id))
    try:
        async with database.connection() as connection:
            await cancel_queries.remove_staged(connection, tenant_id, job_id)
    except (TrancheError, asyncpg.PostgresError) as failure:
        # The job is canceled all the same, and a sweeper removes what is left.
        log.warning("staged_left", job_id=str(job_id), error=str(failure))
