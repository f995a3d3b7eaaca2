"""The queries of canceling an import, typed."""

import uuid

from app.kit.postgres.batched_delete import in_batches
from app.kit.postgres.database import Connection
from app.kit.postgres.query import Affected, Found, Query, query
from app.vocabulary.states import JobState


@query
async def cancel_job(connection: Connection, tenant_id: int, job_id: uuid.UUID, error: str) -> Found:
    """False: the job has no item left to decide, or does not exist. `error`: JSON, why."""


read_state = Query[[int, uuid.UUID], JobState | None]("read_job_state")
_remove_chunks = Query[[int, uuid.UUID], Affected]("remove_chunks")
_remove_repeats = Query[[int, uuid.UUID], Affected]("remove_repeats")
_is_staged = Query[[int, uuid.UUID], bool]("is_staged")


async def remove_staged(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> bool:
    """Remove the staged chunks of a finished job; each statement commits by itself.

    False: some is left, because somebody holds it or because it is much; call again later.
    """
    await in_batches(_remove_chunks, connection, tenant_id, job_id, batch_size=100)
    await in_batches(_remove_repeats, connection, tenant_id, job_id, batch_size=10_000)
    return not await _is_staged(connection, tenant_id, job_id)


orphaned_stages = Query[[int], list[uuid.UUID]]("orphaned_stages")
"""A tenant's finished jobs with staged chunks, for `remove_staged`."""
