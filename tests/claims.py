"""One delivery claimed, for tests that play a worker."""

from __future__ import annotations

import uuid

from app.deliveries import queries
from app.deliveries.queries import Claim
from app.kit.postgres.database import Connection


async def claim_delivery(
    connection: Connection, tenant_id: int, destination_id: int, *, token: uuid.UUID, lease: float, concurrency: int
) -> Claim | None:
    """The oldest that is due."""
    claims = await queries.claim_deliveries(
        connection, tenant_id, destination_id, token=token, lease=lease, concurrency=concurrency, limit=1
    )
    return claims[0] if claims else None
