"""`tranche secrets list | rotate`."""

from __future__ import annotations

import sys

import msgspec
import rich_click as click

from app.cli.local import place
from app.cli.local.keys import database_options
from app.kit.encryption import Vault
from app.secret_rotation import service


@click.group()
def secrets() -> None:
    """Stored credentials, and the keys of TRANCHE_SECRET_KEY that encrypt them."""


@secrets.command("list")
@database_options
def list_(as_json: bool) -> None:
    """Count the stored credentials under each key, of all tenants."""

    async def work() -> list[service.KeyUse]:
        settings = place.find(redis=False)
        async with place.connection(settings) as connection:
            return await service.count(connection, Vault(settings.secret_key))

    found = place.run(work())
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
        return
    for use in found:
        what = "encrypts" if use.encrypts else "decrypts" if use.known else "not in TRANCHE_SECRET_KEY"
        if use.key == service.OLDER:
            what = "under one of the keys before their ids were stored; `tranche secrets rotate` shows which"
        click.echo(f"{use.key:10}  {use.secrets:6}  {what}")


@secrets.command()
@database_options
def rotate(as_json: bool) -> None:
    """Encrypt every stored credential, of all tenants, with the first key of TRANCHE_SECRET_KEY.

    It may run while the service runs, and may be stopped and run again. Exits with 1 if some could not be decrypted.
    """

    async def work() -> service.Rotation:
        settings = place.find(redis=False)
        async with place.connection(settings) as connection:
            return await service.rotate(connection, Vault(settings.secret_key))

    done = place.run(work())
    if as_json:
        click.echo(msgspec.json.encode(done).decode())
    else:
        current = done.secrets - len(done.unreadable)
        click.echo(f"encrypted {done.rotated} anew; {current} of {done.secrets} are under key {done.key} now")
        for secret in done.unreadable:
            click.echo(
                f"tenant {secret.tenant_id}: the secret of {secret.kind} {secret.name!r} cannot be decrypted "
                f"(key: {secret.key})",
                err=True,
            )
    if done.unreadable:
        sys.exit(1)
