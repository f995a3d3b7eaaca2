"""A full disk: what cannot be stored is refused with the remedy and leaves nothing, and /health says why."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import pytest

from app.auth import service
from app.embedded import Engines
from app.migrations.runner import migrate
from tests.conftest import quick
from tests.http.conftest import Api, aiohttp_session, person, serve

Db: TypeAlias = "asyncpg.Connection[Any]"

REFUSE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;
"""
"""What PostgreSQL says when it has no room, at will."""


async def fill(db: Db, table: str) -> None:
    """From now on there is no room for another row of this table."""
    await db.execute(REFUSE)
    await db.execute(f"CREATE TRIGGER full_disk BEFORE INSERT ON {table} EXECUTE FUNCTION refuse()")


async def free(db: Db) -> None:
    await db.execute("DROP FUNCTION refuse() CASCADE")


async def test_an_import_without_room_leaves_nothing_and_its_key_free(api: Api, db: Db) -> None:
    await fill(db, "record_versions")
    refused = await api.push([person(1)], key="k")
    assert (refused.status, refused.json()["code"]) == (503, "STORAGE_FULL")
    assert int(refused.headers["Retry-After"]) >= 1
    assert "disk space" in refused.json()["detail"]
    assert await db.fetchval("SELECT count(*) FROM records") == 0
    await free(db)
    assert (await api.push([person(1)], key="k")).status == 207


async def test_an_upload_without_room_says_so_and_goes_through_later(api: Api, db: Db) -> None:
    body = b"id,email\n" + b"".join(b"c%d,c%d@example.com\n" % (n, n) for n in range(3_000))
    sent: dict[str, Any] = {"key": "file", "headers": {"Content-Type": "text/csv"}}
    assert (await api.push([person(0)])).status == 207
    await db.execute(REFUSE)
    await db.execute(
        "CREATE TRIGGER full_disk BEFORE INSERT ON staged_chunks FOR EACH ROW WHEN (NEW.first_index > 0) "
        "EXECUTE FUNCTION refuse()"
    )
    refused = await api.push(body, **sent)
    assert (refused.status, refused.json()["code"]) == (503, "STORAGE_FULL")
    (failed, _) = (await api.get("/v1/jobs")).json()["jobs"]
    assert (failed["state"], failed["error"]["code"]) == ("failed", "STORAGE_FULL")
    assert await db.fetchval("SELECT count(*) FROM staged_chunks") == 0
    await free(db)
    assert (await api.push(body, **sent)).status == 202


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 400 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400m,mode=0755", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a file system can be mounted here by root alone")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
async def test_health_fails_while_the_disk_is_full_and_passes_when_there_is_room(small_disk: Path) -> None:
    """On a file system that really is full; PostgreSQL writes to it as it would anywhere."""
    async with Engines(small_disk / "engines") as engines:
        await migrate(engines.urls.database_url)
        settings = quick(engines.urls.database_url, engines.urls.redis_url)
        db = await asyncpg.connect(engines.urls.database_url)
        key = await service.create_key(db, "acme", ["import", "read", "admin"])
        async with serve(settings) as url, aiohttp_session() as session:
            api = Api(session, url, key)
            assert (await api.push([person(1)])).status == 207
            assert (await api.get("/health")).json()["checks"]["database"]["status"] == "pass"
            filler = small_disk / "filler"
            occupy(filler)
            refused = 0
            for number in range(40):
                answer = await api.push([person(n) for n in range(number * 500, number * 500 + 500)])
                assert answer.status in (207, 503)
                if answer.status == 503:
                    refused += answer.json()["code"] == "STORAGE_FULL"
                    break
            assert refused
            health = await api.get("/health")
            assert health.status == 503
            assert health.json()["checks"]["database"]["status"] == "fail"
            assert "disk space" in health.json()["checks"]["database"]["output"]
            filler.unlink()
            assert (await api.push([person(1, company="Later")])).status == 207
            assert (await api.get("/health")).json()["checks"]["database"]["status"] == "pass"
        await db.close()


def occupy(path: Path) -> None:
    """Leave no byte."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(b"\0" * 4_096):
            pass
    assert os.statvfs(path.parent).f_bavail == 0
