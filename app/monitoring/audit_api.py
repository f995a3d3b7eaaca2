"""`/v1/audit-log`: who did what, when."""

from typing import Annotated, Final

import msgspec

from app.audit import service
from app.auth.authorization import READING
from app.http.cursors import Cursor, NextCursor, Number
from app.http.operation import Answer, operation
from app.http.parameters import Page
from app.http.principal import Principal
from app.kit.postgres.database import Connection

_ENTRIES: Final = Cursor[int]("audit", Number)


class AuditLog(msgspec.Struct):
    """A page of the audit log, newest first; `next_cursor` is null on the last one."""

    entries: list[service.AuditEntry]
    next_cursor: NextCursor


class AuditPage(Page, frozen=True, kw_only=True):
    subject: Annotated[str | None, service.SUBJECT] = None
    """Only what concerns this one."""


@operation("GET", "/v1/audit-log", tag="audit", access=READING, answers=Answer("A page of entries."))
async def read_audit_log(query: AuditPage, principal: Principal, connection: Connection) -> AuditLog:
    """Who did what, when.

    Newest first: the steps of undos and compensations, and what operators decided.
    """
    entries, more = await service.read_log(
        connection, principal.tenant_id, subject=query.subject, before=_ENTRIES.decode(query.cursor), limit=query.limit
    )
    return AuditLog(entries, _ENTRIES.encode(more))
