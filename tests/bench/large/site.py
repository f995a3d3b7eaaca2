"""What is measured: embedded engines with fsync on, one API process, two workers, as an operator starts them."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import psutil

from app.auth import service
from app.cli.local import place
from app.embedded import Engines
from app.migrations.runner import migrate
from app.settings import Settings
from tests.acceptance.harness import Installation, Part
from tests.acceptance.large import TARGET, peak
from tests.bench.large.client import Line, Told
from tests.bench.large.files import TYPES
from tests.conftest import SECRET_KEY

WORKERS = 2
_TABLES = """TRUNCATE records, record_versions, jobs, job_chunks, deliveries, effects, record_syncs, staged_chunks,
    staged_repeats, idempotency_keys"""
_keys = itertools.count(1)


class Upload(msgspec.Struct):
    """A file that was taken."""

    job_id: str
    seconds: float
    taken: float
    """When the 202 was there, in seconds of the epoch."""


class Site:
    """The installation, and what a measurement asks of it."""

    def __init__(self, engines: Engines, tranche: Installation) -> None:
        self.engines = engines
        self.tranche = tranche
        self.api: Part | None = None
        self.workers: list[Part] = []
        self.line = Line(tranche.url, tranche.key)
        self.other_key = ""

    @property
    def database_url(self) -> str:
        return self.tranche.settings.database_url

    async def restart(self) -> None:
        """API and workers as new processes, so that their peaks are of one import alone."""
        await self.stop()
        self.api = await self.tranche.start_api()
        self.workers = list(await asyncio.gather(*(self.tranche.start_worker() for _ in range(WORKERS))))

    async def stop(self) -> None:
        self.line.close()
        parts = [*self.workers, *([self.api] if self.api is not None else [])]
        await asyncio.gather(*(part.child.stop(10) for part in parts))
        self.api, self.workers = None, []

    async def pause_destination(self) -> None:
        """Deliveries are written, none is sent."""
        answer = await self.tranche.ask("POST", "/v1/destinations/hubspot/pause")
        assert answer.status == 200, answer

    async def resume_destination(self) -> None:
        answer = await self.tranche.ask("POST", "/v1/destinations/hubspot/resume")
        assert answer.status == 200, answer

    async def other_tenant(self) -> str:
        """The key of a second tenant, which has no destination."""
        if not self.other_key:
            async with place.connection(self.tranche.settings) as connection:
                self.other_key = await service.create_key(connection, "other", list(service.SCOPES))
        return self.other_key

    async def execute(self, statement: str, *arguments: Any) -> list[dict[str, Any]]:
        connection = await asyncpg.connect(self.database_url, command_timeout=900)
        try:
            return [dict(row) for row in await connection.fetch(statement, *arguments)]
        finally:
            await connection.close()

    async def clear(self) -> None:
        """No contact and no job; and no checkpoint due."""
        await self.execute(_TABLES)
        await self.execute("CHECKPOINT")

    async def upload(self, path: Path, *, key: str | None = None) -> Upload:
        """Send a file; it must be taken."""
        headers = {
            "Content-Type": TYPES[path.suffix[1:]],
            "Idempotency-Key": f"large-{os.getpid()}-{next(_keys)}",
            "Prefer": "respond-async",
        }
        line = self.line if key is None else Line(self.tranche.url, key)
        started = time.time()
        told = await line.send_file(TARGET, headers, path)
        taken = time.time()
        if key is not None:
            line.close()
        assert told.status == 202, told
        return Upload(told.json()["job_id"], taken - started, taken)

    async def look(self, job_id: str, *, key: str | None = None) -> dict[str, Any]:
        async with Line(self.tranche.url, key) if key is not None else nullcontext(self.line) as line:
            told: Told = await line.ask("GET", f"/v1/jobs/{job_id}")
        assert told.status == 200, told
        return dict(told.json())

    async def first_progress(self, upload: Upload, *, every: float = 0.05, seconds: float = 60) -> float:
        """Seconds from the 202 until a poll shows that items are processed."""
        async with asyncio.timeout(seconds):
            while not (await self.look(upload.job_id))["progress"]["processed"]:
                await asyncio.sleep(every)
        return time.time() - upload.taken

    async def applied(
        self, upload: Upload, seconds: float = 600, *, every: float = 0.5, key: str | None = None
    ) -> tuple[float, dict[str, Any]]:
        """Seconds from the 202 until every item was decided, by the job's own time; and the job."""
        async with asyncio.timeout(seconds):
            while True:
                (row,) = await self.execute("SELECT applied_at FROM jobs WHERE job_id = $1", upload.job_id)
                if row["applied_at"] is not None:
                    break
                await asyncio.sleep(every)
        job = await self.look(upload.job_id, key=key)
        assert job["summary"]["succeeded"] == job["progress"]["items"], job
        return datetime.fromisoformat(job["applied_at"]).timestamp() - upload.taken, job

    def peaks(self) -> tuple[float, list[float]]:
        """Most megabytes that the API and each worker ever held: the process that works, with what it shares."""
        assert self.api is not None
        return peak(self.api.pid), [peak(worker.pid) for worker in self.workers]

    def api_seconds(self) -> float:
        """Processor time that the API has used."""
        assert self.api is not None
        tree = [psutil.Process(self.api.pid), *psutil.Process(self.api.pid).children(recursive=True)]
        return sum(sum(process.cpu_times()[:2]) for process in tree)


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Site]:
    """Engines and sandbox; API and workers are started by `restart`. Everything is stopped on leaving."""
    async with Engines(folder / "engines") as engines:
        await migrate(engines.urls.database_url)
        settings = Settings(
            database_url=engines.urls.database_url,
            redis_url=engines.urls.redis_url,
            secret_key=SECRET_KEY,
            destination_private="127.0.0.0/8",
        )
        async with Installation(settings, folder) as tranche:
            site = Site(engines, tranche)
            try:
                await site.restart()
                yield site
                tranche.quiet = True
            finally:
                await site.stop()
