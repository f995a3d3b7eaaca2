"""Migrated from zero is the schema committed in `schema.sql`, so that a reviewer sees what a revision does.

After a deliberate change write it anew with: UPDATE_SCHEMA=1 pytest tests/migration/test_schema.py
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import asyncpg

from app.embedded.binaries import find_postgres
from app.migrations.revisions import newest
from app.migrations.runner import head, migrate

_SNAPSHOT = Path(__file__).with_name("schema.sql")
_NOISE = re.compile(r"--|SET |SELECT pg_catalog\.set_config|\\(un)?restrict ")
_VERSIONS = Path(migrate.__globals__["__file__"]).parent / "versions"


def dump(database_url: str) -> str:
    """The schema as pg_dump writes it, without comments and session settings."""
    program = find_postgres().program("pg_dump")
    text = subprocess.run(
        [program, "--schema-only", "--no-owner", "--no-privileges", "--no-comments", database_url],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    lines = [line for line in text.splitlines() if not _NOISE.match(line)]
    return re.sub(r"\n{2,}", "\n\n", "\n".join(lines)).strip() + "\n"


async def test_migrated_from_zero_is_the_committed_schema(empty_url: str) -> None:
    await migrate(empty_url)
    found = dump(empty_url)
    if os.environ.get("UPDATE_SCHEMA"):
        _SNAPSHOT.write_text(found, encoding="utf-8")
    assert found == _SNAPSHOT.read_text(encoding="utf-8")


def test_a_revision_has_its_sql_beside_it() -> None:
    """Plain SQL that can be read and reviewed; the newest one is what this release asks for."""
    revisions = sorted(path.stem for path in _VERSIONS.glob("[0-9]*.py"))
    assert revisions == sorted(path.stem for path in _VERSIONS.glob("*.sql"))
    assert all((_VERSIONS / f"{revision}.sql").read_text(encoding="utf-8").strip() for revision in revisions)
    assert revisions[-1].startswith(f"{head()}_")
    numbers = [int(revision.partition("_")[0]) for revision in revisions]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_every_key_leads_with_the_tenant(database_url: str) -> None:
    """A tenant's rows lie together, and tenant_id can distribute every table."""
    connection = await asyncpg.connect(database_url)
    rows = await connection.fetch(
        """SELECT i.indexrelid::regclass::text AS index, i.indrelid::regclass::text AS "table", a.attname AS first
        FROM pg_index i
        JOIN pg_class c ON c.oid = i.indrelid AND c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]"""
    )
    tables = await connection.fetch(
        """SELECT c.relname, i.indexrelid IS NOT NULL AS has_key FROM pg_class c
        LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'"""
    )
    await connection.close()
    shared = {"tenants", "schema_version"}
    assert {r["index"]: r["first"] for r in rows if r["table"] not in shared and r["first"] != "tenant_id"} == {}
    assert [r["relname"] for r in tables if not r["has_key"]] == []
    assert {r["table"] for r in rows} >= {"records", "record_versions", "deliveries", "idempotency_keys"}


async def test_business_keys_compare_byte_by_byte(database_url: str) -> None:
    """Python sorts ids by code point and both sides must lock in one order, whatever the server's locale."""
    connection = await asyncpg.connect(database_url)
    rows = await connection.fetch(
        """SELECT c.relname, a.attname FROM pg_attribute a
        JOIN pg_class c ON c.oid = a.attrelid AND c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
        JOIN pg_collation l ON l.oid = a.attcollation
        WHERE a.attname IN ('record_id', 'record_ids', 'key') AND l.collname <> 'C'"""
    )
    await connection.close()
    assert rows == []


def test_the_newest_revision_is_known_without_alembic() -> None:
    assert newest() == head()
