"""The whole way: service, worker, CRM and command line, from a refusal to "all of them after so many attempts"."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

from app.auth import service
from jobs.worker import working
from tests.http.conftest import serve
from tests.jobs.conftest import World, people


async def test_the_shell_tells_of_all_attempts(world: World, tmp_path: Path) -> None:
    await world.sandbox.misbehave(reject={"emails": [f"c{i:05}@example.com" for i in range(20)]})
    async with world.database.connection() as connection:
        key = await service.create_key(connection, "acme", ["import", "read", "admin"])
    async with serve(world.settings) as url, working(world.settings):
        environ = os.environ | {"TRANCHE_URL": url, "TRANCHE_API_KEY": key, "COLUMNS": "250", "PYTHONPATH": os.getcwd()}

        async def run(*arguments: str) -> tuple[int, str]:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "app.cli.main", *arguments, stdout=PIPE, env=environ, cwd=tmp_path
            )
            out, _ = await process.communicate()
            return process.returncode or 0, out.decode()

        job_id = str((await world.push(people(1_000))).job_id)
        code, out = await run("jobs", "wait", job_id)
        assert (code, "hubspot: 980 of 1,000 after 1 attempt, 20 failed" in out) == (1, True)
        code, out = await run("jobs", "retry", job_id, "--wait")
        assert (code, "hubspot: 980 of 1,000 after 2 attempts, 20 failed" in out) == (1, True)
        await world.sandbox.recover()
        code, out = await run("jobs", "retry", job_id, "--wait", "--destination", "hubspot")
        assert (code, "hubspot: 1,000 of 1,000 after 3 attempts\n" in out) == (0, True)
        code, out = await run("jobs", "show", job_id)
        assert "hubspot: 1,000 of 1,000 after 3 attempts\n" in out
        code, out = await run("jobs", "retry", job_id)
        assert (code, "NOTHING_TO_RETRY" in out) == (0, True), "asked twice, it is done once"
        await world.rows("UPDATE destinations SET state = 'paused'")
        waiting = str((await world.push(people(1, start=5_000))).job_id)
        code, out = await run("jobs", "show", waiting)
        assert "hubspot is paused: `tranche destinations resume hubspot`\n" in out
        await world.rows(
            "UPDATE destinations SET state = 'active', blocked_until = now() + interval '1 hour', "
            "blocked_code = 'CIRCUIT_OPEN', blocked_detail = 'the destination answered 401'"
        )
        code, out = await run("jobs", "show", waiting)
        waits = re.search(r"^hubspot waits ([\d,]+) s: CIRCUIT_OPEN: the destination answered 401$", out, re.M)
        assert waits is not None
        assert 3_000 < int(waits[1].replace(",", "")) <= 3_600, "of the hour, less what the command took"
        code, out = await run("jobs", "list")
        assert all(line.rstrip().count("completed") == 1 for line in out.splitlines() if job_id in line), out
