"""`tranche tenants list | create | disable | enable`, on the database itself."""

from __future__ import annotations

import rich_click as click

from app.auth import service
from app.auth.queries import Tenant
from app.cli.local.database_command import database_command, show_time
from app.cli.output import show, show_table
from app.kit.postgres.database import Connection


@click.group()
def tenants() -> None:
    """Tenants: who has keys, records and destinations of its own."""


@database_command(tenants, "list")
async def list_(connection: Connection, as_json: bool) -> None:
    """List tenants, with the number of their valid keys."""
    found = await service.list_tenants(connection)
    rows = ((t.name, show_time(t.created_at), t.keys, _state(t)) for t in found)
    show_table(found, ("TENANT", "CREATED", "KEYS", "STATE"), rows, as_json=as_json)


def _state(tenant: Tenant) -> str:
    return f"disabled {show_time(tenant.disabled_at)}" if tenant.disabled_at else "active"


@database_command(tenants, "create")
@click.argument("name")
async def create(connection: Connection, name: str, as_json: bool) -> None:
    """Create a tenant; an existing one is left as it is."""
    await service.ensure_tenant(connection, name)
    _show((await service.list_tenants(connection, name))[0], as_json)


@database_command(tenants, "disable")
@click.argument("name")
async def disable(connection: Connection, name: str, as_json: bool) -> None:
    """Refuse its keys and stop all its work; nothing is lost."""
    _show(await service.set_tenant_disabled(connection, name, True), as_json)


@database_command(tenants, "enable")
@click.argument("name")
async def enable(connection: Connection, name: str, as_json: bool) -> None:
    """Enable a disabled tenant; its work continues."""
    _show(await service.set_tenant_disabled(connection, name, False), as_json)


def _show(tenant: Tenant, as_json: bool) -> None:
    show(tenant, [f"{tenant.name} is {'disabled' if tenant.disabled_at else 'active'}"], as_json=as_json)
