"""A streaming replica answers lists and exports while the primary is there, and other reads while it is not."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg

from app.embedded import Engines
from app.embedded.identity import give
from app.embedded.postgres import Postgres
from tests.http.conftest import Api, free_port, person
from tests.http.reads.test_fallbacks import check_stale, check_unavailable, count, make_key, served, settings_of


class Standby(Postgres):
    """A replica of the primary whose folder was copied."""

    async def _is_ready(self, pid: int) -> bool:
        try:
            lines = (self._folder / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[7].strip() in ("ready", "standby")


@asynccontextmanager
async def replica_of(engines: Engines, folder: Path) -> AsyncIterator[Standby]:
    primary = engines.postgres
    copy = primary._data_dir / "copy"
    copy.mkdir()
    give(copy, primary._identity)
    program = primary._install.program("pg_basebackup")
    await primary._run([program, "-D", copy, "-R", "--checkpoint=fast", "-d", primary.url], folder=copy)
    (folder / "log").mkdir(parents=True)
    shutil.move(copy, folder / "postgres")
    (folder / "postgres").chmod(0o700)
    for name in ("postgres.password", "postgres.app.password"):
        shutil.copy(primary._data_dir / name, folder / name)
    standby = Standby(folder, user=primary.user)
    await standby.prepare()
    await standby.start(free_port())
    owner = await asyncpg.connect(standby.url)
    await owner.execute("ALTER SYSTEM SET hot_standby_feedback = on")
    await owner.execute("SELECT pg_reload_conf()")
    await owner.close()
    try:
        yield standby
    finally:
        await standby.stop()


async def lists(api: Api) -> list[str]:
    answer = await api.get("/v1/contacts")
    assert (answer.status, "stale" in answer.json()) == (200, False)
    return [record["id"] for record in answer.json()["records"]]


async def until_offloaded(api: Api, path: str = "/v1/contacts") -> None:
    async with asyncio.timeout(60):
        before = count("record", "offload")
        while count("record", "offload") == before:
            assert (await api.get(path)).status == 200
            await asyncio.sleep(0.05)


async def test_a_replica_is_read_from(own_engines: Engines, tmp_path: Path) -> None:
    key = await make_key(own_engines, "import", "read", "admin")
    late_key = ""
    async with replica_of(own_engines, tmp_path / "replica") as standby:
        settings = settings_of(own_engines, database_replica_url=standby.app_url)
        async with served(settings) as nobody:
            api = nobody.as_key(key)
            await until_offloaded(api)

            # What was just written is there, whichever server answers.
            for number in range(30):
                await api.push([person(number)])
                assert f"c{number}" in await lists(api)
            await until_offloaded(api, "/v1/contacts:export")
            assert (await api.get("/v1/contacts:export")).body.count(b"\n") == 30

            # A replica that does not follow is not asked.
            admin = await asyncpg.connect(standby.url)
            await admin.execute("SELECT pg_wal_replay_pause()")
            job = (await api.push([person(90)])).json()["job_id"]
            late_key = await make_key(own_engines, "read")
            before = count("record", "primary")
            assert "c90" in await lists(api)
            assert count("record", "primary") == before + 1

            # Others than lists go to the primary as long as there is one.
            documents: dict[str, Any] = {}
            for path in ("/v1/contacts/c3", "/v1/contacts/c3/history", "/v1/jobs", "/v1/destinations"):
                documents[path] = (await api.get(path)).json()
            assert (await api.get(f"/v1/jobs/{job}")).status == 200
            seen = count("record", "replica")

            await own_engines.postgres.kill()
            check_stale(await api.get("/v1/contacts/c3"), documents["/v1/contacts/c3"])
            check_stale(await api.get("/v1/contacts/c3/history"), documents["/v1/contacts/c3/history"])
            check_stale(await api.get("/v1/destinations"), documents["/v1/destinations"])
            assert count("record", "replica") == seen + 2
            # Nobody has read it before, but the replica has it.
            other = await api.get("/v1/contacts/c4")
            assert (other.status, other.json()["stale"], other.json()["id"]) == (200, True, "c4")
            # It came after the replica had stopped: that it is not there proves nothing.
            check_unavailable(await api.get("/v1/contacts/c90"))
            check_unavailable(await api.as_key(late_key).get("/v1/contacts/c4"))
            # …but this process has seen it.
            assert (await api.get(f"/v1/jobs/{job}")).json()["stale"] is True
            exported = await api.get("/v1/contacts:export")
            assert (exported.status, exported.body.count(b"\n")) == (200, 30)
            assert exported.headers["Warning"].startswith("110")
            age = (await api.get("/v1/contacts/c4")).json()["age_seconds"]
            await asyncio.sleep(2.1)
            assert (await api.get("/v1/contacts/c4")).json()["age_seconds"] >= age + 2

            # The rest of the log had arrived.
            await admin.execute("SELECT pg_wal_replay_resume()")
            async with asyncio.timeout(60):
                while (await api.get("/v1/contacts/c90")).status != 200:
                    await asyncio.sleep(0.1)
            await admin.close()
            await standby.kill()
            check_stale(await api.get("/v1/contacts/c3"), documents["/v1/contacts/c3"])
            check_unavailable(await api.get("/v1/contacts/c5"))
