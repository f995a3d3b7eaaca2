"""What is measured: engines, one API process, two workers and sandbox CRMs, each a process."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import msgspec
import psutil

from app.embedded import Engines
from app.migrations.runner import migrate
from app.settings import Settings
from tests.acceptance.harness import Installation, Part, free_port, until
from tests.bench import rig
from tests.conftest import SECRET_KEY
from tests.jobs.conftest import Sandbox

WORKERS = 2
BATCH = 1_000
"""Contacts of an import."""
CHUNK = 100
"""Contacts of a call."""
_keys = itertools.count(1)


class Site:
    """The installation; its sandbox is the destination `hubspot`."""

    def __init__(self, engines: Engines, tranche: Installation, session: aiohttp.ClientSession) -> None:
        self.engines = engines
        self.tranche = tranche
        self.session = session
        self.sandbox = tranche.sandbox
        self.api: Part | None = None
        self.workers: list[Part] = []

    async def start(self, **changes: Any) -> None:
        """The API and two workers with these settings."""
        self.api = await self.tranche.start_api()
        self.workers = list(await asyncio.gather(*(self.tranche.start_worker(**changes) for _ in range(WORKERS))))

    async def another_sandbox(self, name: str, kind: str = "hubspot", options: dict[str, Any] | None = None) -> Sandbox:
        """One more CRM, as a destination of this name."""
        port = free_port()
        words = ("sandbox-crm", "--kind", kind, "--field", "*", "--port", str(port))
        part = self.tranche.start(f"sandbox-{name}", *words)
        sandbox = Sandbox(f"http://127.0.0.1:{port}", self.session)
        await self.tranche._await_answer(f"{sandbox.base_url}/__sandbox__/health", part)
        new = {"name": name, "kind": kind, "base_url": sandbox.base_url, "token": "pat-test", "options": options or {}}
        answer = await self.tranche.ask("POST", "/v1/destinations", json=new)
        assert answer.status == 201, answer
        return sandbox

    async def post(self, ids: list[str]) -> float:
        """Import these contacts in one batch; milliseconds until its answer."""
        data = rig.body(rig.items(ids, 0))
        headers = {
            "Authorization": f"Bearer {self.tranche.key}",
            "Idempotency-Key": f"delivery-{os.getpid()}-{next(_keys)}",
            "Content-Type": "application/json",
        }
        began = time.perf_counter()
        async with self.session.post(f"{self.tranche.url}/v1/contacts:bulk", data=data, headers=headers) as answer:
            told = await answer.read()
        assert answer.status == 207, told[:300]
        assert b'"failed":0,"retry":0' in told, told[:300]
        return (time.perf_counter() - began) * 1000

    async def post_all(self, ids: list[str]) -> None:
        """As fast as it goes."""
        for start in range(0, len(ids), BATCH):
            await self.post(ids[start : start + BATCH])

    async def rows(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        return await self.tranche.rows(query, *arguments)

    async def watch(self) -> asyncpg.Connection[Any]:
        """A connection for polling."""
        return await asyncpg.connect(self.tranche.settings.database_url)

    async def delivered(self, destination: str, seconds: float) -> float:
        """When the last delivery of a destination ended, in seconds of the epoch; waits for it."""
        connection = await self.watch()
        try:

            async def look() -> float | None:
                row = await connection.fetchrow(
                    """SELECT count(*) FILTER (WHERE x.state <> 'done') AS open,
                        extract(epoch FROM max(x.finished_at))::float8 AS last
                    FROM deliveries x JOIN destinations d USING (tenant_id, destination_id)
                    WHERE d.name = $1""",
                    destination,
                )
                return None if row is None or row["open"] else row["last"]

            return await until(look, seconds, every=0.1)
        finally:
            await connection.close()

    async def states(self, destination: str) -> dict[str, int]:
        """Items at a destination by state, without the zeros."""
        (row,) = await self.rows(
            """SELECT sum(e.pending)::int AS pending, sum(e.ok)::int AS ok, sum(e.retry)::int AS retry,
                sum(e.failed)::int AS failed, sum(e.unknown)::int AS unknown, sum(e.dead)::int AS dead,
                sum(e.skipped)::int AS skipped
            FROM effects e JOIN destinations d USING (tenant_id, destination_id) WHERE d.name = $1""",
            destination,
        )
        return {state: count for state, count in row.items() if count}

    def processor_seconds(self) -> dict[str, float]:
        """Processor time used so far, by part."""
        engines = self.engines
        parts = {
            "PostgreSQL": [engines.postgres.child.pid],
            "Redis": [engines.valkey.child.pid],
            "workers": [worker.pid for worker in self.workers],
            "API": [self.api.pid] if self.api else [],
            "sandbox": [part.pid for part in self.tranche.parts if "sandbox" in part.log.name],
        }
        return {name: sum(map(_seconds, pids)) for name, pids in parts.items()}


def _seconds(pid: int) -> float:
    tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    total = 0.0
    for process in tree:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            # What ended children used, a checkpoint's writer for instance, belongs to it too.
            total += times.user + times.system + times.children_user + times.children_system
    return total


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Site]:
    """Engines and sandbox; API and workers are started by `start`. Everything is stopped on leaving."""
    async with Engines(folder / "engines") as engines:
        await migrate(engines.urls.database_url)
        settings = Settings(
            database_url=engines.urls.database_url,
            redis_url=engines.urls.redis_url,
            secret_key=SECRET_KEY,
            destination_private="127.0.0.0/8",
        )
        async with (
            Installation(settings, folder, engines.urls.database_url) as tranche,
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(120)) as session,
        ):
            tranche.settings = msgspec.structs.replace(tranche.settings, log_level="info")
            yield Site(engines, tranche, session)
