"""Rescues deliveries whose worker died, and abandons uploads whose heartbeat is lost."""

import asyncpg
import structlog

from app.deliveries import queries as deliverie_queries
from app.errors import TrancheError
from app.imports import processing_queries, upload_queries
from app.imports.cancel import queries as cancel_queries
from app.kit.postgres.database import Database

log = structlog.get_logger()


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
