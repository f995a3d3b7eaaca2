"""Figures of PostgreSQL for `/metrics`, read once for all who ask at about the same time."""

from __future__ import annotations

from typing import Final

from cachetools import TTLCache

from app.http.singleflight import SingleFlight
from app.kit.postgres.database import Database
from app.monitoring.queries import Stat, read_stats

RECENT: Final = 2.0
"""Seconds for which figures are shown again: scrapes cost PostgreSQL little, however many come."""
_MOST: Final = 100


class StatsCache:
    """What was read of PostgreSQL a moment ago, once for all who ask."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: TTLCache[int | None, list[Stat]] = TTLCache(_MOST, RECENT)
        self._readings: SingleFlight[int | None, list[Stat]] = SingleFlight()

    async def read(self, tenant_id: int | None) -> list[Stat]:
        """Of one tenant, or of all together."""
        known = self._known.get(tenant_id)
        if known is not None:
            return known
        return await self._readings.share(tenant_id, lambda: self._read(tenant_id))

    async def close(self) -> None:
        await self._readings.close()

    async def _read(self, tenant_id: int | None) -> list[Stat]:
        async with self._database.connection() as connection:
            found = self._known[tenant_id] = await read_stats(connection, tenant_id)
        return found
