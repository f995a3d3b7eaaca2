"""`/v1/jobs/{id}/items`: what became of every item of a job."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from litestar import Request, get
from litestar.response.base import ASGIResponse

from app import items, selection
from app.http import cursors, headers
from app.http.headers import Fields
from app.http.jobs import MOST, PAGE, parse_job_id
from app.http.services import READING, authorize, respond, services_of

POLL_SECONDS: Final = 1
"""After which asking again for items of an unfinished job is worth while."""

_encode: Final = msgspec.json.Encoder().encode


class ItemList(msgspec.Struct):
    """A page of items in request order. A filtered page may hold fewer than `limit` and still have a next one."""

    items: list[selection.JobItem]
    next_cursor: str | None


@get("/v1/jobs/{job_id:str}/items")
async def list_items(request: Request[Any, Any, Any]) -> ASGIResponse:
    services = services_of(request)
    fields = Fields(request.scope["headers"])
    principal = await authorize(request, fields, services, READING)
    media_type = headers.choose_type(fields, (headers.JSON, headers.NDJSON))
    query = headers.read_query(request.scope, ("status", "destination", "error_code", "limit", "cursor"))
    limit = headers.read_limit(query, default=PAGE, most=MOST)
    wanted = selection.Filter(query.get("status"), query.get("destination"), query.get("error_code"))
    wanted.check()
    job = parse_job_id(request.path_params["job_id"])
    first = cursors.decode_item(query["cursor"], job) if "cursor" in query else 0
    async with services.database.connection() as connection:
        page = await items.read_items(
            connection, principal.tenant_id, job, first=first, limit=limit, wanted=wanted
        )
    cursor = None if page.position is None else cursors.encode_item(job, page.position)
    fields_out = cursors.link_next(request.scope, query, cursor) | {"Vary": "Accept"}
    if page.waiting:
        fields_out["Retry-After"] = str(POLL_SECONDS)
    if media_type == headers.NDJSON:
        lines = b"".join(_encode(item) + b"\n" for item in page.items)
        return respond(lines, headers=fields_out, media_type=media_type)
    return respond(_encode(ItemList(page.items, cursor)), headers=fields_out)
