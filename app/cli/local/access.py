"""`tranche tenants …` and `tranche keys …`, on the database itself."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import rich_click as click

from app.audit.queries import OPERATOR
from app.auth import service
from app.auth.queries import Key, Tenant
from app.cli.local.place import database_command
from app.cli.output import show, show_table, show_time
from app.kit.postgres.database import Connection

_SPAN: Final = re.compile(r"([1-9][0-9]{0,4})([smhdw])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


class Span(click.ParamType[float]):
    """A span of time such as 90d, 12h or 30m; in seconds. `0` is none at all."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = _SPAN.fullmatch(value)
        if found is None and value != "0":
            self.fail(f"{value!r} is no span of time; it looks like 90d, 12h or 30m.", param, ctx)
        return float(int(found[1]) * _SECONDS[found[2]]) if found else 0.0


_key_argument: Final = click.argument("key")
_tenant_argument: Final = click.argument("name")


@click.group()
def tenants() -> None:
    """Tenants: who has keys, records and destinations of its own."""


@database_command(tenants, "list")
async def list_tenants(connection: Connection) -> None:
    """List tenants, with the number of their valid keys."""
    found = await service.list_tenants(connection)
    rows = ((t.name, show_time(t.created_at), t.keys, _state_of_tenant(t)) for t in found)
    show_table(found, ("TENANT", "CREATED", "KEYS", "STATE"), rows)


def _state_of_tenant(tenant: Tenant) -> str:
    return f"disabled {show_time(tenant.disabled_at)}" if tenant.disabled_at else "active"


@database_command(tenants, "create")
@_tenant_argument
async def create_tenant(connection: Connection, name: str) -> None:
    """Create a tenant; an existing one is left as it is."""
    await service.ensure_tenant(connection, name)
    _show_tenant((await service.list_tenants(connection, name))[0])


@database_command(tenants, "disable")
@_tenant_argument
async def disable(connection: Connection, name: str) -> None:
    """Refuse its keys and stop all its work; nothing is lost."""
    _show_tenant(await service.set_tenant_disabled(connection, name, True))


@database_command(tenants, "enable")
@_tenant_argument
async def enable(connection: Connection, name: str) -> None:
    """Enable a disabled tenant; its work continues."""
    _show_tenant(await service.set_tenant_disabled(connection, name, False))


def _show_tenant(tenant: Tenant) -> None:
    show(tenant, [f"{tenant.name} is {'disabled' if tenant.disabled_at else 'active'}"])


@click.group()
def keys() -> None:
    """API keys of tenants. A key is named by its id or by itself."""


@database_command(keys, "create")
@click.option("--tenant", required=True, help="Whose key; the tenant is made if it does not exist.")
@click.option("--scopes", default="import,read", show_default=True, help=f"Any of {','.join(service.SCOPES)}.")
@click.option("--name", default="", help="What the key is for, as lists show it.")
@click.option("--expires-in", type=Span(), help="When it ends, as in 90d or 12h; never if nothing is said.")
async def create(connection: Connection, tenant: str, scopes: str, name: str, expires_in: float | None) -> None:
    """Create a key and print it once: only its hash is stored."""
    wanted = [scope.strip() for scope in scopes.split(",") if scope.strip()]
    key = await service.create_key(connection, tenant, wanted, name=name, expires_at=_after(expires_in))
    show({"tenant": tenant, "key": key}, [key])


@database_command(keys, "list")
@click.option("--tenant", help="Only this tenant's.")
async def list_(connection: Connection, tenant: str | None) -> None:
    """List keys, without their secrets."""
    tenant_id = None if tenant is None else await service.find_tenant(connection, tenant)
    found = await service.list_keys(connection, tenant_id)
    columns = ("KEY", "TENANT", "SCOPES", "CREATED", "EXPIRES", "LAST USED", "STATE", "NAME")
    show_table(found, columns, map(_describe, found), whole="KEY")


def _describe(key: Key) -> list[str]:
    expires, used = show_time(key.expires_at, "never"), show_time(key.last_used_at, "never")
    created, scopes = show_time(key.created_at), ",".join(key.scopes)
    return [key.key_id, key.tenant, scopes, created, expires, used, _state(key), key.name]


def _state(key: Key) -> str:
    if key.revoked_at:
        return f"revoked {show_time(key.revoked_at)}"
    if key.expires_at and key.expires_at <= datetime.now(UTC):
        return "expired"
    return "rotated" if key.previous_until else "active"


@database_command(keys, "change")
@_key_argument
@click.option("--name", help="What the key is for.")
@click.option("--expires-in", type=Span(), help="When it ends, from now on, as in 90d or 12h.")
@click.option("--never-expires", is_flag=True, help="It has no end.")
async def change(
    connection: Connection, key: str, name: str | None, expires_in: float | None, never_expires: bool
) -> None:
    """Change the name or the expiry of a key."""
    if never_expires and expires_in is not None:
        raise click.UsageError("--expires-in and --never-expires exclude each other.")
    given = never_expires or expires_in is not None
    wanted = service.KeyChange(
        name=msgspec.UNSET if name is None else name, expires_at=_after(expires_in) if given else msgspec.UNSET
    )
    found = await service.find_key(connection, key)
    changed = await service.change_key(connection, *found, wanted, actor=OPERATOR)
    line = f"changed {changed.key_id}: expires {show_time(changed.expires_at, 'never')}"
    show(changed, [line])


@database_command(keys, "rotate")
@_key_argument
@click.option(
    "--keep", type=Span(), default="1d", show_default=True, help="For how long the key before is good as well; 0: not."
)
async def rotate(connection: Connection, key: str, keep: float) -> None:
    """Renew the secret of a key and print the new key once. Its id, scopes and jobs remain."""
    tenant_id, key_id = await service.find_key(connection, key)
    made = await service.rotate_key(connection, tenant_id, key_id, keep=keep, actor=OPERATOR)
    show({"key_id": key_id, "key": made}, [made])


@database_command(keys, "revoke")
@_key_argument
async def revoke(connection: Connection, key: str) -> None:
    """Revoke a key. It stops working at once."""
    revoked = await service.revoke_key(connection, key)
    show({"key_id": revoked, "state": "revoked"}, [f"revoked {revoked}"])


def _after(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.now(UTC) + timedelta(seconds=seconds)
