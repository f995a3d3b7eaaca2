"""`tranche migrate --citus`: what it would run, as far as a plain PostgreSQL can tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asyncpg
import pytest

from app.errors import MigrationError
from app.migrations import runner
from app.migrations.citus import OF_TENANTS, REFERENCE, add_key, distribution, migrate_citus, read_tables

# There was no distributed database before these.
LATER = sorted(Path(runner.__file__).parent.glob("versions/*.sql"))[13:]


async def rows(database_url: str, statement: str) -> set[Any]:
    connection = await asyncpg.connect(database_url)
    try:
        return {row[0] for row in await connection.fetch(statement)}
    finally:
        await connection.close()


async def tables(database_url: str) -> dict[str, list[str]]:
    connection = await asyncpg.connect(database_url)
    try:
        return await read_tables(connection)
    finally:
        await connection.close()


async def test_without_the_extension_it_says_so(empty_url: str) -> None:
    with pytest.raises(MigrationError, match="does not have the extension citus"):
        await migrate_citus(empty_url)
    assert await tables(empty_url) == {}, "nothing was done"


async def test_every_table_is_distributed_by_tenant(database_url: str) -> None:
    """A table without tenant_id must be a reference table."""
    found = await tables(database_url)
    statements = distribution(found)
    for table in found:
        (statement,) = [s for s in statements if f"_table('{table}'" in s]
        kind = "reference" if table in REFERENCE else "distributed"
        assert statement.startswith(f"SELECT create_{kind}_table('{table}'")
    apart = [s for s in statements if "create_distributed" in s and "colocate_with => 'api_keys'" not in s]
    assert apart == ["SELECT create_distributed_table('api_keys', 'tenant_id', colocate_with => 'none')"]


async def test_a_table_without_tenants_is_refused(database_url: str) -> None:
    found = await tables(database_url)
    with pytest.raises(MigrationError, match="cannot distribute lost_and_found: there is no column tenant_id"):
        distribution(found | {"lost_and_found": ["id"]})


async def test_what_was_distributed_is_left_alone(database_url: str) -> None:
    found = await tables(database_url)
    assert distribution(found, set(found)) == []
    added = "SELECT create_distributed_table('jobs', 'tenant_id', colocate_with => 'api_keys')"
    assert distribution(found, set(found) - {"jobs"}) == [added]


async def test_every_unique_key_has_the_tenant(database_url: str) -> None:
    """Citus enforces no other on a distributed table."""
    without = await rows(
        database_url,
        f"""SELECT i.indexrelid::regclass::text FROM pg_index i
        JOIN pg_class c ON c.oid = i.indrelid AND c.relnamespace = 'public'::regnamespace
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
        WHERE i.indisunique AND NOT a.attnum = ANY (i.indkey) AND c.relname <> ALL ('{{{",".join(REFERENCE)}}}')""",
    )
    assert without == set()


async def test_the_foreign_keys_are_those_of_the_schema(database_url: str) -> None:
    keys = await rows(
        database_url,
        """SELECT format('ALTER TABLE %s ADD CONSTRAINT %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
        FROM pg_constraint WHERE contype = 'f'""",
    )
    assert keys == {add_key(table).replace("tenants (", "tenants(") for table in OF_TENANTS}


def test_a_later_revision_runs_on_distributed_tables() -> None:
    """Citus does not pass on every ALTER TABLE."""
    for path in LATER:
        sql = path.read_text(encoding="utf-8").upper()
        for refused in ("SET STORAGE", "SET STATISTICS", "ADD GENERATED", "OWNER TO"):
            assert refused not in sql, f"{path.name}: Citus refuses {refused} on a distributed table"
