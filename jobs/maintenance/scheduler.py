"""Serves in PostgreSQL whatever no notification announced: the certain half of delivery.

Redis may be away, a notification may be lost, a worker may have died with a lease: a few seconds later the scheduler of
any worker finds what is due.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog

from app.deliveries import queries as deliverie_queries
from app.destinations.circuits import queries as circuit_queries
from app.errors import TrancheError
from app.kit.postgres.database import Database
from app.settings import Settings
from jobs.delivery.dispatcher import Dispatcher
from jobs.maintenance import pruner, rescuer

log = structlog.get_logger()

_PRUNE_INTERVAL: Final = 60.0


class Scheduler:
    """Runs until it is canceled."""

    def __init__(
        self,
        database: Database,
        dispatcher: Dispatcher,
        settings: Settings,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._dispatcher = dispatcher
        self._settings = settings
        self._monotonic = monotonic
        self._prune_due = monotonic()

    async def run(self) -> None:
        while True:
            try:
                await self.run_once()
            except TrancheError as error:
                log.warning("maintenance_failed", error=error)
            except Exception:
                log.exception("maintenance_failed")
            await asyncio.sleep(self._settings.sweep_interval)

    async def run_once(self) -> None:
        """Rescue, serve what is due, and prune now and then."""
        await rescuer.rescue_deliveries(self._database)
        async with self._database.connection() as connection:
            due = await deliverie_queries.due_destinations(connection)
            overridden = await circuit_queries.overridden_destinations(connection)
        for tenant_id, destination_id in {*due, *overridden}:
            self._dispatcher.serve(tenant_id, destination_id)
        await rescuer.abandon_uploads(self._database)
        if self._monotonic() >= self._prune_due:
            self._prune_due = self._monotonic() + _PRUNE_INTERVAL
            await pruner.prune(self._database, self._settings)
