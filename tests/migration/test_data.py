"""A database of an older release, with data, is brought up to date where it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import asyncpg

from app import migrations
from app.migrations.runner import migrate

THIS = "naming"
"""The revision that is tried, by its name: numbers move when others come first."""
VERSIONS = Path(migrations.__file__).parent / "versions"
JOBS = [f"00000000-0000-7000-8000-00000000000{n}" for n in range(1, 5)]


async def older(url: str, revision: str = THIS) -> asyncpg.Connection[Any]:
    """A database at the revision before this one."""
    connection = await asyncpg.connect(url)
    paths = sorted(VERSIONS.glob("*.sql"))
    place = next(number for number, path in enumerate(paths) if path.stem.endswith(revision))
    for path in paths[:place]:
        await connection.execute(path.read_text())
    await connection.execute(
        "CREATE TABLE schema_version (version_num varchar(32) CONSTRAINT schema_version_pkc PRIMARY KEY)"
    )
    await connection.execute("INSERT INTO schema_version VALUES ($1)", paths[place - 1].stem.partition("_")[0])
    await connection.execute("INSERT INTO tenants (name) VALUES ('acme')")
    await connection.execute(
        """INSERT INTO destinations (tenant_id, name, kind, base_url, credentials)
        SELECT 1, n, 'hubspot', 'http://x', '' FROM unnest(ARRAY['a', 'b']) n"""
    )
    return connection


async def contact(connection: asyncpg.Connection[Any], contact_id: str, *versions: dict[str, Any]) -> None:
    """A contact with these versions, each by a job of its own."""
    for number, version in enumerate(versions, 1):
        place = int(contact_id[1:])
        values = (
            contact_id,
            number,
            "a@example.com",
            version.get("phone"),
            version.get("company"),
            json.dumps(version.get("attributes", {})),
            JOBS[number - 1],
            place,
            JOBS[number - 2] if number > 1 else None,
            place if number > 1 else None,
        )
        await connection.execute(
            """INSERT INTO ledger (tenant_id, contact_id, version, email, phone, company, attributes, job_id,
                item_index, prev_job_id, prev_item_index) VALUES (1, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10)""",
            *values,
        )
    await connection.execute(
        """INSERT INTO contacts (tenant_id, contact_id, version, email, phone, company, attributes, job_id, item_index,
            prev_job_id, prev_item_index, mask) VALUES (1, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0)""",
        *values,
    )


async def held(connection: asyncpg.Connection[Any], contact_id: str, *versions: int) -> None:
    """The versions that the destinations have."""
    for number, version in enumerate(versions, 1):
        await connection.execute(
            """INSERT INTO contact_syncs (tenant_id, destination_id, contact_id, synced_version, state, state_version)
            VALUES (1, $1, $2, $3, 'ok', $3)""",
            number,
            contact_id,
            version,
        )


async def test_what_is_still_to_be_cleared_is_known_after_the_upgrade(empty_url: str) -> None:
    """A field without a value counts as never named, unless a destination holds a version in which it had one."""
    connection = await older(empty_url)
    try:
        before = {"phone": "1", "attributes": {"plan": "gold", "tier": 1}}
        between = {"phone": "1", "company": "X", "attributes": {"plan": "gold"}}
        after = {"attributes": {"plan": "gold"}}
        await contact(connection, "c1", before, between, after)
        await held(connection, "c1", 3, 1)
        await contact(connection, "c2", before, after)
        await held(connection, "c2", 2, 2)
        await contact(connection, "c3", before)
        await held(connection, "c3", 1)
        await contact(connection, "c4", before, after)
        await migrate(empty_url)
        rows = await connection.fetch("SELECT record_id, cleared, document FROM records ORDER BY record_id")
        found = {row["record_id"]: row["cleared"] and json.loads(row["cleared"]) for row in rows}
        assert found == {
            "c1": {"phone": "3", "company": "3", "attributes.tier": "3"},
            "c2": None,
            "c3": None,
            "c4": None,
        }
        assert json.loads(rows[0]["document"]) == {
            "email": "a@example.com",
            "phone": None,
            "company": None,
            "attributes.plan": "gold",
            "attributes.tier": None,
        }
        assert json.loads(rows[1]["document"]) == {"email": "a@example.com", "attributes.plan": "gold"}
        assert await connection.fetchval("SELECT count(*) FROM record_syncs WHERE created IS NOT NULL") == 0
    finally:
        await connection.close()
