"""`serve`, `worker` and `migrate` as an operator starts them: what they say, and what they refuse."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.embedded import Engines
from app.migrations import runner as migration
from app.settings import Settings
from tests.conftest import SECRET_KEY, new_database
from tests.http.conftest import free_port


async def start(*words: str, **environ: str) -> Process:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TRANCHE_")}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.cli.main", *words), env=clean | environ, stdout=PIPE, stderr=PIPE
    )


async def run(*words: str, **environ: str) -> tuple[int, str, str]:
    process = await start(*words, **environ)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@asynccontextmanager
async def started(*words: str, **environ: str) -> AsyncIterator[Process]:
    process = await start(*words, **environ)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def read_event(process: Process, name: str) -> dict[str, object]:
    """The first line of the log with this event."""
    assert process.stderr is not None
    async with asyncio.timeout(60):
        while line := await process.stderr.readline():
            if line.startswith(b"{") and (found := json.loads(line))["event"] == name:
                return dict(found)
    raise AssertionError(f"it ended without {name}")


def urls(settings: Settings) -> dict[str, str]:
    return {
        "TRANCHE_DATABASE_URL": settings.database_url,
        "TRANCHE_REDIS_URL": settings.redis_url,
        "TRANCHE_SECRET_KEY": SECRET_KEY,
    }


async def test_serve_says_where_it_listens(settings: Settings) -> None:
    port = free_port()
    async with started("serve", "--port", str(port), **urls(settings)) as process:
        event = await read_event(process, "listening")
        assert event["url"] == f"http://127.0.0.1:{port}"
        await asyncio.open_connection("127.0.0.1", port)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("TRANCHE_SECRET_KEY", "short", "openssl rand"),
        ("TRANCHE_SECRET_KEY", "", "openssl rand"),
        ("TRANCHE_DB_POOLSIZE", "20", "TRANCHE_DB_POOL_SIZE"),
        ("TRANCHE_LOG_LEVEL", "verbose", "debug, info, warning, error"),
    ],
)
@pytest.mark.parametrize("command", ["serve", "worker"])
async def test_bad_settings_are_refused_at_the_start(
    settings: Settings, command: str, variable: str, value: str, words: str
) -> None:
    code, _, err = await run(command, **(urls(settings) | {variable: value}))
    assert code == 2, err
    assert variable in err
    assert words in err
    assert len(err.strip().splitlines()) == 1


async def test_a_worker_without_a_schema_says_so_once_and_waits_for_it(settings: Settings, engines: Engines) -> None:
    async with new_database(engines) as empty:
        there = urls(settings) | {"TRANCHE_DATABASE_URL": empty}
        async with started("worker", **there) as process:
            event = await read_event(process, "worker_waits")
            assert "run: tranche migrate" in str(event["reason"])
            await migration.migrate(empty)
            assert process.stderr is not None
            line = json.loads(await asyncio.wait_for(process.stderr.readline(), 60))
            assert line["event"] == "worker_started", "nothing else was said meanwhile"


async def test_migrate_and_keys_need_no_redis(database_url: str) -> None:
    code, out, err = await run("migrate", TRANCHE_DATABASE_URL=database_url)
    assert (code, out.strip()) == (0, "the schema is up to date"), err
    code, out, err = await run("migrate", TRANCHE_DATABASE_OWNER_URL=database_url)
    assert (code, out.strip()) == (0, "the schema is up to date"), err
    code, _, err = await run("keys", "list", TRANCHE_DATABASE_URL=database_url)
    assert code == 0, err


async def test_a_question_to_nobody_ends_after_five_seconds(tmp_path: object) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    began = time.monotonic()
    code, _, err = await run("jobs", "list", "--url", nowhere, "--key", "trn_x", TRANCHE_LOG_LEVEL="info")
    took = time.monotonic() - began
    assert code == 3, err
    assert f"cannot reach {nowhere}: is it running" in err
    assert 5 <= took < 45, "five seconds, and what a busy machine needs to start a process"
