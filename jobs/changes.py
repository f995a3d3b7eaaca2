"""Changes of circuits on their way into PostgreSQL, where people and webhooks find them.

Whoever met one does not wait for it to be written, for there is a CRM's answer in his hands. A change is told once by
the circuit, so it is kept until it is written, through an absence of PostgreSQL too.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

import asyncpg
import msgspec
import structlog

from app.db import circuits
from app.db.pool import Database
from app.errors import TrancheError
from jobs.breaker import Transition

log = structlog.get_logger()

_MOST: Final = 10_000
"""Changes kept while PostgreSQL is away; then the oldest go."""
_PAUSE: Final = 0.5
_REFUSALS: Final = 20
"""What PostgreSQL refuses so often, though it is there, it will refuse for ever: the next one has its turn."""


class _Change(msgspec.Struct, frozen=True):
    tenant_id: int
    destination_id: int
    circuit: str
    transition: Transition
    reason: str
    detail: str
    at: float


class Changes:
    """Writes down, in order, what it is told."""

    def __init__(self, database: Database, *, monotonic: Callable[[], float]) -> None:
        self._database = database
        self._monotonic = monotonic
        self._waiting: deque[_Change] = deque(maxlen=_MOST)
        self._task: asyncio.Task[None] | None = None

    def tell(
        self,
        tenant_id: int,
        destination_id: int,
        circuit: str,
        transition: Transition,
        reason: str,
        detail: str,
    ) -> None:
        """A call of this destination changed its circuit `crm` or `connection`; returns at once.

        `reason` says why in our own words, for webhooks; `detail` may repeat what the CRM said, for PostgreSQL.
        """
        self._waiting.append(
            _Change(tenant_id, destination_id, circuit, transition, reason, detail, self._monotonic())
        )
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write_all())

    async def close(self, seconds: float = 2.0) -> None:
        """Let what is known be written, for so long."""
        if self._task is not None:
            _, late = await asyncio.wait([self._task], timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._waiting:
            log.error("circuit_changes_lost", count=len(self._waiting))

    async def _write_all(self) -> None:
        refused = 0
        while self._waiting:
            change = self._waiting[0]
            try:
                await self._write(change)
                refused = 0
            except (TrancheError, asyncpg.PostgresError) as error:
                refused += isinstance(error, asyncpg.PostgresError)
                if refused < _REFUSALS:
                    log.warning("circuit_change_waits", error=error)
                    await asyncio.sleep(_PAUSE)
                    continue
                log.exception("circuit_change_dropped", circuit=change.transition.name)
                refused = 0
            if self._waiting and self._waiting[0] is change:
                self._waiting.popleft()

    async def _write(self, change: _Change) -> None:
        told = change.transition
        async with self._database.connection() as connection:
            await circuits.record_change(
                connection,
                change.tenant_id,
                change.destination_id,
                circuit=change.circuit,
                before=told.before,
                after=told.after,
                opens=told.opens,
                seconds=told.retry_after,
                reason=change.reason,
                detail=change.detail,
                ago=max(0.0, self._monotonic() - change.at),
            )
