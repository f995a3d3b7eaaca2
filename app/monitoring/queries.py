"""The queries of metrics and health, typed."""

import msgspec

from app.auth.queries import all_tenants
from app.kit.postgres.database import Connection
from app.kit.postgres.query import Query


class Stat(msgspec.Struct, frozen=True):
    """How many of something, in the state that `label` names."""

    figure: str
    label: str
    value: float


class HealthRow(msgspec.Struct, frozen=True):
    tenant: str
    name: str
    kind: str
    state: str
    blocked_code: str | None
    blocked_detail: str | None
    blocked_for: float | None
    unknown: int
    """Items whose answer was lost."""
    unknown_for: int
    """Seconds since the first of them became unknown."""


read_health = Query[[int | None], list[HealthRow]]("read_health")
"""Every destination of one tenant, or of all of them."""
read_queue = Query[[], float]("read_queue")
"""Seconds for which the oldest due delivery has been due."""


class ServerStats(msgspec.Struct, frozen=True):
    """What keeps VACUUM from its work, as far as this role may see it."""

    longest_transaction_seconds: float
    oldest_xmin_age: float
    """In transactions."""


read_server_stats = Query[[], ServerStats]("read_server_stats")
_read_stats = Query[[list[int]], list[Stat]]("read_stats")


async def read_stats(connection: Connection, tenant_id: int | None) -> list[Stat]:
    """Of one tenant, or of all together."""
    return await _read_stats(connection, await all_tenants(connection) if tenant_id is None else [tenant_id])
