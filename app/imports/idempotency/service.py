"""The outcome of a request, looked up by its idempotency key; nothing here writes."""

import uuid
from datetime import datetime
from typing import Literal

import msgspec

from app.errors import NotFound
from app.imports.idempotency import queries
from app.kit.postgres.database import Connection

_KeyState = Literal["completed", "running", "expired"]


class KeyState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The request of an idempotency key; one that runs has a job to name once a part of its body is stored."""

    key: str
    state: _KeyState
    job_id: uuid.UUID | None = None
    status: int | None = None
    status_url: str | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None


async def read_key(connection: Connection, tenant_id: int, route: str, key: str) -> KeyState:
    """What became of the request with this key. Raises `NotFound`: no request with this key is known."""
    row = await queries.read_key(connection, tenant_id, route, key)
    if row is None:
        if await queries.key_is_running(connection, tenant_id, route, key):
            return KeyState(key=key, state="running")
        # It may have committed between the two looks.
        row = await queries.read_key(connection, tenant_id, route, key)
    if row is None:
        raise NotFound("No request with this Idempotency-Key is known; if one was sent, it left no effect.")
    state: _KeyState = "expired" if row.expired else "running" if row.answering else "completed"
    return KeyState(
        key=key,
        state=state,
        job_id=row.job_id,
        status=row.status,
        status_url=f"/v1/jobs/{row.job_id}",
        created_at=row.created_at,
        expires_at=row.expires_at,
    )
