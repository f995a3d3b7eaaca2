"""Whether a PostgreSQL server answers, found out once for all who read from it.

A server that was stopped refuses, which is noticed at once. One that hangs accepts connections and never answers: each
read would wait for its timeouts, so it is probed as soon as nobody has had an answer for a while.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context, ContextVar
from typing import Any, Final, TypeVar, cast

import asyncpg
import structlog

from app.errors import DatabaseUnavailable

T = TypeVar("T")

log = structlog.get_logger()

_AWAY: Final = (
    OSError,
    asyncpg.CannotConnectNowError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""What a server that does not answer makes of a probe."""
_PAUSE: Final = 0.5
"""Seconds between two probes of a server that is away."""


class Reading:
    """A read that is under way."""

    __slots__ = ("connection", "ended", "since", "task")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.task = task
        self.ended = False
        """It was, because the server is away."""
        self.since = time.monotonic()
        self.connection: Any = None
        """The one that it has at present."""


READING: Final[ContextVar[Reading | None]] = ContextVar("reading", default=None)
"""That of the present task."""


class Availability:
    """Of one server, as one process sees it."""

    def __init__(self, url: str, timeout: float) -> None:
        """`timeout`: seconds without an answer after which the server is probed, and that a probe may take."""
        self._url = url
        self._timeout = timeout
        self._readings: dict[Reading, None] = {}
        """Those that began first are first."""
        self._answered_at = 0.0
        self._away = False
        self._closed = False
        self._watching: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[bool] | None = None
        self._recovering: asyncio.Task[None] | None = None

    @property
    def away(self) -> bool:
        """A probe failed, and none has succeeded since."""
        return self._away

    def note_answer(self) -> None:
        self._answered_at = time.monotonic()

    async def run(self, read: Callable[[], Awaitable[T]]) -> T:
        """What `read` returns. It ends as soon as the server is known to be away, and does not begin while it is.

        Raises:
            DatabaseUnavailable: it is away.
        """
        if self._away:
            raise DatabaseUnavailable(retry_after=2.0)
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        reading = Reading(task)
        self._readings[reading] = None
        if self._watching is None or self._watching.done():
            # For all who read: in nobody's name.
            self._watching = asyncio.create_task(self._watch(), context=Context())
        before = READING.set(reading)
        try:
            return await read()
        except BaseException as error:
            if reading.ended and not task.uncancel():
                raise DatabaseUnavailable(retry_after=2.0) from error
            raise
        finally:
            READING.reset(before)
            del self._readings[reading]

    async def check(self) -> bool:
        """Whether it answers: one probe for all who ask, and none while it is known to be away."""
        if self._away:
            return False
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._probe(), context=Context())
        return await asyncio.shield(self._probing)

    async def close(self) -> None:
        self._closed = True  # asyncpg may lose a cancellation
        tasks = [task for task in (self._watching, self._probing, self._recovering) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self) -> None:
        while self._readings and not self._away and not self._closed:
            await asyncio.sleep(self._timeout / 4)
            oldest = next(iter(self._readings), None)
            if oldest is not None and time.monotonic() - max(oldest.since, self._answered_at) > self._timeout:
                await self.check()

    async def _probe(self) -> bool:
        if await self._connect():
            self.note_answer()
            return True
        self._away = True
        log.warning("database_away", remedy="reads are answered from fallbacks until it answers again")
        for reading in list(self._readings):
            if reading.connection is not None:
                # Else it would wait until the server has confirmed that it canceled the statement.
                with suppress(asyncpg.InterfaceError):
                    reading.connection.terminate()
            if not reading.ended:
                reading.ended = reading.task.cancel()
        self._recovering = asyncio.create_task(self._recover())
        return False

    async def _recover(self) -> None:
        while self._away and not self._closed:
            await asyncio.sleep(_PAUSE)
            self._away = not await self._connect()
        log.info("database_back")

    async def _connect(self) -> bool:
        """By a connection of its own: those of the pool may all be busy, or wait for a server that hangs."""
        try:
            async with asyncio.timeout(self._timeout):
                connection = await asyncpg.connect(self._url, timeout=self._timeout)
                try:
                    await connection.execute("SELECT 1")  # a PgBouncer lets clients in without its server
                finally:
                    connection.terminate()
        except _AWAY:
            return False
        except asyncpg.PostgresError:
            return True  # it refuses, as when it has too many connections, but it answers
        return True
