"""Deletes stored answers, staged chunks, outcomes and webhook messages past their time."""

import structlog

from app.auth import queries as auth_queries
from app.destinations.circuits import queries as circuit_queries
from app.imports import processing_queries
from app.imports import queries as import_queries
from app.imports.cancel import queries as cancel_queries
from app.kit.postgres.database import Database
from app.settings import Settings
from app.webhooks import queries as webhook_queries

log = structlog.get_logger()


async def prune(database: Database, settings: Settings) -> None:
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
