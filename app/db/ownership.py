"""Whose jobs are, typed."""

from __future__ import annotations

import uuid

from app.db.pool import Connection
from app.db.sql import QUERIES


async def read_job_keys(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> frozenset[str]:
    """The keys that asked for this job or for the one that it began with; none: there is no such job."""
    row = await connection.fetchrow(QUERIES["read_job_keys"], tenant_id, job_id)
    return frozenset() if row is None else frozenset(key for key in row if key is not None)
