"""Serves in PostgreSQL whatever no notification announced, rescues lost work and prunes old rows.

Redis may be away, a notification may be lost, a worker may have died with a lease: a few seconds later the scheduler of
any worker finds what is due.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import asyncpg
import structlog

from app.auth import queries as auth_queries
from app.deliveries import queries as deliverie_queries
from app.destinations.circuits import queries as circuit_queries
from app.errors import TrancheError
from app.imports import processing_queries, upload_queries
from app.imports import queries as import_queries
from app.imports.cancel import queries as cancel_queries
from app.kit.postgres.database import Database
from app.settings import Settings
from app.webhooks import queries as webhook_queries
from jobs.delivery.dispatcher import Dispatcher

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
        """Rescue, serve what is due, and prune now and then."""
        await rescue_deliveries(self._database)
        async with self._database.connection() as connection:
            due = await deliverie_queries.due_destinations(connection)
            overridden = await circuit_queries.overridden_destinations(connection)
        for tenant_id, destination_id in {*due, *overridden}:
            self._dispatcher.serve(tenant_id, destination_id)
        await abandon_uploads(self._database)
        self.swept_at = self._monotonic()
        if self._monotonic() >= self._prune_due:
            self._prune_due = self._monotonic() + _PRUNE_INTERVAL
            await prune(self._database, self._settings)


async def rescue_deliveries(database: Database) -> None:
    """Free what is claimed under leases that have expired."""
    async with database.connection() as connection:
        rescued = await deliverie_queries.release_lost(connection)
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


async def prune(database: Database, settings: Settings) -> None:
    """Delete stored answers, staged chunks, outcomes and webhook messages past their time."""
    async with database.connection() as connection:
        await import_queries.forget_answers(connection, settings.idempotency_memory)
        await webhook_queries.close_strays(connection)
        tenants = await auth_queries.all_tenants(connection)
    for tenant_id in tenants:
        async with database.connection() as connection:
            for job_id in await cancel_queries.orphaned_stages(connection, tenant_id):
                await cancel_queries.remove_staged(connection, tenant_id, job_id)
            await circuit_queries.forget_changes(connection, tenant_id)
            pruned = await processing_queries.trim_jobs(connection, tenant_id, settings.job_retention)
            await webhook_queries.forget_messages(connection, tenant_id, settings.webhook_retention)
        if pruned:
            log.info("outcomes_pruned", tenant_id=tenant_id, jobs=pruned)
