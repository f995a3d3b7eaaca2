"""Deletes stored answers, staged chunks, outcomes and webhook messages past their time."""

from __future__ import annotations

import structlog

from app.db import canceling, circuits, imports, keys, processing, webhooks
from app.db.pool import Database
from app.settings import Settings

log = structlog.get_logger()


async def prune(database: Database, settings: Settings) -> None:
    async with database.connection() as connection:
        await imports.forget_answers(connection, settings.idempotency_memory)
        await webhooks.close_strays(connection)
        orphans = await canceling.orphaned_spools(connection)
        tenants = await keys.all_tenants(connection)
    for tenant_id, job_id in orphans:
        async with database.connection() as connection:
            await canceling.remove_spool(connection, tenant_id, job_id)
    for tenant_id in tenants:
        async with database.connection() as connection:
            await circuits.forget_changes(connection, tenant_id)
            pruned = await processing.trim_jobs(connection, tenant_id, settings.job_retention)
            await webhooks.forget_messages(connection, tenant_id, settings.webhook_retention)
        if pruned:
            log.info("outcomes_pruned", tenant_id=tenant_id, jobs=pruned)
