"""`tranche tenants list | create | disable | enable`, on the database itself."""

from __future__ import annotations

import rich_click as click

from app.auth import service
from app.auth.queries import Tenant
from app.cli.local.keys import database_options, on_database, print_json, show_time
from app.kit.postgres.database import Connection


@click.group()
def tenants() -> None:
    """Tenants: who has keys, records and destinations of its own."""


@tenants.command("list")
@database_options
def list_(as_json: bool) -> None:
    """List tenants, with the number of their valid keys."""
    found = on_database(service.list_tenants)
    if as_json:
        print_json(found)
        return
    click.echo(f"{'TENANT':30}  {'CREATED':16}  {'KEYS':>5}  STATE")
    for tenant in found:
        state = f"disabled {show_time(tenant.disabled_at, '')}" if tenant.disabled_at else "active"
        click.echo(f"{tenant.name:30}  {show_time(tenant.created_at, ''):16}  {tenant.keys:>5}  {state}")


@tenants.command()
@click.argument("name")
@database_options
def create(name: str, as_json: bool) -> None:
    """Create a tenant; an existing one is left as it is."""

    async def work(connection: Connection) -> Tenant:
        await service.ensure_tenant(connection, name)
        return (await service.list_tenants(connection, name))[0]

    _show(on_database(work), as_json)


@tenants.command()
@click.argument("name")
@database_options
def disable(name: str, as_json: bool) -> None:
    """Refuse its keys and stop all its work; nothing is lost."""
    _show(on_database(lambda connection: service.set_tenant_disabled(connection, name, True)), as_json)


@tenants.command()
@click.argument("name")
@database_options
def enable(name: str, as_json: bool) -> None:
    """Enable a disabled tenant; its work continues."""
    _show(on_database(lambda connection: service.set_tenant_disabled(connection, name, False)), as_json)


def _show(tenant: Tenant, as_json: bool) -> None:
    if as_json:
        print_json(tenant)
    else:
        click.echo(f"{tenant.name} is {'disabled' if tenant.disabled_at else 'active'}")
