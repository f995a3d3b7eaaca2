"""One delivery claimed, for tests that play a worker."""

from __future__ import annotations

import uuid

from app.db import delivering
from app.db.delivering import Claim
from app.db.pool import Connection


async def claim_delivery(
    connection: Connection,
    tenant_id: int,
    destination_id: int,
    *,
    token: uuid.UUID,
    lease: float,
    concurrency: int,
) -> Claim | None:
    """The oldest that is due."""
    claims = await delivering.claim_deliveries(
        connection, tenant_id, destination_id, token=token, lease=lease, concurrency=concurrency, limit=1
    )
    return claims[0] if claims else None
