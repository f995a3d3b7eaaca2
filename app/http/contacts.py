"""`GET /v1/contacts/{id}`: a contact as it stands, and where it has arrived."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from litestar import Request, get
from litestar.response.base import ASGIResponse

from app import status
from app.http import headers, history
from app.http.exchange import read_tail
from app.http.headers import Fields
from app.http.services import authorize, respond, services_of

_SCOPES: Final = frozenset({"read"})


@get("/v1/contacts/{contact_id:path}")
async def read_contact(request: Request[Any, Any, Any]) -> ASGIResponse:
    if history.is_history(request):
        return await history.answer_history(request)
    services = services_of(request)
    fields = Fields(request.scope["headers"])
    principal = await authorize(request, fields, services, _SCOPES)
    headers.choose_type(fields)
    headers.read_query(request.scope, ())
    contact_id = read_tail(request.scope, "/v1/contacts/")
    async with services.database.connection() as connection:
        contact = await status.read_contact(connection, principal.tenant_id, contact_id)
    return respond(msgspec.json.encode(contact), headers={"Cache-Control": "private, no-cache"})
