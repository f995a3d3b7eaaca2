"""`/v1/jobs/{id}/items`: what became of every item of a job."""

from __future__ import annotations

import uuid
from typing import Any, Final

import msgspec
from litestar import Request, get
from litestar.response.base import ASGIResponse
from litestar.response.streaming import ASGIStreamingResponse

from app import failed_rows, items, selection
from app.http import cursors, headers
from app.http.cursors import NextCursor
from app.http.exchange import exchange_of
from app.http.headers import Fields
from app.http.jobs import MOST, PAGE, parse_job_id
from app.http.services import READING, authorize, respond, services_of

CSV_TYPE: Final = "text/csv; charset=utf-8; header=present"
POLL_SECONDS: Final = 1
"""After which asking again for items of an unfinished job is worth while."""

_encode: Final = msgspec.json.Encoder().encode


class ItemList(msgspec.Struct):
    """A page of items in request order. A filtered page may hold fewer than `limit` and still have a next one."""

    items: list[selection.JobItem]
    next_cursor: NextCursor


@get("/v1/jobs/{job_id:str}/items")
async def list_items(request: Request[Any, Any, Any]) -> ASGIResponse:
    services = services_of(request)
    fields = Fields(request.scope["headers"])
    principal = await authorize(request, fields, services, READING)
    query = headers.read_query(
        request.scope, ("status", "destination", "error_code", "limit", "cursor", "sent")
    )
    sent = headers.read_flag(query, "sent")
    offers = (headers.NDJSON, headers.CSV) if sent else (headers.JSON, headers.NDJSON, headers.CSV)
    media_type = headers.choose_type(fields, offers)
    limit = headers.read_limit(query, default=PAGE, most=MOST)
    wanted = selection.Filter(
        query.get("status"),
        query.get("destination"),
        query.get("error_code"),
        lost=sent or media_type == headers.CSV,
    )
    ndjson = media_type == headers.NDJSON
    wanted.check()
    job = parse_job_id(request.path_params["job_id"])
    await services.owners.check_read(principal, job)
    first = cursors.decode_item(query["cursor"], job) if "cursor" in query else 0
    whole = wanted.lost and query.keys().isdisjoint(("limit", "cursor"))
    if whole and exchange_of(request.scope).bodyless:
        async with services.database.connection() as connection:
            await items.read_items(connection, principal.tenant_id, job, first=0, limit=1, wanted=wanted)
        return respond(
            b"", headers={"Vary": "Accept"} | _describe_file(job, media_type), media_type=media_type
        )
    if whole:
        download = await failed_rows.open_download(
            services.database, principal.tenant_id, job, wanted, ndjson=ndjson
        )
        told = _tell_rest(request, query, job, download.position, waiting=download.position is not None)
        return ASGIStreamingResponse(
            iterator=download.parts, headers=told | _describe_file(job, media_type), media_type=media_type
        )
    async with services.database.connection() as connection:
        if wanted.lost:
            body, page = await failed_rows.read_page(
                connection,
                principal.tenant_id,
                job,
                first=first,
                limit=limit,
                wanted=wanted,
                ndjson=ndjson,
            )
        else:
            page = await items.read_items(
                connection, principal.tenant_id, job, first=first, limit=limit, wanted=wanted
            )
    told = _tell_rest(request, query, job, page.position, waiting=page.waiting)
    if wanted.lost:
        return respond(body, headers=told | _describe_file(job, media_type), media_type=media_type)
    if ndjson:
        lines = b"".join(_encode(item) + b"\n" for item in page.items)
        return respond(lines, headers=told, media_type=media_type)
    cursor = None if page.position is None else cursors.encode_item(job, page.position)
    return respond(_encode(ItemList(page.items, cursor)), headers=told)


def _tell_rest(
    request: Request[Any, Any, Any],
    query: dict[str, str],
    job_id: uuid.UUID,
    position: int | None,
    *,
    waiting: bool,
) -> dict[str, str]:
    """Where the next page is, and when something will be there if that is only being decided."""
    cursor = None if position is None else cursors.encode_item(job_id, position)
    fields = cursors.link_next(request.scope, query, cursor) | {"Vary": "Accept"}
    return fields | ({"Retry-After": str(POLL_SECONDS)} if waiting else {})


def _describe_file(job_id: uuid.UUID, media_type: str) -> dict[str, str]:
    content_type, suffix = (CSV_TYPE, "csv") if media_type == headers.CSV else (media_type, "ndjson")
    return {
        "Content-Type": content_type,
        "Content-Disposition": f'attachment; filename="job-{job_id}-failed.{suffix}"',
    }
