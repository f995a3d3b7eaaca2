"""A pool of workers that poll PostgreSQL for one kind of work, each with one piece of one job at a time."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Final

import structlog

from app.errors import StorageFull, TrancheError
from app.kit.postgres.database import Database
from jobs.scheduling.fair_queue import FairQueue, Job
from jobs.scheduling.tenant_shares import TenantShares

log = structlog.get_logger()

_REST: Final = 0.05
"""Seconds for a job of which other workers have claimed all there is."""
_ERROR_PAUSE: Final = 2.0


class PollingWorkerPool(ABC):
    """Runs until it is stopped; tenants are served by their weight, and the jobs of a tenant in rotation."""

    def __init__(self, name: str, count: int, database: Database, *, interval: float, idle: float) -> None:
        """`interval`: seconds between polls for new jobs while there is work, `idle`: while there is none; a
        notification makes the next one immediate."""
        self._name = name
        self._count = count
        self._database = database
        self._interval = interval
        self._idle = idle
        self._shares = TenantShares(database)
        self._queue = FairQueue(self._shares.of)
        self._polling = asyncio.Lock()
        self._poll_due = 0.0
        self._notified = asyncio.Event()
        self._stopping = False

    @abstractmethod
    async def find(self) -> Iterable[Job]:
        """The jobs that have work."""

    @abstractmethod
    async def work(self, job: Job) -> None:
        """Do one piece of this job's work; `rest` or `forget` it if there is no more."""

    def notify(self) -> None:
        """There is something new to be found; returns at once."""
        self._poll_due = 0.0
        self._notified.set()

    def stop(self) -> None:
        """Begin nothing more; `run` returns when what is in progress is committed."""
        self._stopping = True
        self._notified.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._count):
                group.create_task(self._work())

    def rest(self, job: Job, seconds: float = _REST) -> None:
        """Other workers have claimed all there is of it, or it must wait."""
        self._queue.rest(job, time.monotonic() + seconds)

    def forget(self, job: Job) -> None:
        """It has no more work, for now at least."""
        self._queue.forget(job)

    async def _work(self) -> None:
        while not self._stopping:
            if full_for := self._database.storage.seconds:
                await asyncio.sleep(min(full_for, _ERROR_PAUSE))
                continue
            try:
                await self._poll()
                job = self._queue.next(time.monotonic())
                if job is None:
                    await self._pause(_REST if self._queue else self._idle)
                    continue
                try:
                    await self.work(job)
                finally:
                    self._queue.done(job)
            except StorageFull:
                continue  # it was logged once
            except TrancheError as error:
                log.warning(f"{self._name}_worker_waits", error=error)
                await asyncio.sleep(_ERROR_PAUSE)
            except Exception:
                log.exception(f"{self._name}_worker_waits")
                await asyncio.sleep(_ERROR_PAUSE)

    async def _poll(self) -> None:
        """Look for jobs, unless another worker of the pool just did."""
        async with self._polling:
            if time.monotonic() < self._poll_due:
                return
            # A notification from here on sets both again, and makes the next worker poll.
            self._notified.clear()
            self._poll_due = time.monotonic() + self._interval
            await self._shares.refresh()
            self._queue.update(await self.find())

    async def _pause(self, seconds: float) -> None:
        """Wait, but not beyond a notification."""
        try:
            async with asyncio.timeout(seconds):
                await self._notified.wait()
        except TimeoutError:
            self._poll_due = min(self._poll_due, time.monotonic())
