"""The queries of idempotency keys that are looked up, typed."""

import uuid
from datetime import datetime

import msgspec

from app.kit.postgres.advisory_locks import lock_number
from app.kit.postgres.database import Connection
from app.kit.postgres.query import Query


class KeyRow(msgspec.Struct, frozen=True):
    status: int | None
    """None while the body arrives."""
    job_id: uuid.UUID
    created_at: datetime
    expires_at: datetime
    expired: bool
    answering: bool


read_key = Query[[int, str, str], KeyRow | None]("read_key")
"""(tenant_id, route, key)"""
_lock_is_held = Query[[int], bool]("key_is_running")


async def key_is_running(connection: Connection, tenant_id: int, route: str, key: str) -> bool:
    """Whether a request with this key is inside its transaction now."""
    return await _lock_is_held(connection, lock_number(tenant_id, route, key))
