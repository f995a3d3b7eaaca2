"""`/v1/jobs/{id}/items`: what became of every item of a job."""

import uuid
from typing import Annotated, Any, Final

import msgspec
from litestar import Request
from litestar.response.base import ASGIResponse
from litestar.response.streaming import ASGIStreamingResponse
from msgspec import UNSET, UnsetType

from app.auth.authorization import FOLLOWING
from app.errors import DatabaseUnavailable
from app.http import headers
from app.http.cursors import Cursor, Index, NextCursor, link_next
from app.http.errors import CursorInvalid
from app.http.headers import Fields
from app.http.operation import Answer, Fallback, Reply, operation, respond
from app.http.parameters import MOST, JobId
from app.http.principal import Principal
from app.http.request_context import Exchange
from app.job_status.items import failed_rows, item_filter, service
from app.job_status.items.queries import JobRef
from app.job_status.ownership import JobOwners
from app.kit.postgres.database import Database
from app.resource_types.catalog import Catalog
from app.vocabulary.freshness import Freshness
from app.vocabulary.states import EffectState, ErrorCode, ItemStatus

CSV_TYPE: Final = "text/csv; charset=utf-8; header=present"
POLL_SECONDS: Final = 1
"""After which asking again for items of an unfinished job is worth while."""

_CURSOR: Final = Cursor[tuple[uuid.UUID, int]]("items", tuple[uuid.UUID, Index])
"""The index that comes next."""
_encode: Final = msgspec.json.Encoder().encode


class ItemList(Freshness, frozen=True):
    """A page of items in request order. A filtered page may hold fewer than `limit` and still have a next one."""

    items: list[item_filter.JobItem]
    next_cursor: NextCursor


_PAGE: Final = 100
_Limit = Annotated[int, msgspec.Meta(ge=1, le=MOST)]
_STATUSES: Final = [str(word) for word in dict.fromkeys([*ItemStatus, *EffectState, item_filter.DRIFT])]


class ItemQuery(msgspec.Struct, frozen=True, kw_only=True):
    status: Annotated[str | None, msgspec.Meta(extra_json_schema={"enum": _STATUSES})] = None
    """Only items of this status: here (`ok`, `failed`, `retry`) or, with `destination`, the state there. Of a CSV, or
    with `sent=true`: a failure. `drift`: those in which a destination was found to differ."""
    destination: str | None = None
    """Filter by the state at this destination; `db` is the outcome here."""
    error_code: Annotated[str | None, msgspec.Meta(examples=[str(ErrorCode.INVALID_EMAIL)])] = None
    """Only items with this code, here or at a destination."""
    limit: Annotated[_Limit | UnsetType, msgspec.Meta(extra_json_schema={"default": _PAGE})] = UNSET
    """Most entries of one page."""
    cursor: str | None = None
    """`next_cursor` of the page before; without it, the first page."""
    sent: bool = False
    """`true`: only items that failed, each as it was sent. An item that a destination refused is given as it was
    stored. NDJSON returns JSON items unchanged; a CSV holds text only."""


_FAILED_ROWS: Final = (
    "The failed rows: `failed` or `retry` here, `failed` or `dead` at a destination, all in one download "
    "unless `limit` or `cursor` is given. First `error_code`, `error_detail` and `retry_after_seconds`, "
    "then the columns as they were uploaded, with field names where `map=` had renamed them: corrected or "
    "not, the file can be pushed as it is, without `map=`. A cell that a spreadsheet would execute (`=`, "
    "`+`, `-`, `@`, …) has an apostrophe in front, and an attribute that is named like a field has "
    "`attributes.`; both are reverted when the file is sent again. An unreadable row keeps its cells. "
    "Rows that a destination refused are the records as they were stored, without `if_version`. Items of "
    "JSON and NDJSON have a column for each field and each key; values that are not text are written as "
    "JSON and return as text; `null` is an empty cell."
)
_LINES: Final = (
    "One `JobItem` a line; the `Link` header names the next page. With `sent=true`: one failed item a line as it was "
    "sent, JSON with nothing added, to be corrected and pushed again."
)


