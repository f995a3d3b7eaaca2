"""The queries of flow control, typed."""

from __future__ import annotations

from app.db.pool import Connection
from app.db.sql import QUERIES


async def owes(connection: Connection, tenant_id: int, destination_id: int) -> bool:
    """Something is to be sent to the destination, now or later, or is under way."""
    return bool(await connection.fetchval(QUERIES["owes"], tenant_id, destination_id))


async def lacks_place(connection: Connection, tenant_id: int, destination_id: int, concurrency: int) -> bool:
    """Something is due, but other workers have as many deliveries under way as the destination may have."""
    return bool(await connection.fetchval(QUERIES["lacks_place"], tenant_id, destination_id, concurrency))
