"""Works on spooled imports: several lanes in each worker, each taking one piece of one job at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from app.chunks import Advance, Processor
from app.db import processing
from app.db.pool import Database
from app.errors import TrancheError
from app.settings import Settings
from jobs.dispatch import Dispatcher
from jobs.turns import Job, Turns

log = structlog.get_logger()

_LOOK: Final = 0.25
"""Seconds after which new jobs are looked for while there is work; an announcement makes it at once."""
_REST: Final = 0.05
"""Seconds for a job of which others have all there is."""
_TROUBLE: Final = 2.0


class Importer:
    """Runs until it is stopped."""

    def __init__(
        self,
        database: Database,
        dispatcher: Dispatcher,
        settings: Settings,
        *,
        monotonic: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._database = database
        self._dispatcher = dispatcher
        self._settings = settings
        self._monotonic = monotonic
        self._processor = Processor(database, settings, random=random, owed=self._serve)
        self._turns = Turns()
        self._looking = asyncio.Lock()
        self._look_due = 0.0
        self._announced = asyncio.Event()
        self._stopping = False

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
            for _ in range(self._settings.import_concurrency):
                group.create_task(self._lane())

    async def _lane(self) -> None:
        while not self._stopping:
            try:
                await self._look()
                job = self._turns.next(self._monotonic())
                if job is None:
                    await self._pause(_REST if self._turns else self._settings.sweep_interval)
                    continue
                await self._work(job)
            except TrancheError as error:
                log.warning("import_lane_waits", error=str(error))
                await asyncio.sleep(_TROUBLE)
            except Exception:
                log.exception("import_lane_waits")
                await asyncio.sleep(_TROUBLE)

    async def _work(self, job: Job) -> None:
        advance = await self._processor.advance(*job)
        if advance is Advance.DONE:
            self._turns.forget(job)
        elif advance is Advance.WAITING:
            self._turns.rest(job, self._monotonic() + _REST)

    async def _look(self) -> None:
        """Find out what there is to do, if that was not done just now."""
        async with self._looking:
            if self._monotonic() < self._look_due:
                return
            # Whatever is announced from here on sets both anew, and has the next lane look again.
            self._announced.clear()
            self._look_due = self._monotonic() + _LOOK
            async with self._database.connection() as connection:
                self._turns.update(await processing.working_imports(connection))

    async def _pause(self, seconds: float) -> None:
        """Wait, but not if something new is announced meanwhile."""
        try:
            async with asyncio.timeout(seconds):
                await self._announced.wait()
        except TimeoutError:
            self._look_due = min(self._look_due, self._monotonic())

    def _serve(self, tenant_id: int, destination_ids: list[int]) -> None:
        for destination_id in destination_ids:
            self._dispatcher.serve(tenant_id, destination_id)
