"""Contacts and their ledger are copied in batches: what ends that anywhere costs nothing but another start."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import asyncpg
import pytest

from app.embedded import Engines
from app.embedded.binaries import find_postgres
from app.errors import MigrationError
from app.history.versions import read_block
from app.migrations import copying, runner
from app.migrations.runner import head, migrate
from tests.conftest import new_database, with_path
from tests.migration.test_data import older
from tests.migration.test_schema import dump

Report = tuple[str, int, int]
JOBS = ["00000000-0000-7000-8000-000000000001", "00000000-0000-7000-8000-000000000002"]

CONTACTS = """
INSERT INTO tenants (name) VALUES ('globex');
INSERT INTO ledger (tenant_id, job_id, item_index, contact_id, version, email, phone, attributes, source_version)
SELECT t, '{0}', i, 'c' || i, 1, 'a' || i || '@example.com', nullif(i % 3, 0)::text, jsonb_build_object('plan ü', i), i
FROM generate_series(1, 2) t, generate_series(0, {2}) i;
INSERT INTO ledger (
    tenant_id, job_id, item_index, contact_id, version, prev_job_id, prev_item_index, email, attributes, cleared
)
SELECT
    l.tenant_id, '{1}', l.item_index, l.contact_id, 2, l.job_id, l.item_index,
    CASE WHEN l.item_index % 7 = 0 THEN '' ELSE l.email END, '{{}}', '{{"phone": "2"}}'
FROM ledger l WHERE l.item_index % 5 <> 0;
INSERT INTO contacts (
    tenant_id, contact_id, version, source_version, email, phone, attributes, job_id, item_index, prev_job_id,
    prev_item_index, mask, cleared
)
SELECT DISTINCT ON (l.tenant_id, l.contact_id)
    l.tenant_id, l.contact_id, l.version, l.source_version, l.email, l.phone, l.attributes, l.job_id, l.item_index,
    l.prev_job_id, l.prev_item_index, 0, l.cleared
FROM ledger l
ORDER BY l.tenant_id, l.contact_id, l.version DESC;
INSERT INTO job_chunks (tenant_id, job_id, first_index, item_count, outcomes)
SELECT 1, '{0}', i, 4, '' FROM generate_series(0, {2}, 4) i
"""
"""Of two tenants; a job in chunks of 4, and others whose chunks are forgotten."""


@asynccontextmanager
async def template(engines: Engines, count: int) -> AsyncIterator[str]:
    """The name of a database at the revision before contacts became records, with so many a tenant."""
    async with new_database(engines) as url:
        connection = await older(url, "records")
        await connection.execute(CONTACTS.format(*JOBS, count - 1))
        await connection.close()
        yield url.rpartition("/")[2]


def content(url: str) -> list[str]:
    """All that is in a database, in no order: room that an ended batch leaves is used again."""
    program = find_postgres().program("pg_dump")
    found = subprocess.run([program, "--restrict-key=x", "--no-owner", url], capture_output=True, text=True, check=True)
    return sorted(found.stdout.splitlines())


async def ask(url: str, statement: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_ended_after_any_batch_it_continues(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is ended, the database is the same in the end, and no row is copied twice."""
    monkeypatch.setattr(copying, "BATCH", 7)
    monkeypatch.setattr(copying, "_READ_LEDGER", copying._READ_LEDGER.replace("1000", "5"))
    async with template(engines, 23) as name:
        async with new_database(engines, template=name) as url:
            reports: list[Report] = []
            await migrate(url, report=lambda *report: reports.append(report))
            expected = content(url)
        assert reports[-1][1:] == (82, 82), "two tenants, 23 contacts and 18 of them twice"
        assert len(reports) > 15
        async with new_database(engines, template=name) as url:
            await end_everywhere(url, reports, monkeypatch)
            assert await ask(url, "SELECT to_regclass('old_ledger') IS NULL"), "all is copied"
            assert (await migrate(url))[0] == "0011"
            assert content(url) == expected


async def end_everywhere(url: str, reports: Sequence[Report], monkeypatch: pytest.MonkeyPatch) -> None:
    """A start for each transaction that a migration commits; each is ended after one more of them."""
    for report in reports:
        with pytest.raises(MigrationError, match="continues where it was"):
            await migrate(url, report=partial(end_after, report))

    async def end(*_: Any) -> None:
        raise ConnectionResetError

    with monkeypatch.context() as patched:
        patched.setattr(runner, "_run", end)
        with pytest.raises(MigrationError, match="continues where it was"):
            await migrate(url)


def end_after(batch: Report, *report: Any) -> None:
    """Each start must come to the next batch at once."""
    if report[1] >= batch[1] and report[0] == batch[0]:
        assert report == batch
        raise ConnectionResetError


