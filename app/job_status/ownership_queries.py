"""Whose jobs are, typed."""

from __future__ import annotations

import uuid

from app.kit.postgres.database import Connection
from app.kit.postgres.query import Query

_read_keys = Query[[int, uuid.UUID], tuple[str | None, str | None] | None]("read_job_keys")


async def read_job_keys(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> frozenset[str]:
    """The keys that asked for this job or for the one that it began with; none: there is no such job."""
    keys = await _read_keys(connection, tenant_id, job_id)
    return frozenset(key for key in keys or () if key is not None)
