"""Serves in PostgreSQL whatever no notification announced, and rescues lost work.

Redis may be away, a notification may be lost, a worker may have died with a lease: a few seconds later the scheduler of
any worker finds what is due.
"""

import asyncio
import time
from collections.abc import Callable

import asyncpg
import structlog

from app.deliveries import queries as delivery_queries
from app.destinations.circuits import queries as circuit_queries
from app.errors import TrancheError
from app.imports import processing_queries, upload_queries
from app.imports.cancel import queries as cancel_queries
from app.kit.postgres.database import Database
from app.settings import Settings
from jobs.delivery.dispatcher import Dispatcher

log = structlog.get_logger()


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
        self.swept_at = monotonic()
        """When it last looked for what is due."""

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
        """Rescue, and serve what is due."""
        await rescue_deliveries(self._database)
        async with self._database.connection() as connection:
            due = await delivery_queries.due_destinations(connection)
            overridden = await circuit_queries.overridden_destinations(connection)
        for tenant_id, destination_id in {*due, *overridden}:
            self._dispatcher.serve(tenant_id, destination_id)
        await abandon_uploads(self._database)
        self.swept_at = self._monotonic()


async def rescue_deliveries(database: Database) -> None:
    """Free what is claimed under leases that have expired."""
    async with database.connection() as connection:
        rescued = await delivery_queries.release_lost(connection)
    if rescued:
        log.warning("deliveries_rescued", count=rescued)


async def abandon_uploads(database: Database) -> None:
    async with database.connection() as connection:
        tenants = await processing_queries.tenants_with_silent_uploads(connection)
    for tenant_id in tenants:
        await _abandon_uploads_of(database, tenant_id)


async def _abandon_uploads_of(database: Database, tenant_id: int) -> None:
    """An error of one tenant must not keep the others from being served."""
    try:
        async with database.connection() as connection:
            async with connection.transaction():
                abandoned = await upload_queries.abandon_stale(connection, tenant_id)
            for job_id in abandoned:
                await cancel_queries.remove_staged(connection, tenant_id, job_id)
    except (TrancheError, asyncpg.PostgresError) as error:
        log.warning("uploads_not_abandoned", tenant_id=tenant_id, error=error)
        return
    if abandoned:
        log.warning("uploads_abandoned", tenant_id=tenant_id, count=len(abandoned))
