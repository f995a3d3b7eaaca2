"""The audit log, typed: who did what, when."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from app.kit.postgres.database import Connection
from app.kit.postgres.query import Json, Query
from app.vocabulary.outcomes_wire import JsonObject

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
    detail: Json[JsonObject]


_write = Query[[int, str, str, str, Json[Mapping[str, Any]]], None]("write_audit")


async def write_audit(
    connection: Connection,
    tenant_id: int,
    actor: str,
    action: str,
    subject: str,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Within the transaction of what it reports. `subject` is like `job:ID` or `destination:NAME`."""
    await _write(connection, tenant_id, actor, action, subject, detail or {})


_read_all = Query[[int, int | None, int], list[Entry]]("read_audit")
_read_of = Query[[int, int | None, int, str], list[Entry]]("read_audit_of")


async def read(
    connection: Connection, tenant_id: int, *, subject: str | None, before: int | None, limit: int
) -> list[Entry]:
    """Newest first; of one subject, or of all."""
    if subject is None:
        return await _read_all(connection, tenant_id, before, limit)
    return await _read_of(connection, tenant_id, before, limit, subject)
