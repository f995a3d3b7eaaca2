"""When keys were last used: noted in memory with every request, written down once a minute."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

import asyncpg
import structlog

from app.auth import service
from app.errors import TrancheError
from app.kit.postgres.database import Database

log = structlog.get_logger()

INTERVAL: Final = 60.0
_MOST: Final = 10_000
"""Keys that are noted between two writings; of more, some are noted later."""


class LastUsed:
    """Writes until it is closed, and once more then."""

    def __init__(self, database: Database, *, interval: float = INTERVAL) -> None:
        self._database = database
        self._interval = interval
        self._uses: dict[tuple[int, str], datetime] = {}
        self._task: asyncio.Task[None] | None = None

    def note(self, tenant_id: int, key_id: str) -> None:
        if len(self._uses) < _MOST or (tenant_id, key_id) in self._uses:
            self._uses[tenant_id, key_id] = datetime.now(UTC)

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self._write()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self._write()

    async def _write(self) -> None:
        uses, self._uses = self._uses, {}
        if not uses:
            return
        try:
            async with self._database.connection() as connection:
                await service.note_uses(connection, uses)
        except (TrancheError, asyncpg.PostgresError) as error:
            # Two processes may meet in a deadlock; a use that is not noted now is noted with the next request.
            log.info("key_uses_left", count=len(uses), error=str(error))
