"""The query of the metrics, typed."""

from __future__ import annotations

import msgspec

from app.db.keys import all_tenants
from app.db.pool import Connection
from app.db.query import Query


class Figure(msgspec.Struct, frozen=True):
    """How many of something, in the state that `label` names."""

    figure: str
    label: str
    value: float


_read_figures = Query[[list[int]], list[Figure]]("read_figures")


async def read_figures(connection: Connection, tenant_id: int | None) -> list[Figure]:
    """Of one tenant, or of all together."""
    return await _read_figures(
        connection, await all_tenants(connection) if tenant_id is None else [tenant_id]
    )
