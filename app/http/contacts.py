"""`GET /v1/contacts/{id}`: a contact, and its state at every destination."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request

from app import contacts
from app.db.pool import Connection
from app.domain.principal import Principal
from app.http import history
from app.http.auth import Scopes
from app.http.operation import Answer, Operation, operation


def _route(request: Request[Any, Any, Any]) -> Operation | None:
    return history.read_contact_history if history.is_history(request) else None


@operation(
    "GET",
    "/v1/contacts/{contact_id}",
    tag="contacts",
    access=Scopes("read"),
    answers=Answer("The contact.", cache="private, no-cache"),
    instead=_route,
)
async def read_contact(
    contact_id: Annotated[str, history.CONTACT_ID], principal: Principal, connection: Connection
) -> contacts.Contact:
    """A contact and its state at every destination.

    The current version, with its state at every destination.
    """
    return await contacts.read_contact(connection, principal.tenant_id, contact_id)
