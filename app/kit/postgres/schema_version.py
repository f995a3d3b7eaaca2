"""Whether a database has the schema that this release needs."""

import asyncpg

from app.kit.postgres.database import Connection
from app.kit.postgres.query import Found, Query
from app.migrations.revisions import newest

_read_schema_version = Query[[], str | None]("read_schema_version")
_probe_write = Query[[], Found]("probe_write")


async def read_schema_version(connection: Connection) -> str | None:
    """The revision of the schema; `None`: there is no schema."""
    try:
        return await _read_schema_version(connection)
    except asyncpg.UndefinedTableError:
        return None


async def find_write_fault(connection: Connection) -> str | None:
    """What an operator has to do before anything can be written, or None; found out by a write that changes nothing."""
    try:
        await _probe_write(connection)
    except asyncpg.ReadOnlySQLTransactionError:
        return "the database is read-only, as a standby is; set TRANCHE_DATABASE_URL to its primary"
    return None


async def find_fault(connection: Connection) -> str | None:
    """What an operator has to do before this release can work, or None. A newer release's schema will do."""
    found = await read_schema_version(connection)
    if found is not None and found >= newest():
        return await find_write_fault(connection)
    return f"the database is at {f'revision {found}' if found else 'no schema'}, not {newest()}; run: tranche migrate"