@operation(
    "GET",
    "/v1/jobs/{job_id}/items",
    tag="jobs",
    access=FOLLOWING,
    offers=(),
    answers=Answer(
        "A page of items. A filtered one may hold fewer than `limit`, even none, and still have a next one. "
        "While the job is unfinished the last page ends before the first item that is not decided, its cursor "
        "waits there, and `Retry-After` says when to poll again: a client that follows the cursors sees each "
        "item once.",
        type=ItemList,
        headers=("Vary", "MaybeRetryAfter", "Disposition"),
        content={
            headers.NDJSON: {"type": "string", "description": _LINES},
            headers.CSV: {"type": "string", "description": _FAILED_ROWS},
        },
    ),
    errors=(406, 410),
    fallback=Fallback(kind="item"),
)
async def list_items(
    job_id: JobId,
    query: ItemQuery,
    fields: Fields,
    principal: Principal,
    exchange: Exchange,
    database: Database,
    catalog: Catalog,
    owners: JobOwners,
    request: Request[Any, Any, Any],
) -> Reply[ItemList] | ASGIResponse:
    """The items of a job with their outcome here and at every destination.

    In request order. An item that waits shows the reason and for how long. As `text/csv`, or as
    `application/x-ndjson` with `sent=true`: the rows that failed, to be corrected and pushed again.
    """
    offers = (headers.NDJSON, headers.CSV) if query.sent else (headers.JSON, headers.NDJSON, headers.CSV)
    media_type = headers.choose_type(fields, offers)
    wanted = item_filter.Filter(
        query.status, query.destination, query.error_code, lost=query.sent or media_type == headers.CSV
    )
    ndjson = media_type == headers.NDJSON
    wanted.check()
    await owners.check_read(principal, job_id)
    of_job, first = _CURSOR.decode(query.cursor) or (job_id, 0)
    if of_job != job_id:
        raise CursorInvalid()
    limit = _PAGE if query.limit is UNSET else query.limit
    whole = wanted.lost and query.limit is UNSET and query.cursor is None
    if whole and database.diverted:
        raise DatabaseUnavailable(retry_after=5.0)  # it is read in many steps, and some might come from elsewhere
    if whole and exchange.bodyless:
        async with database.connection() as connection:
            await service.read_items(JobRef(connection, principal.tenant_id, job_id), wanted, first=0, limit=1)
        return respond(b"", headers={"Vary": "Accept"} | _describe_file(job_id, media_type), media_type=media_type)
    if whole:
        download = await failed_rows.open_download(
            database, catalog, principal.tenant_id, job_id, wanted, ndjson=ndjson
        )
        more = _link_rest(request, job_id, download.position, waiting=download.position is not None)
        return ASGIStreamingResponse(
            iterator=download.parts, headers=more | _describe_file(job_id, media_type), media_type=media_type
        )
    async with database.connection() as connection:
        job = JobRef(connection, principal.tenant_id, job_id)
        if wanted.lost:
            body, page = await failed_rows.read_page(job, catalog, wanted, first=first, limit=limit, ndjson=ndjson)
        else:
            page = await service.read_items(job, wanted, first=first, limit=limit)
    more = _link_rest(request, job_id, page.position, waiting=page.waiting)
    if wanted.lost:
        return respond(body, headers=more | _describe_file(job_id, media_type), media_type=media_type)
    if ndjson:
        lines = b"".join(_encode(item) + b"\n" for item in page.items)
        return respond(lines, headers=more, media_type=media_type)
    return Reply(ItemList(page.items, _cursor(job_id, page.position)), headers=more)


def _link_rest(
    request: Request[Any, Any, Any], job_id: uuid.UUID, position: int | None, *, waiting: bool
) -> dict[str, str]:
    """Where the next page is, and when something will be there if that is only being decided."""
    fields = link_next(request.scope, _cursor(job_id, position)) | {"Vary": "Accept"}
    return fields | ({"Retry-After": str(POLL_SECONDS)} if waiting else {})


def _cursor(job_id: uuid.UUID, position: int | None) -> str | None:
    return None if position is None else _CURSOR.encode((job_id, position))


def _describe_file(job_id: uuid.UUID, media_type: str) -> dict[str, str]:
    content_type, suffix = (CSV_TYPE, "csv") if media_type == headers.CSV else (media_type, "ndjson")
    return {"Content-Type": content_type, "Content-Disposition": f'attachment; filename="job-{job_id}-failed.{suffix}"'}
