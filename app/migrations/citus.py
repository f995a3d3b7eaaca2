"""Distributes the tables over the nodes of Citus: by tenant, in one colocation group."""

from collections.abc import Collection, Mapping
from typing import Final

import asyncpg

from app.errors import MigrationError
from app.migrations.copying import Report
from app.migrations.runner import locked, migrate, report_nothing

REFERENCE: Final = ("tenants", "schema_version")
"""Every node has the whole of these."""
OF_TENANTS: Final = ("api_keys", "destinations", "webhook_endpoints")
"""These have a foreign key to tenants."""

_TABLES: Final = """
    SELECT c.relname AS name, array_agg(a.attname::text) AS columns
    FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
        AND NOT EXISTS (
            SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
        )
    GROUP BY c.relname
    ORDER BY c.relname
"""


async def migrate_citus(
    database_url: str, *, wait: float = 60.0, report: Report = report_nothing
) -> tuple[list[str], list[str]]:
    """As `migrate`, on a coordinator; returns the revisions that were applied, and the tables that were distributed.

    Raises:
        MigrationError: also if there is no Citus, or it refuses a statement. Another run does what is missing.
    """
    async with locked(database_url, wait) as connection:
        if not await connection.fetchval("SELECT true FROM pg_available_extensions WHERE name = 'citus'"):
            raise MigrationError("This PostgreSQL does not have the extension citus; install it, or leave --citus out.")
        await _run(connection, ["CREATE EXTENSION IF NOT EXISTS citus"])
    applied = await migrate(database_url, wait=wait, report=report)
    async with locked(database_url, wait) as connection:
        done = {row[0] for row in await connection.fetch("SELECT logicalrelid::text FROM pg_dist_partition")}
        tables = await read_tables(connection)
        new = [table for table in tables if table not in done]
        await _run(connection, distribution(tables, done))
        # Citus adds no foreign key in the transaction that distributed its table, and leaves the rows there as well.
        keys = {row[0] for row in await connection.fetch("SELECT conname FROM pg_constraint WHERE contype = 'f'")}
        await _run(
            connection,
            [f"SELECT truncate_local_data_after_distributing_table('{table}')" for table in new]
            + [add_key(table) for table in OF_TENANTS if key_of(table) not in keys],
        )
    return applied, new


def distribution(tables: Mapping[str, Collection[str]], done: Collection[str] = ()) -> list[str]:
    """The statements for those of the tables (names with their columns) that are not `done`.

    Raises:
        MigrationError: a table has no column tenant_id, and is no reference table.
    """
    by_tenant = [table for table in tables if table not in REFERENCE]
    if lost := [table for table in by_tenant if "tenant_id" not in tables[table]]:
        raise MigrationError(f"Citus cannot distribute {', '.join(lost)}: there is no column tenant_id.")
    first = next((table for table in by_tenant if table in done), by_tenant[0])
    return [
        *(f"ALTER TABLE {t} DROP CONSTRAINT IF EXISTS {key_of(t)}" for t in OF_TENANTS if t not in done),
        *(f"SELECT create_reference_table('{t}')" for t in REFERENCE if t not in done),
        *(
            f"SELECT create_distributed_table('{t}', 'tenant_id', colocate_with => '{'none' if t == first else first}')"
            for t in by_tenant
            if t not in done
        ),
    ]


def key_of(table: str) -> str:
    return f"{table}_tenant_id_fkey"


def add_key(table: str) -> str:
    return f"ALTER TABLE {table} ADD CONSTRAINT {key_of(table)} FOREIGN KEY (tenant_id) REFERENCES tenants (tenant_id)"


async def read_tables(connection: "asyncpg.Connection[asyncpg.Record]") -> dict[str, list[str]]:
    """The columns of every table of the schema, but for those of extensions."""
    return {row["name"]: row["columns"] for row in await connection.fetch(_TABLES)}


async def _run(connection: "asyncpg.Connection[asyncpg.Record]", statements: list[str]) -> None:
    """In one transaction."""
    try:
        async with connection.transaction():
            for statement in statements:
                await connection.execute(statement)
    except asyncpg.PostgresError as error:
        raise MigrationError(f"Citus cannot be used: {error}") from error