async def test_lookups_find_each_version(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a chunk made is a row of its own, so that a chunk which is applied later comes between others."""
    monkeypatch.setattr(copying, "BATCH", 1_001)
    async with template(engines, 1_200) as name, new_database(engines, template=name) as url:
        await ask(
            url, f"DELETE FROM ledger WHERE tenant_id = 1 AND job_id = '{JOBS[0]}' AND item_index BETWEEN 4 AND 7"
        )
        await migrate(url)
        connection = await asyncpg.connect(url)
        rows = await connection.fetch("SELECT * FROM record_versions WHERE tenant_id = 1 ORDER BY job_id, first_index")
        await connection.close()
    firsts = [row["first_index"] for row in rows]
    assert firsts[:3] == [0, 8, 12], "a gap where a chunk is missing"
    assert firsts[-2:] == [1, 1001]
    assert all(row["first_index"] == row["indexes"][0] for row in rows)
    for row in rows:
        versions = [version for block in row["versions"] for version in read_block(block)]
        assert [version.record_id for version in versions] == [f"c{index}" for index in row["indexes"]]
        assert all(len(read_block(block)) == 128 for block in row["versions"][:-1])
        later = str(row["job_id"]) == JOBS[1]
        assert (row["prev_job_ids"] is not None) == later
        assert {version.version for version in versions} == {1 + later}
        assert all(version.deleted == (later and int(version.record_id[1:]) % 7 == 0) for version in versions)
    shown = json.loads(bytes(read_block(rows[0]["versions"][0])[1].document))
    assert shown == {"email": "a1@example.com", "phone": "1", "attributes.plan ü": 1}


async def test_a_killed_process_continues(engines: Engines) -> None:
    """kill -9 while it copies; who starts it again sees how far it is."""
    async with template(engines, 12_000) as name:
        async with new_database(engines, template=name) as url:
            await migrate(url)
            expected = content(url)
        async with new_database(engines, template=name) as url:
            command = [sys.executable, "-m", "app.cli.main", "migrate"]
            environment = os.environ | {"TRANCHE_DATABASE_URL": url}
            with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
                assert process.stderr is not None
                assert await asyncio.to_thread(process.stderr.readline) == b"contacts: 0 of 24,000 copied\n"
                while not await ask(url, "SELECT count(*) FROM records"):
                    await asyncio.sleep(0.01)
                process.send_signal(signal.SIGKILL)
            done = await asyncio.to_thread(
                subprocess.run, command, env=environment, capture_output=True, text=True, timeout=120
            )
            assert done.returncode == 0, done.stderr
            assert re.match(r"contacts: [1-9][\d,]+ of 24,000 copied\n", done.stderr)
            assert content(url) == expected


async def test_a_lost_connection_is_named(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL restarts, or an administrator ends what runs for so long."""
    monkeypatch.setattr(copying, "BATCH", 1_001)
    async with template(engines, 1_500) as name, new_database(engines, template=name) as url:

        async def terminate() -> None:
            admin = await asyncpg.connect(with_path(url, "postgres"))
            its = "application_name = 'tranche migrate'"
            await admin.execute(f"SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE {its}")
            await admin.close()

        def end(*_: object) -> None:
            """Returns when the connection is gone."""
            with ThreadPoolExecutor() as elsewhere:
                elsewhere.submit(asyncio.run, terminate()).result()

        def find_it_ended(*_: object) -> None:
            """As asyncpg does between two messages of a statement."""
            raise asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress")

        with pytest.raises(MigrationError, match="continues where it was"):
            await migrate(url, report=find_it_ended)
        with pytest.raises(MigrationError, match="continues where it was"):
            await migrate(url, report=end)
        assert (await migrate(url))[-1] == head()
        assert await ask(url, "SELECT count(*) FROM records") == 3_000


async def test_an_older_release_that_still_runs_writes_nothing(engines: Engines) -> None:
    """It would write what nobody copies; and who has a table of it locked is waited for, and no longer."""
    async with template(engines, 3) as name, new_database(engines, template=name) as url:
        holder = await asyncpg.connect(url)
        async with holder.transaction():
            await holder.execute("UPDATE contacts SET phone = '7' WHERE contact_id = 'c1'")
            with pytest.raises(MigrationError, match="nothing was changed"):
                await migrate(url, lock_timeout=0.3)

        def write(*_: object) -> None:
            raise ConnectionResetError

        with pytest.raises(MigrationError):
            await migrate(url, report=write)
        with pytest.raises(asyncpg.UndefinedTableError):
            await holder.execute("UPDATE contacts SET phone = '8' WHERE contact_id = 'c1'")
        await holder.close()
        await migrate(url)
        assert await ask(url, "SELECT document ->> 'phone' FROM records WHERE record_id = 'c1'") == "7"


async def test_records_from_before_they_had_types(engines: Engines) -> None:
    """A database whose revision 0010 made the table in its first form gets the same schema."""
    async with new_database(engines) as fresh:
        await migrate(fresh)
        expected = dump(fresh)
    async with template(engines, 3) as name, new_database(engines, template=name) as url:

        def stop(*_: object) -> None:
            raise ConnectionResetError

        with pytest.raises(MigrationError):
            await migrate(url, report=stop)
        connection = await asyncpg.connect(url)
        await copying.copy_records(connection, lambda *_: None)
        await connection.execute(
            """ALTER TABLE records
                DROP CONSTRAINT records_pkey, DROP COLUMN type_id, ADD PRIMARY KEY (tenant_id, record_id);
            UPDATE records SET withdrawn = NULL, deleted = true WHERE record_id = 'c0'"""
        )
        await connection.close()
        assert (await migrate(url))[0] == "0011"
        assert dump(url) == expected
        assert await ask(url, "SELECT count(*) FROM records WHERE type_id = 1") == 6
        assert await ask(url, "SELECT withdrawn FROM records WHERE record_id = 'c0' LIMIT 1") == "{}"
