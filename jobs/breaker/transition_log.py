"""Writes transitions of circuits to PostgreSQL, where people and webhooks find them, after the call that caused them.

The caller has a CRM's answer to record and does not wait. A circuit reports a transition once, so it is kept until it
is written, also while PostgreSQL is away.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import asyncpg
import msgspec
import structlog

from app.destinations.circuits import queries
from app.errors import TrancheError
from app.kit.postgres.database import Database
from jobs.breaker.rules import Transition

log = structlog.get_logger()

_MOST: Final = 10_000
"""Transitions kept while PostgreSQL is away; then the oldest are dropped."""
_PAUSE: Final = 0.5
_MOST_FAILURES: Final = 20
"""Errors of PostgreSQL, though it is there, after which a transition is dropped: it would never be written."""


class CircuitChange(msgspec.Struct, frozen=True):
    """A call of a destination changed a circuit, `crm` or `connection`."""

    tenant_id: int
    destination_id: int
    circuit: str
    transition: Transition
    reason: str
    """Why, in our own words, for webhooks."""
    detail: str
    """It may repeat what the CRM said, and is for PostgreSQL."""


class TransitionLog:
    """Writes transitions in the order in which they were added."""

    def __init__(self, database: Database, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._monotonic = monotonic
        self._waiting: deque[tuple[CircuitChange, float]] = deque(maxlen=_MOST)
        self._task: asyncio.Task[None] | None = None

    def add(self, change: CircuitChange) -> None:
        """Returns at once."""
        self._waiting.append((change, self._monotonic()))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write_all())

    async def close(self, seconds: float = 2.0) -> None:
        """Wait at most `seconds` for the rest to be written."""
        if self._task is not None:
            _, late = await asyncio.wait([self._task], timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._waiting:
            log.error("circuit_changes_lost", count=len(self._waiting))

    async def _write_all(self) -> None:
        failures = 0
        while self._waiting:
            entry = self._waiting[0]
            try:
                await self._write(*entry)
                failures = 0
            except (TrancheError, asyncpg.PostgresError) as error:
                failures += isinstance(error, asyncpg.PostgresError)
                if failures < _MOST_FAILURES:
                    log.warning("circuit_change_waits", error=error)
                    await asyncio.sleep(_PAUSE)
                    continue
                log.exception("circuit_change_dropped", circuit=entry[0].transition.name)
                failures = 0
            if self._waiting and self._waiting[0] is entry:
                self._waiting.popleft()

    async def _write(self, change: CircuitChange, at: float) -> None:
        transition = change.transition
        async with self._database.connection() as connection:
            await queries.record_change(
                connection,
                change.tenant_id,
                change.destination_id,
                circuit=change.circuit,
                before=transition.before,
                after=transition.after,
                opens=transition.opens,
                seconds=transition.retry_after,
                reason=change.reason,
                detail=change.detail,
                ago=max(0.0, self._monotonic() - at),
            )
