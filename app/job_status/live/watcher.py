"""Waits for jobs on behalf of any number of requests with one short query at a time."""

import asyncio
import uuid
from contextvars import Context
from typing import Final

import structlog

from app.errors import TrancheError
from app.job_status import queries
from app.kit.postgres.database import Database

log = structlog.get_logger()

INTERVAL: Final = 0.1

_Job = tuple[int, uuid.UUID]


class JobWatcher:
    """Looks after every awaited job at once, and only while somebody waits."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[_Job, dict[asyncio.Future[None], int | None]] = {}
        self._task: asyncio.Task[None] | None = None
        self._released = False

    async def wait(self, tenant_id: int, job_id: uuid.UUID, *, seconds: float, revision: int | None = None) -> bool:
        """True once the job is finished, or, with `revision` given, once it has another; false after `seconds`."""
        if seconds <= 0 or self._released:
            return False
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        job = (tenant_id, job_id)
        self._waiting.setdefault(job, {})[done] = revision
        if self._task is None or self._task.done():
            # For all who wait: in nobody's name.
            self._task = asyncio.create_task(self._watch(), context=Context())
        try:
            async with asyncio.timeout(seconds):
                await done
            return not self._released
        except TimeoutError:
            return False
        finally:
            waiters = self._waiting.get(job, {})
            waiters.pop(done, None)
            if not waiters:
                self._waiting.pop(job, None)

    @property
    def released(self) -> bool:
        """The process is about to end."""
        return self._released

    def release(self) -> None:
        """Let everybody go with what there is: the process is about to end, and would end only after them."""
        self._released = True
        for waiters in self._waiting.values():
            for future in waiters:
                if not future.done():
                    future.set_result(None)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while self._waiting:
            await asyncio.sleep(INTERVAL)
            jobs = list(self._waiting)
            if not jobs:
                return
            try:
                async with self._database.connection() as connection:
                    seen = await queries.read_revisions(connection, jobs)
            except Exception as error:
                report = log.debug if isinstance(error, TrancheError) else log.warning
                report("watch_failed", error=error)
                await asyncio.sleep(INTERVAL * 5)
                continue
            for found in seen:
                for future, known in list(self._waiting.get((found.tenant_id, found.job_id), {}).items()):
                    changed = known is not None and known != found.revision
                    if (found.finished or changed) and not future.done():
                        future.set_result(None)
