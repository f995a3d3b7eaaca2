"""Which share of a worker a tenant has, as an operator set it."""

import time
from collections.abc import Callable
from typing import Final

from app.auth import queries
from app.kit.postgres.database import Database
from jobs.scheduling.fair_queue import EQUAL, TenantShare

_RECENT: Final = 10.0
"""Seconds after which a changed share is heeded."""


class TenantShares:
    """The shares of all tenants, as this worker learned them from the database."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._until = 0.0
        self._known: dict[int, TenantShare] = {}

    def of(self, tenant_id: int) -> TenantShare:
        return self._known.get(tenant_id, EQUAL)

    async def refresh(self) -> None:
        """Read them, unless that was done a moment ago. Raises `DatabaseUnavailable`, `Overloaded`."""
        if self._clock() < self._until:
            return
        self._until = self._clock() + _RECENT
        async with self._database.connection() as connection:
            found = await queries.tenant_shares(connection)
        self._known = {tenant_id: TenantShare(weight, cap) for tenant_id, weight, cap in found}
