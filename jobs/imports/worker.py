"""Processes staged imports: a pool of workers, each with one piece of one import at a time."""

from collections.abc import Iterable
from typing import Final

from app.imports import processing_queries
from app.kit.postgres.database import Database
from app.settings import Settings
from jobs.delivery.dispatcher import Dispatcher
from jobs.imports.processing import Processor
from jobs.imports.steps import Advance
from jobs.scheduling.fair_queue import Job
from jobs.scheduling.worker_pool import PollingWorkerPool

_INTERVAL: Final = 0.25


class ImportWorkers(PollingWorkerPool):
    """Processes whatever imports there are, until it is stopped."""

    def __init__(self, database: Database, dispatcher: Dispatcher, settings: Settings) -> None:
        idle = settings.sweep_interval
        super().__init__("import", settings.import_concurrency, database, interval=_INTERVAL, idle=idle)
        self._dispatcher = dispatcher
        self._processor = Processor(database, settings, notify=self._serve)

    async def find(self) -> Iterable[Job]:
        async with self._database.connection() as connection:
            return await processing_queries.working_imports(connection)

    async def work(self, job: Job) -> None:
        advance = await self._processor.advance(*job)
        if advance is Advance.DONE:
            self.forget(job)
        elif advance is Advance.WAITING:
            self.rest(job)

    def _serve(self, tenant_id: int, destination_ids: list[int]) -> None:
        for destination_id in destination_ids:
            self._dispatcher.serve(tenant_id, destination_id)
