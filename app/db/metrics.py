"""The query of the metrics, typed."""

from __future__ import annotations

import msgspec

from app.db.delivering import all_tenants
from app.db.pool import Connection
from app.db.sql import QUERIES


class Figure(msgspec.Struct, frozen=True):
    """How many of something, in the state that `label` names."""

    figure: str
    label: str
    value: float


async def read_figures(connection: Connection, tenant_id: int | None) -> list[Figure]:
    """Of one tenant, or of all together."""
    tenants = await all_tenants(connection) if tenant_id is None else [tenant_id]
    return [Figure(*row) for row in await connection.fetch(QUERIES["read_figures"], tenants)]
