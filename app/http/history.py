"""`/v1/contacts/{id}/history` and `/v1/audit-log`: who changed what, when."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from litestar import Request, get
from litestar.response.base import ASGIResponse

from app import audit, history
from app.http import cursors, headers
from app.http.cursors import NextCursor
from app.http.exchange import exchange_of, read_tail
from app.http.headers import Fields
from app.http.services import authorize, respond, services_of

PAGE: Final = 100
MOST: Final = 1_000
SUFFIX: Final = "/history"
_PREFIX: Final = "/v1/contacts/"
_TEMPLATE: Final = "/v1/contacts/{contact_id}/history"
_AUDIT: Final = "audit"
_READING: Final = frozenset({"read"})
_AUDITING: Final = frozenset({"read", "admin"})

_encode: Final = msgspec.json.Encoder().encode


class ContactHistory(msgspec.Struct):
    """A page of a contact's versions, newest first; `next_cursor` is null on the last one."""

    versions: list[history.Version]
    next_cursor: NextCursor


class AuditLog(msgspec.Struct):
    """A page of the audit log, newest first; `next_cursor` is null on the last one."""

    entries: list[audit.AuditEntry]
    next_cursor: NextCursor


def is_history(request: Request[Any, Any, Any]) -> bool:
    """Whether the path is that of a history: an id is the whole rest of a contact's path, slashes too, and one that
    ends like this is told apart by its slash being percent-encoded."""
    path = exchange_of(request.scope).path
    return path.endswith(SUFFIX) and len(path) > len(_PREFIX + SUFFIX)


@get("/v1/contacts/{contact_id:str}/history")
async def read_history(request: Request[Any, Any, Any]) -> ASGIResponse:
    """The framework takes such a path for that of a contact, whose handler passes it on."""
    return await answer_history(request)


async def answer_history(request: Request[Any, Any, Any]) -> ASGIResponse:
    request.scope["path_template"] = _TEMPLATE
    services = services_of(request)
    fields = Fields(request.scope["headers"])
    principal = await authorize(request, fields, services, _READING)
    headers.choose_type(fields)
    query = headers.read_query(request.scope, ("limit", "cursor"))
    limit = headers.read_limit(query, default=PAGE, most=MOST)
    after = cursors.decode_version(query["cursor"]) if "cursor" in query else None
    contact_id = read_tail(request.scope, _PREFIX, SUFFIX)
    async with services.database.connection() as connection:
        page = await history.read_history(
            connection, principal.tenant_id, contact_id, after=after, limit=limit
        )
    cursor = None if page.last is None else cursors.encode_version(*page.last)
    return respond(
        _encode(ContactHistory(page.versions, cursor)),
        headers=cursors.link_next(request.scope, query, cursor) | {"Cache-Control": "private, no-cache"},
    )


@get("/v1/audit-log")
async def read_audit_log(request: Request[Any, Any, Any]) -> ASGIResponse:
    services = services_of(request)
    fields = Fields(request.scope["headers"])
    principal = await authorize(request, fields, services, _AUDITING)
    headers.choose_type(fields)
    query = headers.read_query(request.scope, ("subject", "limit", "cursor"))
    limit = headers.read_limit(query, default=PAGE, most=MOST)
    before = cursors.decode_number(query["cursor"], _AUDIT) if "cursor" in query else None
    async with services.database.connection() as connection:
        entries, more = await audit.read_log(
            connection, principal.tenant_id, subject=query.get("subject"), before=before, limit=limit
        )
    cursor = None if more is None else cursors.encode_number(more, _AUDIT)
    return respond(
        _encode(AuditLog(entries, cursor)), headers=cursors.link_next(request.scope, query, cursor)
    )
