"""The role that serves and works reads and writes rows, and nothing else; the owner need be no superuser."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from app.embedded import Engines
from app.migrations.privileges import APP, OWNER, privileges
from app.migrations.runner import head, migrate
from tests.conftest import as_app, new_database

SECURITY = Path(__file__).parents[3] / "docs" / "security.md"
_names = itertools.count(1)


@pytest.fixture
async def app_role(database_url: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(as_app(database_url))
    yield connection
    await connection.close()


async def test_the_role_is_ordinary_and_owns_nothing(app_role: asyncpg.Connection[Any]) -> None:
    role = await app_role.fetchrow("SELECT * FROM pg_roles WHERE rolname = current_user")
    assert role is not None
    assert role["rolname"] == APP
    for right in ("rolsuper", "rolcreaterole", "rolcreatedb", "rolreplication", "rolbypassrls"):
        assert role[right] is False, right
    for catalog, owner in (("pg_class", "relowner"), ("pg_proc", "proowner"), ("pg_namespace", "nspowner")):
        owned = await app_role.fetchval(f"SELECT count(*) FROM {catalog} WHERE {owner} = $1", role["oid"])
        assert owned == 0, catalog


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine ()",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER TABLE records ADD COLUMN mine int",
        "DROP TABLE records",
        "TRUNCATE records",
        "CREATE TRIGGER mine BEFORE INSERT ON records EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "ALTER ROLE tranche_app SUPERUSER",
        "CREATE ROLE mine",
        "COPY contacts TO PROGRAM 'true'",
        "SELECT * FROM pg_authid",
        "SELECT pg_read_file('PG_VERSION')",
        "SET ROLE tranche",
    ],
)
async def test_it_may_not_change_the_schema_nor_reach_beyond_it(
    app_role: asyncpg.Connection[Any], statement: str
) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app_role.execute(statement)


async def test_an_owner_who_is_no_superuser_migrates_and_what_it_makes_later_is_usable(engines: Engines) -> None:
    owner, app = (f"{name}_{next(_names)}" for name in (OWNER, APP))
    async with new_database(engines) as url:
        superuser = await asyncpg.connect(url)
        await superuser.execute(f"CREATE ROLE {owner} LOGIN PASSWORD 'o'; CREATE ROLE {app} LOGIN PASSWORD 'a'")
        try:
            await superuser.execute(privileges(owner, app))
            place = url.partition("@")[2]
            assert (await migrate(f"postgresql://{owner}:o@{place}"))[-1] == head()
            maker = await asyncpg.connect(f"postgresql://{owner}:o@{place}")
            await maker.execute("CREATE TABLE later (id int GENERATED ALWAYS AS IDENTITY, text text)")
            await maker.close()
            user = await asyncpg.connect(f"postgresql://{app}:a@{place}")
            await user.execute("INSERT INTO later (text) VALUES ('x'); UPDATE later SET text = 'y'; DELETE FROM later")
            await user.execute("INSERT INTO tenants (name) VALUES ('acme')")
            limits = [
                await user.fetchval("SELECT current_setting($1)", name)
                for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "jit")
            ]
            assert limits == ["15s", "3s", "15s", "off"], "they hold for whoever connects, with or without PgBouncer"
            await user.close()
        finally:
            await superuser.execute(f"DROP OWNED BY {owner}; DROP OWNED BY {app}; DROP ROLE {owner}, {app}")
            await superuser.close()


def test_the_documented_statements_are_those_that_are_tested() -> None:
    statements = [line for line in privileges().splitlines() if not line.startswith("--")]
    assert "\n".join(statements) in SECURITY.read_text(encoding="utf-8")
