"""Finds in PostgreSQL whatever no wake-up announced: the certain half of delivery.

Redis may be away, a wake-up may be lost, a worker may have died with a lease in its hand: a few seconds later the
sweeper of any worker comes by.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import asyncpg
import structlog

from app.db import canceling, circuits, delivering, processing, receiving, webhooks
from app.db.pool import Database
from app.errors import TrancheError
from app.settings import Settings
from jobs.delivery.dispatcher import Dispatcher

log = structlog.get_logger()

_HOUSEKEEPING = 60.0


class Sweeper:
    """Runs until it is cancelled."""

    def __init__(
        self,
        database: Database,
        dispatcher: Dispatcher,
        settings: Settings,
        *,
        monotonic: Callable[[], float],
    ) -> None:
        self._database = database
        self._dispatcher = dispatcher
        self._settings = settings
        self._monotonic = monotonic
        self._housekeeping_due = monotonic()

    async def run(self) -> None:
        while True:
            try:
                await self.sweep()
            except TrancheError as error:
                log.warning("sweep_failed", error=error)
            except Exception:
                log.exception("sweep_failed")
            await asyncio.sleep(self._settings.sweep_interval)

    async def sweep(self) -> None:
        """One pass: free lost deliveries, serve what is due, end uploads that fell silent, now and then tidy up."""
        async with self._database.connection() as connection:
            released = await delivering.release_lost(connection)
            due = await delivering.due_destinations(connection)
            wished = await circuits.wished_destinations(connection)
            silent = await processing.tenants_with_silent_uploads(connection)
        if released:
            log.warning("lost_deliveries_released", count=released)
        for tenant_id, destination_id in {*due, *wished}:
            self._dispatcher.serve(tenant_id, destination_id)
        for tenant_id in silent:
            await self._give_up(tenant_id)
        if self._monotonic() >= self._housekeeping_due:
            self._housekeeping_due = self._monotonic() + _HOUSEKEEPING
            await self.tidy()

    async def _give_up(self, tenant_id: int) -> None:
        """One tenant's trouble must not keep the others from being looked after."""
        try:
            async with self._database.connection() as connection:
                async with connection.transaction():
                    given_up = await receiving.abandon_stale(connection, tenant_id)
                for job_id in given_up:
                    await canceling.remove_spool(connection, tenant_id, job_id)
        except (TrancheError, asyncpg.PostgresError) as error:
            log.warning("silent_uploads_left", tenant_id=tenant_id, error=error)
            return
        if given_up:
            log.warning("uploads_given_up", tenant_id=tenant_id, count=len(given_up))

    async def tidy(self) -> None:
        """Forget answers, spools, outcomes and webhook messages past their time."""
        async with self._database.connection() as connection:
            await delivering.forget_answers(connection, self._settings.idempotency_memory)
            await webhooks.close_strays(connection)
            orphans = await canceling.orphaned_spools(connection)
            tenants = await delivering.all_tenants(connection)
        for tenant_id, job_id in orphans:
            async with self._database.connection() as connection:
                await canceling.remove_spool(connection, tenant_id, job_id)
        for tenant_id in tenants:
            async with self._database.connection() as connection:
                await circuits.forget_changes(connection, tenant_id)
                trimmed = await processing.trim_jobs(connection, tenant_id, self._settings.job_retention)
                await webhooks.forget_messages(connection, tenant_id, self._settings.webhook_retention)
            if trimmed:
                log.info("outcomes_trimmed", tenant_id=tenant_id, jobs=trimmed)
