"""The audit log as it is shown: who did what, when, including steps of sagas and decisions of operators."""

from datetime import datetime
from typing import Annotated, Final

import msgspec

from app.audit import queries as rows
from app.kit.postgres.database import Connection
from app.vocabulary.outcomes_wire import JsonObject

SUBJECT: Final = msgspec.Meta(examples=["job:01992e3c-7a10-7c3e-8f4e-2b1d5c6a7f80", "destination:hubspot"])


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    at: datetime
    actor: str
    """The API key that did it or had it done; `operator`: whoever runs the service; `tranche`: nobody asked."""
    action: str
    subject: Annotated[str, SUBJECT]
    detail: JsonObject


async def read_log(
    connection: Connection, tenant_id: int, *, subject: str | None, before: int | None, limit: int
) -> tuple[list[AuditEntry], int | None]:
    """A page, newest first, and what to ask the next one `before`."""
    if subject is not None and "\0" in subject:
        return [], None
    found = await rows.read(connection, tenant_id, subject=subject, before=before, limit=limit + 1)
    page = found[:limit]
    entries = [msgspec.convert(entry, AuditEntry, from_attributes=True) for entry in page]
    return entries, page[-1].audit_id if len(found) > limit else None
