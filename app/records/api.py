"""`GET /v1/contacts/{id}`: a contact, and its state at every destination."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request

from app.auth.authorization import Scopes
from app.http.operation import Answer, Operation, operation
from app.http.principal import Principal
from app.kit.postgres.database import Connection
from app.records import history_api, service


def _route(request: Request[Any, Any, Any]) -> Operation | None:
    return history_api.read_contact_history if history_api.is_history(request) else None


@operation(
    "GET",
    "/v1/contacts/{contact_id}",
    tag="contacts",
    access=Scopes("read"),
    answers=Answer("The contact.", cache="private, no-cache"),
    instead=_route,
)
async def read_contact(
    contact_id: Annotated[str, history_api.CONTACT_ID], principal: Principal, connection: Connection
) -> service.Contact:
    """A contact and its state at every destination.

    The current version, with its state at every destination.
    """
    return await service.read_contact(connection, principal.tenant_id, contact_id)
