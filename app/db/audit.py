"""The audit log, typed: who did what, when."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from app.db.pool import Connection
from app.db.sql import QUERIES

SYSTEM = "tranche"
"""The actor where nobody asked."""
OPERATOR = "operator"
"""The actor who works with the database itself: the command line of whoever runs the service."""


class Entry(msgspec.Struct, frozen=True):
    audit_id: int
    at: datetime
    actor: str
    action: str
    subject: str
    detail: str
    """JSON."""


async def write(
    connection: Connection,
    tenant_id: int,
    *,
    actor: str,
    action: str,
    subject: str,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Within the transaction of what it tells of. `subject` is like `job:ID` or `destination:NAME`."""
    told = msgspec.json.encode(detail or {}).decode()
    await connection.execute(QUERIES["write_audit"], tenant_id, actor, action, subject, told)


async def read(
    connection: Connection, tenant_id: int, *, subject: str | None, before: int | None, limit: int
) -> list[Entry]:
    """Newest first; of one subject, or of all."""
    if subject is None:
        rows = await connection.fetch(QUERIES["read_audit"], tenant_id, before, limit)
    else:
        rows = await connection.fetch(QUERIES["read_audit_of"], tenant_id, before, limit, subject)
    return [Entry(*row) for row in rows]
