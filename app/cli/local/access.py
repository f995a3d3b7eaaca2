"""`tranche tenants …` and `tranche keys …`, on the database itself."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import rich_click as click

from app.audit.queries import OPERATOR
from app.auth import service
from app.auth.principals import key_scope
from app.auth.queries import Key, Tenant
from app.cli.command import repeated
from app.cli.local.place import database_command, void_snapshots
from app.cli.output import show, show_table, show_time
from app.kit.postgres.database import Connection
from app.kit.snapshots import tenant_scopes
from app.limits.policies import LimitsChange, parse_change

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


_limit_option: Final = repeated(
    "--limit",
    "limits",
    "POLICY=QUOTA/SECONDS",
    "How much it may ask for: items=60000/60 of imports, requests=600/60; =0 for no limit, =default for the service's "
    "(repeatable).",
)
_key_argument: Final = click.argument("key")
_tenant_argument: Final = click.argument("name")


@click.group()
def tenants() -> None:
    """Tenants: who has keys, records and destinations of its own."""


@database_command(tenants, "list")
async def list_tenants(connection: Connection) -> None:
    """List tenants, with the number of their valid keys."""
    found = await service.list_tenants(connection)
    columns = ("TENANT", "CREATED", "KEYS", "STATE", "LIMITS", "WEIGHT", "CAP")
    rows = (
        (t.name, show_time(t.created_at), t.keys, _state_of_tenant(t), t.limits, f"{t.weight:g}", t.worker_cap)
        for t in found
    )
    show_table(found, columns, rows)


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
    disabled = await service.set_tenant_disabled(connection, name, True)
    await void_snapshots(*tenant_scopes(await service.find_tenant(connection, name), "key"))
    _show_tenant(disabled)


@database_command(tenants, "enable")
@_tenant_argument
async def enable(connection: Connection, name: str) -> None:
    """Enable a disabled tenant; its work continues."""
    _show_tenant(await service.set_tenant_disabled(connection, name, False))


@database_command(tenants, "change")
@_tenant_argument
@_limit_option
@click.option("--weight", type=click.FloatRange(0.01, 100), help="Its share of the workers; others have 1.")
@click.option(
    "--cap",
    type=click.IntRange(0, service.MOST_CAP),
    help="Most pieces of its work in progress at a time in one worker; 0: as many as the worker does.",
)
async def change_tenant(
    connection: Connection, name: str, limits: tuple[str, ...], weight: float | None, cap: int | None
) -> None:
    """Change its limits, over all its keys, and its share of the workers."""
    wanted = service.TenantChange(
        limits=_parse_limits(limits),
        weight=msgspec.UNSET if weight is None else weight,
        worker_cap=msgspec.UNSET if cap is None else cap or None,
    )
    tenant = await service.change_tenant(connection, name, wanted)
    show(tenant, [f"changed {tenant.name}: limits {str(tenant.limits) or 'default'}, weight {tenant.weight:g}"])


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
@_limit_option
async def create(
    connection: Connection, tenant: str, scopes: str, name: str, expires_in: float | None, limits: tuple[str, ...]
) -> None:
    """Create a key and print it once: only its hash is stored."""
    wanted = [scope.strip() for scope in scopes.split(",") if scope.strip()]
    own = _parse_limits(limits)
    key = await service.create_key(connection, tenant, wanted, name=name, expires_at=_after(expires_in), limits=own)
    show({"tenant": tenant, "key": key}, [key])


@database_command(keys, "list")
@click.option("--tenant", help="Only this tenant's.")
async def list_(connection: Connection, tenant: str | None) -> None:
    """List keys, without their secrets."""
    tenant_id = None if tenant is None else await service.find_tenant(connection, tenant)
    found = await service.list_keys(connection, tenant_id)
    columns = ("KEY", "TENANT", "SCOPES", "CREATED", "EXPIRES", "LAST USED", "STATE", "LIMITS", "NAME")
    show_table(found, columns, map(_describe, found), whole="KEY")


def _describe(key: Key) -> list[str]:
    expires, used = show_time(key.expires_at, "never"), show_time(key.last_used_at, "never")
    created, scopes = show_time(key.created_at), ",".join(key.scopes)
    return [key.key_id, key.tenant, scopes, created, expires, used, _state(key), str(key.limits), key.name]


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
@_limit_option
async def change(
    connection: Connection,
    key: str,
    name: str | None,
    expires_in: float | None,
    never_expires: bool,
    limits: tuple[str, ...],
) -> None:
    """Change the name, the expiry or the limits of a key."""
    if never_expires and expires_in is not None:
        raise click.UsageError("--expires-in and --never-expires exclude each other.")
    given = never_expires or expires_in is not None
    wanted = service.KeyChange(
        name=msgspec.UNSET if name is None else name,
        expires_at=_after(expires_in) if given else msgspec.UNSET,
        limits=_parse_limits(limits),
    )
    found = await service.find_key(connection, key)
    changed = await service.change_key(connection, *found, wanted, actor=OPERATOR)
    await void_snapshots(key_scope(*found))
    expires, own = show_time(changed.expires_at, "never"), str(changed.limits) or "default"
    line = f"changed {changed.key_id}: expires {expires}, limits {own}"
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
    await void_snapshots(key_scope(tenant_id, key_id))
    show({"key_id": key_id, "key": made}, [made])


@database_command(keys, "revoke")
@_key_argument
async def revoke(connection: Connection, key: str) -> None:
    """Revoke a key. It stops working at once."""
    tenant_id, _ = await service.find_key(connection, key)
    revoked = await service.revoke_key(connection, key)
    await void_snapshots(key_scope(tenant_id, revoked))
    show({"key_id": revoked, "state": "revoked"}, [f"revoked {revoked}"])


def _parse_limits(texts: tuple[str, ...]) -> LimitsChange:
    try:
        return parse_change(texts)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--limit") from error


def _after(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.now(UTC) + timedelta(seconds=seconds)
