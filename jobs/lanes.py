"""Work that stands in PostgreSQL and is done piece by piece: several lanes, each with a piece of one job at a time."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Final

import structlog

from app.db.pool import Storage
from app.errors import StorageFull, TrancheError
from jobs.turns import Job, Turns

log = structlog.get_logger()

_REST: Final = 0.05
"""Seconds for a job of which others have all there is."""
_TROUBLE: Final = 2.0


class LaneWorker(ABC):
    """Runs until it is stopped; tenants, and the jobs of a tenant, have their turns."""

    def __init__(
        self,
        name: str,
        count: int,
        *,
        storage: Storage,
        look: float,
        idle: float,
        monotonic: Callable[[], float],
    ) -> None:
        """`look`: seconds after which new jobs are looked for while there is work, `idle`: while there is none; an
        announcement makes it at once."""
        self._name = name
        self._count = count
        self._storage = storage
        self._look_interval = look
        self._idle = idle
        self._monotonic = monotonic
        self._turns = Turns()
        self._looking = asyncio.Lock()
        self._look_due = 0.0
        self._announced = asyncio.Event()
        self._stopping = False

    @abstractmethod
    async def find(self) -> Iterable[Job]:
        """The jobs of which there is something to be done."""

    @abstractmethod
    async def work(self, job: Job) -> None:
        """Do one piece of this job's work; `rest` or `forget` it if there is no more to be had."""

    def announce(self) -> None:
        """There is something new to be found; returns at once."""
        self._look_due = 0.0
        self._announced.set()

    def stop(self) -> None:
        """Begin nothing more; `run` returns when what is under way is committed."""
        self._stopping = True
        self._announced.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._count):
                group.create_task(self._lane())

    def rest(self, job: Job) -> None:
        """Others have all there is of it."""
        self._turns.rest(job, self._monotonic() + _REST)

    def forget(self, job: Job) -> None:
        """There is nothing left to be done, for now at least."""
        self._turns.forget(job)

    async def _lane(self) -> None:
        while not self._stopping:
            if self._storage.seconds:
                await asyncio.sleep(min(self._storage.seconds, _TROUBLE))
                continue
            try:
                await self._look()
                job = self._turns.next(self._monotonic())
                if job is None:
                    await self._pause(_REST if self._turns else self._idle)
                    continue
                await self.work(job)
            except StorageFull:
                continue  # it was logged once
            except TrancheError as error:
                log.warning(f"{self._name}_lane_waits", error=error)
                await asyncio.sleep(_TROUBLE)
            except Exception:
                log.exception(f"{self._name}_lane_waits")
                await asyncio.sleep(_TROUBLE)

    async def _look(self) -> None:
        """Find out what there is to do, if that was not done just now."""
        async with self._looking:
            if self._monotonic() < self._look_due:
                return
            # Whatever is announced from here on sets both anew, and has the next lane look again.
            self._announced.clear()
            self._look_due = self._monotonic() + self._look_interval
            self._turns.update(await self.find())

    async def _pause(self, seconds: float) -> None:
        """Wait, but not if something new is announced meanwhile."""
        try:
            async with asyncio.timeout(seconds):
                await self._announced.wait()
        except TimeoutError:
            self._look_due = min(self._look_due, self._monotonic())
