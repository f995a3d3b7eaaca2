"""`tranche keys create | list | revoke`."""

from __future__ import annotations

import msgspec
import rich_click as click

from app import admin
from app.cli import place


@click.group()
def keys() -> None:
    """API keys of tenants."""


@keys.command()
@click.option("--tenant", required=True, help="Whose key; the tenant is made if it does not exist.")
@click.option("--scopes", default="import,read", show_default=True, help=f"Any of {','.join(admin.SCOPES)}.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def create(tenant: str, scopes: str, as_json: bool) -> None:
    """Make a key and print it, this once: it is stored hashed."""

    async def work() -> str:
        async with place.connection(place.find()) as connection:
            wanted = [scope.strip() for scope in scopes.split(",") if scope.strip()]
            return await admin.create_key(connection, tenant, wanted)

    key = place.run(work())
    click.echo(msgspec.json.encode({"tenant": tenant, "key": key}).decode() if as_json else key)


@keys.command("list")
@click.option("--tenant", help="Only this tenant's.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(tenant: str | None, as_json: bool) -> None:
    """List keys, without their secrets."""

    async def work() -> list[admin.Key]:
        async with place.connection(place.find()) as connection:
            return await admin.list_keys(connection, tenant)

    found = place.run(work())
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
        return
    for key in found:
        state = f"revoked {key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else "active"
        click.echo(
            f"{key.key_id}  {key.tenant:20}  {','.join(key.scopes):20}  {key.created_at:%Y-%m-%d %H:%M}  {state}"
        )


@keys.command()
@click.argument("key")
def revoke(key: str) -> None:
    """Revoke a key, named by its id or by itself. It stops working at once."""

    async def work() -> str:
        async with place.connection(place.find()) as connection:
            return await admin.revoke_key(connection, key)

    click.echo(f"revoked {place.run(work())}")
