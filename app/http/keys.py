"""`GET /v1/idempotency-keys/{key}`: what became of a request whose answer was lost."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, get
from litestar.response.base import ASGIResponse

from app import status
from app.errors import NotFound
from app.http import headers
from app.http.errors import KeyInvalid
from app.http.exchange import read_tail
from app.http.headers import Fields
from app.http.imports import ROUTE
from app.http.services import READING, authorize, respond, services_of


@get("/v1/idempotency-keys/{key:path}")
async def read_key(request: Request[Any, Any, Any]) -> ASGIResponse:
    services = services_of(request)
    fields = Fields(request.scope["headers"])
    principal = await authorize(request, fields, services, READING)
    headers.choose_type(fields)
    headers.read_query(request.scope, ())
    try:
        key = headers.parse_key(read_tail(request.scope, "/v1/idempotency-keys/"))
    except KeyInvalid as error:
        raise NotFound("No request can have this Idempotency-Key.") from error
    async with services.database.connection() as connection:
        found = await status.read_key(connection, principal.tenant_id, ROUTE, key)
    if found.job_id is not None:
        await services.owners.check_read(principal, found.job_id)
    return respond(msgspec.json.encode(found), headers={"Cache-Control": "no-store"})
