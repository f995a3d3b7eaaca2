"""`tranche keys create | list | change | rotate | revoke`, on the database itself."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import msgspec
import rich_click as click

from app.audit import queries
from app.auth import service
from app.auth.queries import Key
from app.cli.client.progress import clean
from app.cli.local import place
from app.kit.postgres.database import Connection

T = TypeVar("T")

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


_json_option: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_key_argument: Final = click.argument("key")


def database_options(command: Any) -> Any:
    """Of a command that asks the database and prints the answer."""
    return _json_option(place.data_dir_option(command))


def on_database(work: Callable[[Connection], Awaitable[T]]) -> T:
    """The result of work over one connection to the service's database."""

    async def connected() -> T:
        async with place.connection(place.find(redis=False)) as connection:
            return await work(connection)

    return place.run(connected())


def print_json(value: Any) -> None:
    click.echo(msgspec.json.encode(value).decode())


def show_time(at: datetime | None, absent: str) -> str:
    return f"{at:%Y-%m-%d %H:%M}" if at else absent


@click.group()
def keys() -> None:
    """API keys of tenants. A key is named by its id or by itself."""


@keys.command()
@click.option("--tenant", required=True, help="Whose key; the tenant is made if it does not exist.")
@click.option(
    "--scopes", default="import,read", show_default=True, help=f"Any of {','.join(service.SCOPES)}."
)
@click.option("--name", default="", help="What the key is for, as lists show it.")
@click.option("--expires-in", type=Span(), help="When it ends, as in 90d or 12h; never if nothing is said.")
@database_options
def create(tenant: str, scopes: str, name: str, expires_in: float | None, as_json: bool) -> None:
    """Create a key and print it once: only its hash is stored."""
    wanted = [scope.strip() for scope in scopes.split(",") if scope.strip()]
    ends = _after(expires_in)
    key = on_database(
        lambda connection: service.create_key(connection, tenant, wanted, name=name, expires_at=ends)
    )
    if as_json:
        print_json({"tenant": tenant, "key": key})
    else:
        click.echo(key)


@keys.command("list")
@click.option("--tenant", help="Only this tenant's.")
@database_options
def list_(tenant: str | None, as_json: bool) -> None:
    """List keys, without their secrets."""

    async def work(connection: Connection) -> list[Key]:
        found = None if tenant is None else await service.find_tenant(connection, tenant)
        return await service.list_keys(connection, found)

    found = on_database(work)
    if as_json:
        print_json(found)
        return
    click.echo(
        f"{'KEY':12}  {'TENANT':20}  {'SCOPES':17}  {'CREATED':16}  {'EXPIRES':16}  {'LAST USED':16}  "
        f"{'STATE':24}  NAME"
    )
    for key in found:
        click.echo(
            clean(
                f"{key.key_id}  {key.tenant:20}  {','.join(key.scopes):17}  {show_time(key.created_at, '')}  "
                f"{show_time(key.expires_at, 'never'):16}  {show_time(key.last_used_at, 'never'):16}  "
                f"{_state(key):24}  {key.name}"
            ).rstrip()
        )


@keys.command()
@_key_argument
@click.option("--name", help="What the key is for.")
@click.option("--expires-in", type=Span(), help="When it ends, from now on, as in 90d or 12h.")
@click.option("--never-expires", is_flag=True, help="It has no end.")
@database_options
def change(key: str, name: str | None, expires_in: float | None, never_expires: bool, as_json: bool) -> None:
    """Change the name or the expiry of a key."""
    if never_expires and expires_in is not None:
        raise click.UsageError("--expires-in and --never-expires exclude each other.")
    given = never_expires or expires_in is not None
    wanted = service.KeyChange(
        name=msgspec.UNSET if name is None else name,
        expires_at=_after(expires_in) if given else msgspec.UNSET,
    )

    async def work(connection: Connection) -> Key:
        tenant_id, key_id = await service.find_key(connection, key)
        return await service.change_key(connection, tenant_id, key_id, wanted, actor=queries.OPERATOR)

    changed = on_database(work)
    if as_json:
        print_json(changed)
    else:
        click.echo(f"changed {changed.key_id}: expires {show_time(changed.expires_at, 'never')}")


@keys.command()
@_key_argument
@click.option(
    "--keep",
    type=Span(),
    default="1d",
    show_default=True,
    help="For how long the key before is good as well; 0: not.",
)
@database_options
def rotate(key: str, keep: float, as_json: bool) -> None:
    """Renew the secret of a key and print the new key once. Its id, scopes and jobs remain."""

    async def work(connection: Connection) -> tuple[str, str]:
        tenant_id, key_id = await service.find_key(connection, key)
        made = await service.rotate_key(connection, tenant_id, key_id, keep=keep, actor=queries.OPERATOR)
        return key_id, made

    key_id, made = on_database(work)
    if as_json:
        print_json({"key_id": key_id, "key": made})
    else:
        click.echo(made)


@keys.command()
@_key_argument
@database_options
def revoke(key: str, as_json: bool) -> None:
    """Revoke a key. It stops working at once."""
    revoked = on_database(lambda connection: service.revoke_key(connection, key))
    if as_json:
        print_json({"key_id": revoked, "state": "revoked"})
    else:
        click.echo(f"revoked {revoked}")


def _after(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.now(UTC) + timedelta(seconds=seconds)


def _state(key: Key) -> str:
    if key.revoked_at:
        return f"revoked {show_time(key.revoked_at, '')}"
    if key.expires_at and key.expires_at <= datetime.now(UTC):
        return "expired"
    return "rotated" if key.previous_until else "active"
