"""Imports that ask for `consistency=all_destinations`: the saga that sees to it begins with the import itself."""

import uuid
from typing import Final

from app.kit.postgres.database import Connection
from app.sagas import queries

WORKFLOW: Final = "consistency"


async def promise(connection: Connection, tenant_id: int, job_id: uuid.UUID, *, key_id: str) -> None:
    """Within the transaction that accepts the import; `jobs.sagas.consistency` keeps it."""
    # A saga of an import needs no id that tells it from others of this import: there is one.
    saga_id = uuid.uuid5(job_id, WORKFLOW)
    await queries.begin(connection, tenant_id, saga_id, workflow=WORKFLOW, subject=job_id, actor=key_id)
