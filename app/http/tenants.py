"""`/v1/tenants`: for whoever runs the service, with the token of TRANCHE_OPERATOR_TOKEN."""

from __future__ import annotations

import hmac
from typing import Any, Final
from urllib.parse import quote

import msgspec
from litestar import Request, get, patch, post
from litestar.response.base import ASGIResponse

from app import keys
from app.db import audit
from app.errors import Conflict, Forbidden, NotFound, Unauthorized
from app.http import headers
from app.http.api_keys import KeySecret
from app.http.exchange import exchange_of, read_tail
from app.http.headers import Fields
from app.http.json_bodies import read_json
from app.http.services import Services, respond, services_of
from app.keys import NewKey, Tenant

PATH: Final = "/v1/tenants"
_REMEDY: Final = "What is said about a tenant is short."
_NO_STORE: Final = {"Cache-Control": "no-store"}

_encode: Final = msgspec.json.Encoder().encode


class TenantList(msgspec.Struct):
    """All tenants, by name."""

    tenants: list[Tenant]


class NewTenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tenant to be made."""

    name: str


class TenantChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether the tenant is disabled: its keys are refused, and nothing goes in or out."""

    disabled: bool


def is_operator(fields: Fields, token: str) -> bool:
    """Whether the request carries this bearer token; an empty one is nobody's."""
    scheme, _, sent = (fields.one("authorization") or "").partition(" ")
    return (
        bool(token)
        and scheme.lower() == "bearer"
        and hmac.compare_digest(sent.strip().encode(), token.encode())
    )


@get(PATH)
async def list_tenants(request: Request[Any, Any, Any]) -> ASGIResponse:
    services = _begin(request)
    async with services.database.connection() as connection:
        return respond(_encode(TenantList(await keys.list_tenants(connection))), headers=_NO_STORE)


@post(PATH)
async def create_tenant(request: Request[Any, Any, Any]) -> ASGIResponse:
    services = _begin(request)
    new = await read_json(request, services, NewTenant, what="The tenant", remedy=_REMEDY)
    async with services.database.connection() as connection:
        if await _find(services, new.name) is not None:
            raise Conflict(f"There is a tenant {new.name!r} already.")
        await keys.ensure_tenant(connection, new.name)
        (made,) = await keys.list_tenants(connection, new.name)
    return respond(_encode(made), 201, headers=_NO_STORE | {"Location": f"{PATH}/{quote(made.name)}"})


@get(PATH + "/{name:str}")
async def read_tenant(request: Request[Any, Any, Any]) -> ASGIResponse:
    services = _begin(request)
    return respond(_encode(await _read(services, read_tail(request.scope, PATH + "/"))), headers=_NO_STORE)


@patch(PATH + "/{name:str}")
async def change_tenant(request: Request[Any, Any, Any]) -> ASGIResponse:
    services = _begin(request)
    name = (await _read(services, read_tail(request.scope, PATH + "/"))).name
    change = await read_json(request, services, TenantChange, what="The change", remedy=_REMEDY)
    async with services.database.connection() as connection:
        changed = await keys.set_tenant_disabled(connection, name, change.disabled)
    return respond(_encode(changed), headers=_NO_STORE)


@post(PATH + "/{name:str}/keys")
async def create_tenant_key(request: Request[Any, Any, Any]) -> ASGIResponse:
    """The first key of a tenant: with the scope admin it can make the others itself."""
    services = _begin(request)
    tenant = await _read(services, read_tail(request.scope, PATH + "/", "/keys"))
    new = await read_json(request, services, NewKey, what="The key", remedy=_REMEDY)
    async with services.database.connection() as connection:
        tenant_id = await keys.find_tenant(connection, tenant.name)
        key_id, secret = await keys.add_key(connection, tenant_id, new, actor=audit.OPERATOR)
        made = await keys.read_key(connection, tenant_id, key_id)
    shown = KeySecret(**msgspec.structs.asdict(made), key=secret)
    return respond(_encode(shown), 201, headers=_NO_STORE | {"Location": f"/v1/keys/{key_id}"})


def _begin(request: Request[Any, Any, Any]) -> Services:
    """
    Raises:
        Unauthorized: there is no token, or another one.
        Forbidden: the service has no operator's token.
    """
    services = services_of(request)
    fields = Fields(request.scope["headers"])
    if not services.settings.operator_token:
        raise Forbidden(
            "Tenants are managed with `tranche tenants`, or here with the token of TRANCHE_OPERATOR_TOKEN, which is "
            "not set."
        )
    exchange_of(request.scope).presented = fields.one("authorization") is not None
    if not is_operator(fields, services.settings.operator_token):
        raise Unauthorized("This needs the operator's token: `Authorization: Bearer …`.")
    headers.choose_type(fields)
    headers.read_query(request.scope, ())
    return services


async def _find(services: Services, name: str) -> Tenant | None:
    if "\0" in name:
        return None
    async with services.database.connection() as connection:
        found = await keys.list_tenants(connection, name)
    return found[0] if found else None


async def _read(services: Services, name: str) -> Tenant:
    found = await _find(services, name)
    if found is None:
        raise NotFound("There is no such tenant.")
    return found
