"""`/v1/keys`: the API keys of a tenant. A secret is shown once, when it is made."""

from __future__ import annotations

from typing import Annotated, Any, Final
from urllib.parse import quote

import msgspec
from litestar import Request, delete, get, patch, post
from litestar.response.base import ASGIResponse

from app import keys
from app.http import headers
from app.http.headers import Fields
from app.http.json_bodies import read_json
from app.http.services import Services, authorize, respond, services_of
from app.keys import Key, KeyChange, NewKey, Principal

PATH: Final = "/v1/keys"
_ADMIN: Final = frozenset({"admin"})
_REMEDY: Final = "What is said about a key is short."
_NO_STORE: Final = {"Cache-Control": "no-store"}

_encode: Final = msgspec.json.Encoder().encode


class KeyList(msgspec.Struct):
    """The keys of the tenant, oldest first; revoked ones too."""

    keys: list[Key]


class KeySecret(Key, frozen=True, kw_only=True):
    """A key with its secret, which is shown this once."""

    key: str


class KeyRotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a key is renewed."""

    keep_seconds: Annotated[float, msgspec.Meta(ge=0, le=keys.MOST_KEEP_SECONDS)] = keys.KEEP_SECONDS
    """For how long the secret before is good as well."""


@get(PATH)
async def list_keys(request: Request[Any, Any, Any]) -> ASGIResponse:
    services, principal = await _begin(request)
    async with services.database.connection() as connection:
        return respond(
            _encode(KeyList(await keys.list_keys(connection, principal.tenant_id))), headers=_NO_STORE
        )


@post(PATH)
async def create_key(request: Request[Any, Any, Any]) -> ASGIResponse:
    services, principal = await _begin(request)
    new = await read_json(request, services, NewKey, what="The key", remedy=_REMEDY)
    async with services.database.connection() as connection:
        key_id, secret = await keys.add_key(connection, principal.tenant_id, new, actor=principal.key_id)
        made = await keys.read_key(connection, principal.tenant_id, key_id)
    return respond(_show(made, secret), 201, headers=_NO_STORE | {"Location": f"{PATH}/{key_id}"})


@get(PATH + "/{key_id:str}")
async def read_key(request: Request[Any, Any, Any]) -> ASGIResponse:
    services, principal = await _begin(request)
    async with services.database.connection() as connection:
        found = await keys.read_key(connection, principal.tenant_id, _key_id(request))
    return respond(_encode(found), headers=_NO_STORE)


@patch(PATH + "/{key_id:str}")
async def change_key(request: Request[Any, Any, Any]) -> ASGIResponse:
    services, principal = await _begin(request)
    change = await read_json(request, services, KeyChange, what="The change", remedy=_REMEDY)
    async with services.database.connection() as connection:
        changed = await keys.change_key(
            connection, principal.tenant_id, _key_id(request), change, actor=principal.key_id
        )
    return respond(_encode(changed), headers=_NO_STORE)


@delete(PATH + "/{key_id:str}", status_code=200)
async def revoke_key(request: Request[Any, Any, Any]) -> ASGIResponse:
    """204: it is refused from now on."""
    services, principal = await _begin(request)
    async with services.database.connection() as connection:
        await keys.end_key(connection, principal.tenant_id, _key_id(request), actor=principal.key_id)
    return respond(b"", 204)


@post(PATH + "/{key_id:str}/rotate", status_code=200)
async def rotate_key(request: Request[Any, Any, Any]) -> ASGIResponse:
    services, principal = await _begin(request)
    asked = await read_json(
        request, services, KeyRotation, what="The rotation", remedy=_REMEDY, absent=KeyRotation()
    )
    key_id = _key_id(request)
    async with services.database.connection() as connection:
        secret = await keys.rotate_key(
            connection, principal.tenant_id, key_id, keep=asked.keep_seconds, actor=principal.key_id
        )
        rotated = await keys.read_key(connection, principal.tenant_id, key_id)
    return respond(_show(rotated, secret), headers=_NO_STORE)


async def _begin(request: Request[Any, Any, Any]) -> tuple[Services, Principal]:
    services = services_of(request)
    fields = Fields(request.scope["headers"])
    principal = await authorize(request, fields, services, _ADMIN)
    headers.choose_type(fields)
    headers.read_query(request.scope, ())
    return services, principal


def _key_id(request: Request[Any, Any, Any]) -> str:
    found: str = request.path_params["key_id"]
    return quote(found)  # an id of ours is as it was; nothing else reaches the database as it came


def _show(key: Key, secret: str) -> bytes:
    return _encode(KeySecret(**msgspec.structs.asdict(key), key=secret))
