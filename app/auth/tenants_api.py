"""`/v1/tenants`: for whoever runs the service, with the token of TRANCHE_OPERATOR_TOKEN."""

from functools import partial
from typing import Annotated, Final
from urllib.parse import quote

import msgspec

from app.audit import queries
from app.auth import service
from app.auth.api import KeySecret, show_secret
from app.auth.authorization import OPERATOR
from app.auth.queries import Tenant
from app.auth.service import NewKey, TenantChange
from app.errors import Conflict, NotFound
from app.http.operation import Answer, Path, Reply, operation
from app.kit.postgres.database import Connection
from app.kit.snapshots import Snapshots, tenant_scopes

PATH: Final = "/v1/tenants"
_TENANT: Final = PATH + "/{name}"
_operation: Final = partial(operation, tag="keys", access=OPERATOR)
_NO_STORE: Final = "no-store"

Name = Annotated[str, Path(description="The tenant.", schema={"type": "string", "minLength": 1}, example="acme")]


class TenantList(msgspec.Struct):
    """All tenants, by name."""

    tenants: list[Tenant]


class NewTenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tenant to be made."""

    name: str


@_operation("GET", PATH, answers=Answer("All of them, by name.", cache=_NO_STORE))
async def list_tenants(connection: Connection) -> TenantList:
    """All tenants."""
    return TenantList(await service.list_tenants(connection))


@_operation(
    "POST",
    PATH,
    answers=Answer("The new tenant.", 201, headers=("Location",), cache=_NO_STORE),
    errors=(409,),
    keyed=True,
)
async def create_tenant(body: NewTenant, connection: Connection) -> Reply[Tenant]:
    """Create a tenant.

    It has no key yet: create one at `…/keys`.
    """
    if await service.list_tenants(connection, body.name):
        raise Conflict(f"There is a tenant {body.name!r} already.")
    await service.ensure_tenant(connection, body.name)
    (made,) = await service.list_tenants(connection, body.name)
    return Reply(made, 201, {"Location": f"{PATH}/{quote(made.name)}"})


@_operation("GET", _TENANT, answers=Answer("The tenant.", cache=_NO_STORE))
async def read_tenant(name: Name, connection: Connection) -> Tenant:
    """One tenant."""
    return await _read(connection, name)


@_operation("PATCH", _TENANT, answers=Answer("The tenant.", cache=_NO_STORE))
async def change_tenant(name: Name, body: TenantChange, connection: Connection, snapshots: Snapshots) -> Tenant:
    """Disable a tenant or enable it again; change its limits or its share of the workers.

    While it is disabled, its keys are refused with 403 `TENANT_DISABLED`, and nothing of it is processed or sent.
    Nothing is lost: all work continues once it is enabled.
    """
    tenant = await _read(connection, name)
    changed = await service.change_tenant(connection, tenant.name, body)
    await snapshots.void(*tenant_scopes(await service.find_tenant(connection, tenant.name), "key"))
    return changed


@_operation(
    "POST", _TENANT + "/keys", answers=Answer("The new key.", 201, headers=("Location",), cache=_NO_STORE), keyed=True
)
async def create_tenant_key(name: Name, body: NewKey, connection: Connection) -> Reply[KeySecret]:
    """Create an API key of a tenant.

    A first key with the scope `admin` can create the others itself.
    """
    tenant = await _read(connection, name)
    tenant_id = await service.find_tenant(connection, tenant.name)
    key_id, secret = await service.add_key(connection, tenant_id, body, actor=queries.OPERATOR)
    made = await service.read_key(connection, tenant_id, key_id)
    return Reply(show_secret(made, secret), 201, {"Location": f"/v1/keys/{key_id}"})


async def _read(connection: Connection, name: str) -> Tenant:
    for found in await service.list_tenants(connection, name):
        return found
    raise NotFound("There is no such tenant.")
