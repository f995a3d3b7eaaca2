"""`/v1/{type}/{id}`: a record with its state at every destination, and its history: who changed what, when."""

import uuid
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from litestar import Request
from litestar.response.base import ASGIResponse
from litestar.response.streaming import ASGIStreamingResponse

from app.auth.authorization import Scopes
from app.errors import Invalid, NotFound
from app.history.versions import SEARCHED
from app.http.cursors import Cursor, Index, NextCursor
from app.http.headers import CSV, NDJSON
from app.http.operation import Answer, Fallback, Operation, Path, PerType, operation
from app.http.parameters import Page, TypeName
from app.http.principal import Principal
from app.http.request_context import exchange_of
from app.kit.postgres.database import Connection, Database
from app.records import history, listing, service
from app.records.export import Exports
from app.resource_types.catalog import Catalog
from app.settings import Settings
from app.vocabulary.freshness import Freshness

_SUFFIX: Final = "/history"
_SLASHES: Final = len("/v1/contacts/history".split("/")) - 1
"""Of the path of a record whose id is "history"."""
_BY_ID: Final = Cursor[str]("records", str)
_CHANGED: Final = Cursor[listing.ChangedAt]("changes", listing.ChangedAt)
_VERSIONS: Final = Cursor[tuple[uuid.UUID, int]]("history", tuple[uuid.UUID, Index])

_RECORD_ID: Final = Path(
    description="The business key; percent-encode it, slashes too.",
    schema={"type": "string", "minLength": 1, "maxLength": 255},
    example="c1",
    rest=True,
)


class RecordHistory(Freshness, frozen=True):
    """A page of a record's versions, newest first; `next_cursor` is null on the last one."""

    versions: list[history.Version]
    next_cursor: NextCursor


class ListQuery(Page, frozen=True, kw_only=True):
    updated_since: datetime | None = None
    """Only records that changed at or after this moment (RFC 3339), in the order of their last change; those that were
    deleted are shown as `deleted`. A transaction may commit after one that began later: who polls begins a minute
    earlier than where it ended."""
    ids: list[str] = msgspec.field(default_factory=list)
    """Only the record with this id; repeat it for more."""
    email: str | None = None
    """Only records with this e-mail address, in the order of their last change. A page may hold few of them, even none:
    go on while there is a `next_cursor`."""
    domain: str | None = None
    """The same by domain."""

    def __post_init__(self) -> None:
        chosen = [name for name in ("updated_since", "ids", *SEARCHED) if getattr(self, name)]
        if len(chosen) > 1:
            raise Invalid(f"{' and '.join(chosen)} cannot be combined; choose one of them.")
        if self.updated_since is not None and self.updated_since.tzinfo is None:
            raise Invalid("updated_since needs its offset, like 2026-03-31T12:00:00Z.")


def _find_history(request: Request[Any, Any, Any]) -> Operation | None:
    """The history, if the path is that of one: an id is the whole rest of a record's path, slashes too, and one that
    ends like this differs by its slash being percent-encoded."""
    path = exchange_of(request.scope).path
    return read_record_history if path.endswith(_SUFFIX) and path.count("/") > _SLASHES else None


@operation(
    "GET",
    "/v1/{type}",
    tag="records",
    access=Scopes("read"),
    answers=Answer("A page of records.", type=PerType(listing.page_shape), cache="private, no-cache"),
    fallback=Fallback(kind="record", offload=True),
)
async def list_records(
    type: TypeName, query: ListQuery, principal: Principal, catalog: Catalog, connection: Connection
) -> Any:
    """Records, in the order of their ids, or, of those that are searched for, of their last change."""
    resource, tenant_id = await catalog.find(connection, principal.tenant_id, type), principal.tenant_id
    if query.ids:
        rows = await listing.find_by_ids(connection, tenant_id, resource, query.ids)
        return listing.show_page(resource, rows, None)
    having = next(((name, value) for name in SEARCHED if (value := getattr(query, name)) is not None), None)
    if query.updated_since is not None or having:
        rows, at = await listing.list_changed(
            connection,
            tenant_id,
            resource,
            since=query.updated_since,
            having=having,
            after=_CHANGED.decode(query.cursor),
            limit=query.limit,
        )
        return listing.show_page(resource, rows, _CHANGED.encode(at))
    after = _BY_ID.decode(query.cursor) or ""
    rows, last = await listing.list_by_key(connection, tenant_id, resource, after=after, limit=query.limit)
    return listing.show_page(resource, rows, _BY_ID.encode(last))


@operation(
    "GET",
    "/v1/{type}:export",
    tag="records",
    access=Scopes("read"),
    offers=(NDJSON, CSV),
    answers=Answer(
        "Every record.",
        headers=("Disposition", "Vary"),
        cache="no-store",
        content={
            NDJSON: {"type": "string", "description": "One record a line, as lists show them."},
            CSV: {"type": "string", "description": "A column for each field and attribute; it can be imported again."},
        },
    ),
    fallback=Fallback(kind="record", kept=False, offload=True, long=True),
)
async def export_records(
    type: TypeName, principal: Principal, catalog: Catalog, exports: Exports, database: Database, media_type: str
) -> ASGIResponse:
    """All records of a type.

    As of one moment, in the order of their ids, streamed.
    """
    async with database.connection() as connection:
        resource = await catalog.find(connection, principal.tenant_id, type)
    parts = await exports.open(principal.tenant_id, resource, as_csv=media_type == CSV)
    ending = "csv" if media_type == CSV else "ndjson"
    headers = {
        "Vary": "Accept",
        "Content-Disposition": f'attachment; filename="{resource.name}.{ending}"',
        "Cache-Control": "no-store",
    }
    return ASGIStreamingResponse(iterator=parts, headers=headers, media_type=media_type)


@operation(
    "GET",
    "/v1/{type}/{record_id}",
    tag="records",
    access=Scopes("read"),
    answers=Answer("The record.", type=PerType(service.shape_of), cache="private, no-cache"),
    errors=(410,),
    instead=_find_history,
    fallback=Fallback(kind="record"),
)
async def read_record(
    type: TypeName,
    record_id: Annotated[str, _RECORD_ID],
    principal: Principal,
    settings: Settings,
    catalog: Catalog,
    connection: Connection,
) -> Any:
    """A record and its state at every destination.

    The current version, with its state at every destination.
    """
    resource = await catalog.find(connection, principal.tenant_id, type)
    try:
        return await service.read_record(connection, principal.tenant_id, resource, record_id)
    except NotFound:
        await service.check_erased(connection, settings, principal.tenant_id, resource, record_id)
        raise


@operation(
    "GET",
    "/v1/{type}/{record_id}/history",
    tag="records",
    access=Scopes("read"),
    answers=Answer("A page of versions.", cache="private, no-cache"),
    errors=(410,),
    fallback=Fallback(kind="record"),
)
async def read_record_history(
    type: TypeName,
    record_id: Annotated[str, _RECORD_ID],
    query: Page,
    principal: Principal,
    settings: Settings,
    catalog: Catalog,
    connection: Connection,
) -> RecordHistory:
    """Every version of a record.

    Newest first: who changed what, when, and whether it was undone. Also for a record whose creation was undone.
    """
    resource = await catalog.find(connection, principal.tenant_id, type)
    try:
        versions, last = await history.read_history(
            connection,
            principal.tenant_id,
            resource,
            record_id,
            after=_VERSIONS.decode(query.cursor),
            limit=query.limit,
        )
    except NotFound:
        await service.check_erased(connection, settings, principal.tenant_id, resource, record_id)
        raise
    return RecordHistory(versions, _VERSIONS.encode(last))
