"""A streaming replica: a server that is read from, and how far it is behind the primary."""

import asyncio
import time
from typing import Final

import asyncpg
import msgspec

from app.errors import TrancheError
from app.kit.postgres.database import Database
from app.kit.postgres.fair_connections import ConnectionQueue
from app.kit.postgres.query import Query
from app.settings import Settings

_INTERVAL: Final = 1.0
"""Seconds between two measurements."""
_CLOSE: Final = 5.0
"""Seconds behind from which it is not worth waiting for."""
_STEP: Final = 0.01


class Replay(msgspec.Struct, frozen=True):
    """How far a replica has applied the log of its primary."""

    recovering: bool
    """False: it was promoted, and is a primary."""
    position: int | None
    replayed_at: float | None
    """Unix time of the last transaction that was applied, by the clock of the primary."""
    feedback: bool
    """The primary keeps row versions that a long query of the replica may need."""


read_flush_position = Query[[], int]("read_flush_position")
read_replay = Query[[], Replay]("read_replay")


class Replica(Database):
    """Its transactions only read. Measured from `open` to `close`."""

    def __init__(self, settings: Settings, primary: Database) -> None:
        size = settings.db_replica_pool_size
        own = msgspec.structs.replace(
            settings,
            database_url=settings.database_replica_url,
            db_pool_size=size,
            db_statement_timeout=settings.db_replica_statement_timeout,
        )
        queue = ConnectionQueue(size, share=settings.db_pool_share, timeout=settings.db_acquire_timeout)
        super().__init__(own, application_name="tranche api replica", connection_queue=queue, readonly=True)
        self._primary = primary
        self._as_of = 0.0
        self._feedback = False
        self._measuring: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def age(self) -> float:
        """Seconds that it is behind at the most: since the last transaction that it applied, or since it was last seen
        to have applied all that there was."""
        return max(0.0, time.time() - self._as_of)

    @property
    def as_of(self) -> float:
        """Unix time of what it holds."""
        return self._as_of

    def is_close(self, *, long: bool) -> bool:
        """Whether it may soon have what the primary has now. `long`: a query of many minutes shall not be canceled by
        what the replica applies meanwhile."""
        return not self.availability.away and self.age < _CLOSE and (self._feedback or not long)

    async def reaches(self, position: int, *, within: float) -> bool:
        """Whether it has applied the log up to there, or does so `within` seconds."""
        end = time.monotonic() + within
        async with self.connection() as connection:
            while True:
                replay = await read_replay(connection)
                if not replay.recovering:
                    return False  # promoted: its log is no longer that of the primary
                if (replay.position or 0) >= position:
                    return True
                if time.monotonic() > end:
                    return False
                await asyncio.sleep(_STEP)

    async def open(self) -> None:
        await super().open()
        self._measuring = asyncio.create_task(self._measure_always())

    async def close(self) -> None:
        self._closed = True
        if self._measuring is not None:
            self._measuring.cancel()
            await asyncio.gather(self._measuring, return_exceptions=True)
        await super().close()

    async def _measure_always(self) -> None:
        while not self._closed:
            try:
                await self.measure()
            except (TrancheError, asyncpg.PostgresError):
                await self.availability.check()
            await asyncio.sleep(_INTERVAL)

    async def measure(self) -> None:
        asked = time.time()
        position = await self._ask_primary()
        replay = await self.availability.run(self._ask)
        if not replay.recovering or (position is not None and (replay.position or 0) >= position):
            self._as_of = max(self._as_of, asked)
        self._as_of = max(self._as_of, min(replay.replayed_at or 0.0, time.time()))
        self._feedback = replay.feedback

    async def _ask(self) -> Replay:
        async with self.connection() as connection:
            return await read_replay(connection)

    async def _ask_primary(self) -> int | None:
        try:
            return await self._primary.availability.run(self.read_primary)
        except (TrancheError, asyncpg.PostgresError):
            return None

    async def read_primary(self) -> int:
        """The position up to which the primary has its log.
        Raises `DatabaseUnavailable`, `asyncpg.PostgresError`: it cannot say."""
        async with self._primary.connection() as connection:
            return await read_flush_position(connection)
