"""Connections to PostgreSQL, each with its timeouts set."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import asyncpg
import structlog

from app.errors import DatabaseUnavailable, Overloaded, StorageFull
from app.kit.postgres.availability import READING, Availability
from app.kit.postgres.fair_connections import ConnectionQueue, ImportSlot
from app.settings import Settings

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection: TypeAlias = asyncpg.Connection[Any] | PoolConnectionProxy[Any]
else:
    Connection = asyncpg.Connection

log = structlog.get_logger()

UNREACHABLE = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a connection that the server ended between two statements
    asyncpg.TooManyConnectionsError,
)
"""What asyncpg raises when the server is away, going or coming."""


async def _keep(_: Connection) -> None:
    """Release without a round trip: everything we set is local to its transaction."""


async def _bound_transactions(connection: Connection) -> None:
    """End a transaction whose client stopped in its middle (PostgreSQL 17 and newer).

    A stopped process holds its locks: before its first rows are read PostgreSQL calls it active, not idle, and no
    other timeout ends it.
    """
    if connection.get_server_version().major >= 17:
        await connection.execute("SELECT set_config('transaction_timeout', $1, false)", f"{TRANSACTION_SECONDS}s")


_UNIT: Final[ContextVar[tuple[asyncio.Task[Any], Connection] | None]] = ContextVar("unit", default=None)

TRANSACTION_SECONDS: Final = 60
"""Longer than any import takes, with every lock it may wait for."""

FULL_WAIT: Final = 2.0
FULL_WAIT_CAP: Final = 30.0
"""Seconds between two tries of one process to write to a full disk; doubled each time up to the cap."""


class Storage:
    """Whether PostgreSQL had room when this process last wrote something."""

    def __init__(self) -> None:
        self._wait = 0.0
        self._until = 0.0

    @property
    def seconds(self) -> float:
        """For which nothing should be written; 0: there is room, or it is time to try again."""
        return max(0.0, self._until - time.monotonic())

    @property
    def is_full(self) -> bool:
        """It was full at the last try, and nothing was written since."""
        return self._wait > 0

    def note_full(self) -> None:
        if self.seconds:
            return  # several writers met the same trouble
        if not self._wait:
            log.error("storage_full", remedy="free or add disk space for PostgreSQL; work then continues by itself")
        self._wait = min(max(FULL_WAIT, self._wait * 2), FULL_WAIT_CAP)
        self._until = time.monotonic() + self._wait

    def note_room(self) -> None:
        if self._wait:
            log.info("storage_has_room")
        self._wait = self._until = 0.0


def _milliseconds(seconds: float) -> str:
    """For PostgreSQL, to which 0 means without end."""
    return str(max(1, round(seconds * 1000)))


class Database:
    """A pool that says what is wrong in the domain's words and never waits without bound."""

    def __init__(
        self,
        settings: Settings,
        *,
        application_name: str,
        connection_queue: ConnectionQueue | None = None,
        readonly: bool = False,
    ) -> None:
        """`connection_queue`: who may have a connection next; without it, who has waited longest."""
        self._settings = settings
        self._readonly = readonly
        self.availability = Availability(settings.database_url, settings.db_read_timeout)
        self._connection_queue = connection_queue
        self._name = application_name
        self._pool: asyncpg.Pool[Any] | None = None
        self._opening = asyncio.Lock()
        self.storage = Storage()
        self.acquired = 0
        """Connections that somebody asked for; `waited`: for how many seconds."""
        self.waited = 0.0
        self.turnabouts = 0
        """How often PostgreSQL ceased or began to answer; a look at it from before the last time is out of date."""
        self._troubled = False

    async def open(self) -> None:
        """Make the pool; with the server away this is left to the first use."""
        try:
            await self._get()
        except DatabaseUnavailable:
            return

    async def close(self) -> None:
        await self.availability.close()
        if self._pool is not None:
            try:
                await asyncio.wait_for(self._pool.close(), 5)
            except TimeoutError:
                self._pool.terminate()

    async def _get(self) -> "asyncpg.Pool[Any]":
        if self._pool is not None:
            return self._pool
        async with self._opening:
            if self._pool is None:
                s = self._settings
                try:
                    self._pool = await asyncpg.create_pool(
                        s.database_url,
                        min_size=min(2, s.db_pool_size),
                        max_size=s.db_pool_size,
                        timeout=s.db_connect_timeout,
                        command_timeout=s.db_statement_timeout + 1,
                        statement_cache_size=s.db_statement_cache,
                        max_cached_statement_lifetime=0,
                        reset=_keep,
                        init=_bound_transactions,
                        server_settings={
                            "application_name": self._name,
                            "statement_timeout": _milliseconds(s.db_statement_timeout),
                            "lock_timeout": _milliseconds(s.db_lock_timeout),
                            "idle_in_transaction_session_timeout": _milliseconds(s.db_idle_in_transaction_timeout),
                            "jit": "off",
                            **({"default_transaction_read_only": "on"} if self._readonly else {}),
                        },
                    )
                except (*UNREACHABLE, asyncpg.PostgresError) as error:  # also: no such database, wrong password
                    raise DatabaseUnavailable(retry_after=2.0) from error
            return self._pool

    @property
    def in_use(self) -> int:
        """Connections that somebody holds."""
        return 0 if self._pool is None else self._pool.get_size() - self._pool.get_idle_size()

    def import_slot(
        self, size: int, *, until: float, gone: Callable[[], Awaitable[Any]]
    ) -> AbstractAsyncContextManager[ImportSlot]:
        """What is done within it waits for no further turn: an import begins only when there will be a connection for
        it. For the arguments and what it raises see `ConnectionQueue.take_import`."""
        if self._connection_queue is None:
            return nullcontext(ImportSlot())
        return self._connection_queue.take_import(size, until=until, gone=gone)

    def _slot(self) -> AbstractAsyncContextManager[None]:
        return nullcontext() if self._connection_queue is None else self._connection_queue.take()

    @property
    def diverted(self) -> bool:
        """What the present task reads comes from another server, which may be behind."""
        return _DIVERTED.get() not in (None, self)

    @contextmanager
    def divert(self) -> Iterator[None]:
        """Whatever the present task reads within comes from this server."""
        before = _DIVERTED.set(self)
        try:
            yield
        finally:
            _DIVERTED.reset(before)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection from the pool.

        Raises:
            DatabaseUnavailable: PostgreSQL cannot be reached, or went away meanwhile.
            Overloaded: no connection became free in time.
            StorageFull: PostgreSQL has no room for what was to be written.
        """
        unit = _UNIT.get()
        if unit is not None and unit[0] is asyncio.current_task():
            yield unit[1]
            return
        server = _DIVERTED.get() or self
        asked, had = time.monotonic(), False
        server.acquired += 1
        try:
            async with server._slot(), server._connection() as connection:
                server.waited += time.monotonic() - asked
                had = True
                yield connection
        except (DatabaseUnavailable, StorageFull):
            server._note_trouble(True)
            raise
        finally:
            if not had:
                server.waited += time.monotonic() - asked
        server._note_trouble(False)
        server.availability.note_answer()

    @asynccontextmanager
    async def unit(self) -> AsyncIterator[Connection]:
        """One transaction for all that the present task does within: whatever asks for a connection meanwhile gets this
        one, and its transactions are savepoints. Raises as `connection` does."""
        async with self.connection() as connection, connection.transaction():
            task = asyncio.current_task()
            assert task is not None
            before = _UNIT.set((task, connection))
            try:
                yield connection
            finally:
                _UNIT.reset(before)

    def _note_trouble(self, troubled: bool) -> None:
        if troubled is not self._troubled:
            self._troubled = troubled
            self.turnabouts += 1

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        pool = await self._get()
        try:
            connection = await pool.acquire(timeout=self._settings.db_acquire_timeout)
        except TimeoutError as error:
            if pool.get_size() - pool.get_idle_size() >= pool.get_max_size():
                raise Overloaded(retry_after=1.0) from error
            raise DatabaseUnavailable(retry_after=2.0) from error
        except (*UNREACHABLE, asyncpg.PostgresError) as error:
            raise DatabaseUnavailable(retry_after=2.0) from error
        reading = READING.get()
        if reading is not None:
            reading.connection = connection
        try:
            yield connection
        except UNREACHABLE as error:
            with suppress(asyncpg.InterfaceError):  # asyncpg may have noticed, and taken it back, itself
                connection.terminate()  # whatever state it is in, nobody shall get it again
            raise DatabaseUnavailable(retry_after=2.0) from error
        except asyncpg.DiskFullError as error:
            self.storage.note_full()
            raise StorageFull(retry_after=FULL_WAIT_CAP) from error
        finally:
            if reading is not None:
                reading.connection = None
            await pool.release(connection)


_DIVERTED: Final[ContextVar[Database | None]] = ContextVar("diverted", default=None)
"""The server that the present task reads from, whichever it asks."""
