"""`/v1/destinations`: where a tenant's contacts are synced. Credentials go in and never come out."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

import msgspec
from litestar import Request, delete, get, patch, post
from litestar.response.base import ASGIResponse

from app import admin, circuits
from app.admin import Destination, DestinationChange, NewDestination
from app.circuits import CircuitOrder
from app.domain.addresses import parse_networks
from app.errors import NotFound
from app.http import headers
from app.http.exchange import exchange_of, read_tail
from app.http.headers import Fields
from app.http.json_bodies import read_json
from app.http.services import Services, authorize, respond, services_of, vault_of

_PATH: Final = "/v1/destinations/"
_READ: Final = frozenset({"read", "admin"})
_ADMIN: Final = frozenset({"admin"})

_encode: Final = msgspec.json.Encoder().encode


class DestinationList(msgspec.Struct):
    destinations: list[Destination]


@get("/v1/destinations")
async def list_destinations(request: Request[Any, Any, Any]) -> ASGIResponse:
    services, principal, _ = await _begin(request, _READ)
    workers = await services.workers.look()
    async with services.database.connection() as connection:
        found = await admin.list_destinations(connection, principal.tenant_id, workers)
    return respond(_encode(DestinationList(found)))


@get("/v1/destinations/{name:str}")
async def read_destination(request: Request[Any, Any, Any]) -> ASGIResponse:
    services, principal, _ = await _begin(request, _READ)
    return respond(_encode(await _find(services, principal.tenant_id, read_tail(request.scope, _PATH))))


@post("/v1/destinations")
async def add_destination(request: Request[Any, Any, Any]) -> ASGIResponse:
    services, principal, _ = await _begin(request, _ADMIN)
    remedy = "A destination is a small thing."
    new = await read_json(request, services, NewDestination, what="The destination", remedy=remedy)
    vault = vault_of(services)
    async with services.database.connection() as connection:
        private = parse_networks(services.settings.destination_private)
        added = await admin.add_destination(
            connection,
            vault,
            principal.tenant_id,
            new,
            private=private,
            most=services.settings.max_destinations,
            actor=principal.key_id,
        )
    return respond(_encode(added), 201, headers={"Location": _PATH + quote(added.name)})


@patch("/v1/destinations/{name:str}")
async def change_destination(request: Request[Any, Any, Any]) -> ASGIResponse:
    """Another token or other options: what waits goes on with them."""
    services, principal, _ = await _begin(request, _ADMIN)
    name = read_tail(request.scope, _PATH)
    remedy = "A change is a small thing."
    change = await read_json(request, services, DestinationChange, what="The change", remedy=remedy)
    vault = vault_of(services)
    async with services.database.connection() as connection:
        destination_id = await admin.change_destination(
            connection, vault, principal.tenant_id, name, change, actor=principal.key_id
        )
    reason = f"change:{exchange_of(request.scope).request_id}"
    services.waker.wake(principal.tenant_id, [destination_id], reason=reason)
    return respond(_encode(await _find(services, principal.tenant_id, name)))


@delete("/v1/destinations/{name:str}", status_code=200)
async def remove_destination(request: Request[Any, Any, Any]) -> ASGIResponse:
    """204: what is not delivered yet will be skipped; the history of what was stays."""
    await _set_state(request, "removed", "")
    return respond(b"", 204)


@post("/v1/destinations/{name:str}/pause", status_code=200)
async def pause_destination(request: Request[Any, Any, Any]) -> ASGIResponse:
    """Nothing is sent until it is resumed; what is to be sent is kept."""
    return respond(_encode(await _set_state(request, "paused", "/pause")))


@post("/v1/destinations/{name:str}/resume", status_code=200)
async def resume_destination(request: Request[Any, Any, Any]) -> ASGIResponse:
    return respond(_encode(await _set_state(request, "active", "/resume")))


@get("/v1/destinations/{name:str}/circuit")
async def read_circuit(request: Request[Any, Any, Any]) -> ASGIResponse:
    """How the circuit of the tenant's connection is and was."""
    services, principal, query = await _begin(request, _READ, ("limit",))
    limit = headers.read_limit(query, default=20, most=200)
    name = read_tail(request.scope, _PATH, "/circuit")
    async with services.database.connection() as connection:
        found = await circuits.read_circuit(connection, principal.tenant_id, name, limit)
    return respond(_encode(found))


@post("/v1/destinations/{name:str}/circuit", status_code=200)
async def set_circuit(request: Request[Any, Any, Any]) -> ASGIResponse:
    """Open or close it by hand, whatever the calls say; what tenants share is the operator's."""
    services, principal, _ = await _begin(request, _ADMIN)
    name = read_tail(request.scope, _PATH, "/circuit")
    remedy = "An order is a small thing."
    order = await read_json(request, services, CircuitOrder, what="The order", remedy=remedy)
    async with services.database.connection() as connection:
        destination_id = await circuits.set_circuit(
            connection, principal.tenant_id, name, order, actor=principal.key_id
        )
    reason = f"circuit:{exchange_of(request.scope).request_id}"
    services.waker.wake(principal.tenant_id, [destination_id], reason=reason)
    return respond(_encode(await _find(services, principal.tenant_id, name)))


async def _set_state(request: Request[Any, Any, Any], state: str, suffix: str) -> Destination | None:
    services, principal, _ = await _begin(request, _ADMIN)
    name = read_tail(request.scope, _PATH, suffix)
    async with services.database.connection() as connection:
        destination_id = await admin.set_destination_state(
            connection, principal.tenant_id, name, state, actor=principal.key_id
        )
    if state != "paused":
        # Its deliveries are due at once: to be sent, or to be recorded as skipped.
        reason = f"{state}:{exchange_of(request.scope).request_id}"
        services.waker.wake(principal.tenant_id, [destination_id], reason=reason)
    return None if state == "removed" else await _find(services, principal.tenant_id, name)


async def _begin(
    request: Request[Any, Any, Any], scopes: frozenset[str], known: tuple[str, ...] = ()
) -> tuple[Services, admin.Principal, dict[str, str]]:
    services = services_of(request)
    fields = Fields(request.scope["headers"])
    principal = await authorize(request, fields, services, scopes)
    headers.choose_type(fields)
    return services, principal, headers.read_query(request.scope, known)


async def _find(services: Services, tenant_id: int, name: str) -> Destination:
    workers = await services.workers.look()
    async with services.database.connection() as connection:
        found = await admin.list_destinations(connection, tenant_id, workers)
    for destination in found:
        if destination.name == name:
            return destination
    raise NotFound("There is no such destination.")
