"""`tranche secrets list | rotate`."""

import sys

import rich_click as click

from app.cli.local import place
from app.cli.local.place import database_command
from app.cli.output import show, show_table, wants_json
from app.kit.encryption import Vault
from app.kit.postgres.database import Connection
from app.secret_rotation import service


@click.group()
def secrets() -> None:
    """Stored credentials, and the keys of TRANCHE_SECRET_KEY that encrypt them."""


def _vault() -> Vault:
    return Vault(place.find(redis=False).secret_key)


@database_command(secrets, "list")
async def list_(connection: Connection) -> None:
    """Count the stored credentials under each key, of all tenants."""
    found = await service.count(connection, _vault())
    rows = ((use.key, use.secrets, _describe(use)) for use in found)
    show_table(found, ("KEY", "SECRETS", "USE"), rows)


def _describe(use: service.KeyUse) -> str:
    if use.key == service.OLDER:
        return "under one of the keys before their ids were stored; `tranche secrets rotate` shows which"
    return "encrypts" if use.encrypts else "decrypts" if use.known else "not in TRANCHE_SECRET_KEY"


@database_command(secrets, "rotate")
async def rotate(connection: Connection) -> int:
    """Encrypt every stored credential, of all tenants, with the first key of TRANCHE_SECRET_KEY.

    It may run while the service runs, and may be stopped and run again. Exits with 1 if some could not be decrypted.
    """
    done = await service.rotate(connection, _vault())
    current = done.secrets - len(done.unreadable)
    line = f"encrypted {done.rotated} anew; {current} of {done.secrets} are under key {done.key} now"
    show(done, [line])
    for secret in [] if wants_json() else done.unreadable:
        print(
            f"tenant {secret.tenant_id}: the secret of {secret.kind} {secret.name!r} cannot be decrypted "
            f"(key: {secret.key})",
            file=sys.stderr,
        )
    return 1 if done.unreadable else 0
