"""Where the database is for commands that need it: named by the environment, or the embedded one that is up."""

import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
import rich_click as click
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app import settings as settings_module
from app.cli.command import Work, command
from app.embedded import read_run
from app.embedded.secrets import load_or_create
from app.errors import SettingsError
from app.kit.postgres.database import Connection, Database
from app.kit.redis import make_pool
from app.kit.snapshots import void
from app.settings import Settings

SECRET_FILE = "secret.key"  # noqa: S105  # a file's name

_DATA_DIR: Final = "tranche.data_dir"


def _remember(context: click.Context, _: click.Parameter, folder: Path | None) -> None:
    if folder is not None:
        context.meta[_DATA_DIR] = str(folder)


data_dir_option: Final = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    expose_value=False,
    callback=_remember,
    help="Where `tranche up` keeps its data.  [default: TRANCHE_DATA_DIR or .tranche]",
)
"""For every command that calls `find`."""


def find(settings: Settings | None = None, *, redis: bool = True) -> Settings:
    """Settings with both engines named; `redis` False: only PostgreSQL is needed.

    Raises:
        SettingsError: they are not named and nothing embedded is up in the data folder.
    """
    loaded = settings or settings_module.load()
    context = click.get_current_context(silent=True)
    if context is not None and _DATA_DIR in context.meta:
        loaded = msgspec.structs.replace(loaded, data_dir=context.meta[_DATA_DIR])
    if loaded.database_url and (loaded.redis_url or not redis):
        return loaded
    folder = Path(loaded.data_dir)
    run = read_run(folder)
    if run is None:
        missing = "TRANCHE_DATABASE_URL" if not loaded.database_url else "TRANCHE_REDIS_URL"
        raise SettingsError(
            f"{missing} is not set and nothing is up in {folder}/. Set it, or start `tranche up` "
            "(--data-dir or TRANCHE_DATA_DIR names another folder)."
        )
    return msgspec.structs.replace(
        loaded,
        database_url=loaded.database_url or run.database_url,
        database_owner_url=loaded.database_owner_url or ("" if loaded.database_url else run.owner_url),
        redis_url=loaded.redis_url or run.redis_url,
        secret_key=loaded.secret_key or secret_key(folder),
    )


def secret_key(folder: Path) -> str:
    """The key of an embedded installation, made once."""
    return base64.b64encode(load_or_create(folder / SECRET_FILE, 32)).decode()


@asynccontextmanager
async def database(settings: Settings) -> AsyncIterator[Database]:
    """For a command that goes back to it several times."""
    opened = Database(msgspec.structs.replace(settings, db_pool_size=1), application_name="tranche cli")
    try:
        yield opened
    finally:
        await opened.close()


@asynccontextmanager
async def connection(settings: Settings) -> AsyncIterator[Connection]:
    """One connection for a command that does one thing."""
    async with database(settings) as opened, opened.connection() as one:
        yield one


async def void_snapshots(*scopes: str) -> None:
    """What API processes know of keys is void. Without Redis it is so after `TRANCHE_STALE_KEY_SECONDS`."""
    try:
        pool = make_pool(find().redis_url, socket_timeout=1.0, socket_connect_timeout=1.0)
        async with Redis.from_pool(pool) as redis:
            await void(redis, *scopes)
    except (SettingsError, RedisError, OSError) as error:
        click.echo(
            f"note: Redis was not notified ({error}); API processes let the key read old answers for at most "
            "TRANCHE_STALE_KEY_SECONDS if PostgreSQL should fail now",
            err=True,
        )


def database_command(group: click.Group, verb: str) -> Callable[[Work], click.Command]:
    """A command whose work gets a connection to the service's database, then the options by name."""
    return command(group, verb, lambda _: connection(find(redis=False)), data_dir_option)
