"""`/v1/contacts/{id}`: a contact with its state at every destination, and its history: who changed what, when."""

from __future__ import annotations

import uuid
from typing import Annotated, Any, Final

import msgspec
from litestar import Request

from app.auth.authorization import Scopes
from app.http.cursors import Cursor, Index, NextCursor
from app.http.operation import Answer, Operation, Path, operation
from app.http.parameters import Page
from app.http.principal import Principal
from app.http.request_context import exchange_of
from app.kit.postgres.database import Connection
from app.records import history, service

_SUFFIX: Final = "/history"
_PREFIX: Final = "/v1/contacts/"
_VERSIONS: Final = Cursor[tuple[uuid.UUID, int]]("history", tuple[uuid.UUID, Index])

_CONTACT_ID: Final = Path(
    description="The business key; percent-encode it, slashes too.",
    schema={"type": "string", "minLength": 1, "maxLength": 255},
    example="c1",
    rest=True,
)


class RecordHistory(msgspec.Struct):
    """A page of a record's versions, newest first; `next_cursor` is null on the last one."""

    versions: list[history.Version]
    next_cursor: NextCursor


def _find_history(request: Request[Any, Any, Any]) -> Operation | None:
    """The history, if the path is that of one: an id is the whole rest of a record's path, slashes too, and one that
    ends like this differs by its slash being percent-encoded."""
    path = exchange_of(request.scope).path
    found = path.endswith(_SUFFIX) and len(path) > len(_PREFIX + _SUFFIX)
    return read_contact_history if found else None


@operation(
    "GET",
    "/v1/contacts/{record_id}",
    tag="contacts",
    access=Scopes("read"),
    answers=Answer("The record.", cache="private, no-cache"),
    instead=_find_history,
)
async def read_record(
    record_id: Annotated[str, _CONTACT_ID], principal: Principal, connection: Connection
) -> service.Contact:
    """A record and its state at every destination.

    The current version, with its state at every destination.
    """
    return await service.read_record(connection, principal.tenant_id, record_id)


@operation(
    "GET",
    "/v1/contacts/{record_id}/history",
    tag="contacts",
    access=Scopes("read"),
    answers=Answer("A page of versions.", cache="private, no-cache"),
)
async def read_contact_history(
    record_id: Annotated[str, _CONTACT_ID], query: Page, principal: Principal, connection: Connection
) -> RecordHistory:
    """Every version of a record.

    Newest first: who changed what, when, and whether it was undone. Also for a record whose creation was undone.
    """
    versions, last = await history.read_history(
        connection, principal.tenant_id, record_id, after=_VERSIONS.decode(query.cursor), limit=query.limit
    )
    return RecordHistory(versions, _VERSIONS.encode(last))
