"""`tranche destinations add | list | pause | resume | remove`.

With an API key it speaks to the API like everybody else. An operator at the database may name a tenant instead.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Protocol

import aiohttp
import msgspec
import rich_click as click

from app import admin
from app import settings as settings_module
from app.cli import place
from app.errors import Invalid, TrancheError
from app.settings import Settings
from app.vault import Vault
from app.wake import Waker


class Office(Protocol):
    """Where destinations are kept; rows are as the API shows them."""

    async def add(self, new: admin.NewDestination) -> dict[str, Any]: ...
    async def list(self) -> list[dict[str, Any]]: ...
    async def change(self, name: str, state: str) -> None: ...


class OverHttp:
    """The API's routes."""

    def __init__(self, settings: Settings) -> None:
        self._base = settings.url.rstrip("/") + "/v1/destinations"
        self._headers = {"Authorization": f"Bearer {settings.api_key}"}

    async def add(self, new: admin.NewDestination) -> dict[str, Any]:
        made: dict[str, Any] = await self._ask("POST", "", msgspec.to_builtins(new))
        return made

    async def list(self) -> list[dict[str, Any]]:
        answer = await self._ask("GET", "", None)
        return list(answer["destinations"])

    async def change(self, name: str, state: str) -> None:
        method, path = {
            "paused": ("POST", "/pause"),
            "active": ("POST", "/resume"),
            "removed": ("DELETE", ""),
        }[state]
        await self._ask(method, f"/{name}{path}", None)

    async def _ask(self, method: str, path: str, body: Any) -> Any:
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30), headers=self._headers) as session,
                session.request(method, self._base + path, json=body) as answer,
            ):
                told: Any = await answer.json(content_type=None) if answer.status != 204 else {}
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise TrancheError(f"The API at {self._base} did not answer: {error}") from error
        if answer.status >= 400:
            raise TrancheError(f"{told.get('detail') or told.get('title')} ({told.get('code')})")
        return told


class AtDatabase:
    """The tables, for an operator."""

    def __init__(self, settings: Settings, tenant: str | None) -> None:
        self._settings = place.find(settings)
        self._tenant = tenant

    async def add(self, new: admin.NewDestination) -> dict[str, Any]:
        vault = Vault(self._settings.secret_key)
        async with place.connection(self._settings) as connection:
            tenant_id = (
                await admin.ensure_tenant(connection, self._tenant)
                if self._tenant
                else await admin.find_tenant(connection, None)
            )
            return _shown(await admin.add_destination(connection, vault, tenant_id, new))

    async def list(self) -> list[dict[str, Any]]:
        async with place.connection(self._settings) as connection:
            tenant_id = await admin.find_tenant(connection, self._tenant)
            return [_shown(d) for d in await admin.list_destinations(connection, tenant_id)]

    async def change(self, name: str, state: str) -> None:
        async with place.connection(self._settings) as connection:
            tenant_id = await admin.find_tenant(connection, self._tenant)
            destination_id = await admin.set_destination_state(connection, tenant_id, name, state)
        if state != "paused":
            waker = Waker(self._settings)
            waker.wake(tenant_id, [destination_id], reason=f"{state}")
            await asyncio.sleep(0.2)
            await waker.close()


def _shown(destination: admin.Destination) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(destination)
    return shown


def _office(tenant: str | None, url: str | None, key: str | None) -> Office:
    settings = settings_module.load()
    settings = msgspec.structs.replace(settings, url=url or settings.url, api_key=key or settings.api_key)
    return OverHttp(settings) if settings.api_key and not tenant else AtDatabase(settings, tenant)


def _where(command: Any) -> Any:
    for option in (
        click.option("--key", help="API key with the scope admin.  [default: TRANCHE_API_KEY]"),
        click.option("--url", help="Where the API is.  [default: TRANCHE_URL]"),
        click.option("--tenant", help="Go to the database instead, for this tenant."),
    ):
        command = option(command)
    return command


@click.group()
def destinations() -> None:
    """Where a tenant's contacts are synced."""


@destinations.command()
@click.argument("name")
@click.option("--kind", required=True, type=click.Choice(admin.KINDS), help="Which CRM it is.")
@click.option("--base-url", required=True, help="Where it is, e.g. https://api.hubapi.com.")
@click.option("--token", required=True, help="Its access token; kept encrypted.")
@click.option(
    "--option", "options", multiple=True, metavar="NAME=JSON", help="Option of its kind (repeatable)."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_where
def add(
    name: str,
    kind: str,
    base_url: str,
    token: str,
    options: tuple[str, ...],
    as_json: bool,
    tenant: str | None,
    url: str | None,
    key: str | None,
) -> None:
    """Sync contacts that change from now on to a CRM, under a NAME of your choice."""
    new = admin.NewDestination(
        name=name, kind=kind, base_url=base_url, token=token, options=_options(options)
    )
    made = asyncio.run(_office(tenant, url, key).add(new))
    click.echo(
        json.dumps(made) if as_json else f"added {made['name']} ({made['kind']} at {made['base_url']})"
    )


def _options(pairs: tuple[str, ...]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise Invalid(f"--option {pair!r} must be NAME=VALUE.")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options


@destinations.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_where
def list_(as_json: bool, tenant: str | None, url: str | None, key: str | None) -> None:
    """List destinations, and why one is not reached at the moment."""
    found = asyncio.run(_office(tenant, url, key).list())
    if as_json:
        click.echo(json.dumps(found))
        return
    for d in found:
        trouble = (
            f"  {d['error_code']} for {d['retry_after_seconds']} s: {d['detail']}"
            if d.get("error_code")
            else ""
        )
        unknown = d.get("unknown") or {}
        if unknown.get("count"):
            trouble += f"  {unknown['count']} unknown, the oldest for {unknown['oldest_seconds']} s"
        click.echo(f"{d['name']:20}  {d['kind']:10}  {d['state']:8}  {d['base_url']}{trouble}")


def _change(name: str, state: str, word: str, tenant: str | None, url: str | None, key: str | None) -> None:
    asyncio.run(_office(tenant, url, key).change(name, state))
    click.echo(f"{word} {name}")


@destinations.command()
@click.argument("name")
@_where
def pause(name: str, tenant: str | None, url: str | None, key: str | None) -> None:
    """Send nothing until resumed; what is owed waits and spends no attempt."""
    _change(name, "paused", "paused", tenant, url, key)


@destinations.command()
@click.argument("name")
@_where
def resume(name: str, tenant: str | None, url: str | None, key: str | None) -> None:
    """Go on sending, now."""
    _change(name, "active", "resumed", tenant, url, key)


@destinations.command()
@click.argument("name")
@_where
def remove(name: str, tenant: str | None, url: str | None, key: str | None) -> None:
    """Send nothing more; what was still owed is marked skipped. History stays."""
    _change(name, "removed", "removed", tenant, url, key)
