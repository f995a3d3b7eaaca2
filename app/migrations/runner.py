"""Brings a database to this release's schema. Safe when many processes start at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from app.errors import MigrationError
from app.migrations.copying import Report, copy_records

_HERE: Final = Path(__file__).parent
_LOCK: Final = 0x7472616E  # "tran": one number for all versions of Tranche on one database
_RECORDS: Final = "0010"
"""Sets contacts and their ledger aside to be copied."""
_CLIENT: Final = (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What asyncpg raises itself where the server is gone; the last one if it left between two messages of a statement."""
_LOST: Final = (*_CLIENT, asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError)
"""What asyncpg raises when the server is away, or ended the connection."""


def head() -> str:
    """The revision this release needs."""
    revision = ScriptDirectory(str(_HERE)).get_current_head()
    assert revision is not None
    return revision


def report_nothing(*_: object) -> None: ...


async def migrate(
    database_url: str, *, wait: float = 60.0, lock_timeout: float = 5.0, report: Report = report_nothing
) -> list[str]:
    """Apply every pending revision; return those that were applied.

    They are one transaction, unless rows of an older release are to be copied (`app.migrations.copying`): that can be
    ended at any moment, and the next call continues where it was.

    The advisory lock is tried, not waited for: a waiting session would hold a snapshot. A DDL lock is waited for
    `lock_timeout` seconds at most, so a long report cannot turn a migration into an outage.

    Raises:
        MigrationError: the database cannot be reached or was lost, another migration held the lock for `wait` seconds,
            a table lock was not had, or the database is at a revision that this release does not know.
    """
    limits = {"application_name": "tranche migrate", "lock_timeout": f"{int(lock_timeout * 1000)}"}
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: asyncpg.connect(database_url, timeout=10, statement_cache_size=0, server_settings=limits),
        poolclass=NullPool,
    )
    try:
        async with locked(database_url, wait, limits) as lock, engine.connect() as connection:
            return await _upgrade(connection, lock, report)
    except (*_CLIENT, asyncpg.PostgresError, DBAPIError) as error:
        # The revisions' own SQL fails in asyncpg's words, Alembic's look at the version in SQLAlchemy's.
        cause = error.orig.__cause__ if isinstance(error, DBAPIError) and error.orig else error
        if isinstance(cause, asyncpg.LockNotAvailableError):
            raise MigrationError(
                f"A table was locked for more than {lock_timeout:.0f} s; nothing was changed, but for what was copied "
                "before. Run `tranche migrate` again."
            ) from error
        if isinstance(cause, _LOST):
            raise MigrationError(
                "The connection to the database was lost. Run `tranche migrate` again: it continues where it was."
            ) from error
        raise
    finally:
        await engine.dispose()


@asynccontextmanager
async def locked(
    database_url: str, wait: float, limits: dict[str, str] | None = None
) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """The connection that holds the lock of migrations.

    Raises:
        MigrationError: the database cannot be reached, or another migration held the lock for `wait` seconds.
    """
    try:
        lock = await asyncpg.connect(database_url, timeout=10, statement_cache_size=0, server_settings=limits)
    except (*_CLIENT, TimeoutError, asyncpg.PostgresError) as error:
        raise MigrationError(f"The database cannot be used: {error or 'no answer within 10 s'}") from error
    try:
        async with asyncio.timeout(wait):
            while not await lock.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    except TimeoutError as error:
        await lock.close()
        raise MigrationError(f"Another migration has been running for {wait:.0f} s; wait for it, or end it.") from error
    try:
        yield lock
    finally:
        await lock.close(timeout=10)


async def _upgrade(connection: AsyncConnection, lock: "asyncpg.Connection[Any]", report: Report) -> list[str]:
    before = await _version(connection)
    script = ScriptDirectory(str(_HERE))
    if before is not None and before not in {r.revision for r in script.walk_revisions()}:
        raise MigrationError(
            f"The database is at revision {before}, which this release does not know; nothing was changed. "
            "Run the release that made it, or a newer one."
        )
    pending = [r.revision for r in script.iterate_revisions("head", before or "base")][::-1]
    if before is not None and pending:
        if _RECORDS in pending:
            await _run(connection, _RECORDS)
        await copy_records(lock, report)  # on the connection that has the lock: who loses it copies no more
    if pending:
        await _run(connection, "head")
    return pending


async def _run(connection: AsyncConnection, revision: str) -> None:
    """All that is pending up to this revision, in one transaction."""

    def run(sync_connection: object) -> None:
        config = Config()
        config.set_main_option("script_location", str(_HERE))
        config.attributes["connection"] = sync_connection
        command.upgrade(config, revision)

    await connection.run_sync(run)
    await connection.commit()


async def _version(connection: AsyncConnection) -> str | None:
    def read(sync_connection: object) -> str | None:
        from alembic.migration import MigrationContext

        context = MigrationContext.configure(sync_connection, opts={"version_table": "schema_version"})  # type: ignore[arg-type]
        return context.get_current_revision()

    version = await connection.run_sync(read)
    await connection.rollback()
    return version
