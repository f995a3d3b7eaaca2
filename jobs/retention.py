"""Removes rows past their time, in small batches: every minute one worker looks for them in the name of all.

Whoever sets a key in Redis does the pass; it expires, so a worker that dies in the middle is replaced. It saves work
and guards nothing: without Redis every worker looks, and their removals skip what others hold. A pass that ran out of
time frees the key, so that all workers share a backlog.
"""

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final

import asyncpg
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app import telemetry
from app.auth import queries as auth_queries
from app.errors import TrancheError
from app.imports.cancel import queries as cancel_queries
from app.kit.postgres.database import Connection, Database
from app.kit.postgres.fair_connections import SERVICE
from app.retention import queries
from app.retention.queries import Kind, Limits, Past
from app.settings import Settings
from app.webhooks import queries as webhook_queries

log = structlog.get_logger()

KEY: Final = "tranche:pruning"
INTERVAL: Final = 60.0
BUDGET: Final = 20.0
"""Seconds of a pass: far less than the interval, so that the key outlives it."""
_TENANTS: Final = 10_000
"""That one statement asks about."""


class Pruner:
    """Runs until it is canceled."""

    def __init__(
        self,
        database: Database,
        redis: Redis,
        settings: Settings,
        *,
        interval: float = INTERVAL,
        budget: float = BUDGET,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._redis = redis
        self._settings = settings
        self._interval = interval
        self._budget = budget
        self._monotonic = monotonic
        self._due = monotonic()

    async def run(self) -> None:
        while True:
            try:
                await self.run_once()
            except TrancheError as error:
                log.warning("pruning_failed", error=error)
            except Exception:
                log.exception("pruning_failed")
            await asyncio.sleep(self._settings.sweep_interval)

    async def run_once(self) -> bool:
        """A pass, if it is time for one and no other worker does it; whether there was one."""
        now = self._monotonic()
        if now < self._due:
            return False
        self._due = now + self._interval
        if not await self._claim():
            return False
        if not await prune(self._database, self._settings, budget=self._budget, monotonic=self._monotonic):
            self._due = now
            await self._release()
        return True

    async def _claim(self) -> bool:
        try:
            return bool(await self._redis.set(KEY, b"1", px=round(self._interval * 1000), nx=True))
        except (RedisError, OSError):
            return True

    async def _release(self) -> None:
        try:
            await self._redis.delete(KEY)
        except (RedisError, OSError) as error:
            log.warning("redis_lost", error=error)


async def prune(
    database: Database,
    settings: Settings,
    *,
    budget: float = BUDGET,
    monotonic: Callable[[], float] = time.monotonic,
    shuffle: Callable[[list[Any]], None] = random.shuffle,
) -> bool:
    """Remove what is past its time, of every tenant in turn, for `budget` seconds; false: something is left."""
    end = monotonic() + budget
    limits = Limits.from_settings(settings)
    async with database.connection() as connection:
        await webhook_queries.close_strays(connection)
        tenants = [
            SERVICE.tenant_id,
            *await auth_queries.all_tenants(connection),
        ]  # the first has answers to the operator
    found: list[Past] = []
    for start in range(0, len(tenants), _TENANTS):
        async with database.connection() as connection:
            found += await queries.find_past(connection, tenants[start : start + _TENANTS], limits)
    shuffle(found)  # whoever comes last where time is short is another one the next time
    todo = deque(found)
    removed: Counter[Kind] = Counter()
    while todo and monotonic() < end:
        past = todo.popleft()
        rows, more = await _remove(database, past, limits)
        removed[past.kind] += rows
        if more:
            todo.append(past)
    for kind, rows in removed.items():
        if rows:
            telemetry.emit(telemetry.RowsPruned(kind=kind, rows=rows))
    return not todo


async def _remove(database: Database, past: Past, limits: Limits) -> tuple[int, bool]:
    """An error of one tenant must not keep the others' rows from being removed."""
    try:
        async with database.connection() as connection:
            if past.kind is Kind.STAGED:
                return await _remove_staged(connection, past.tenant_id)
            return await queries.REMOVALS[past.kind](connection, past.tenant_id, limits)
    except (TrancheError, asyncpg.PostgresError) as error:
        log.warning("rows_not_pruned", kind=past.kind, tenant_id=past.tenant_id, error=error)
        return 0, False


async def _remove_staged(connection: Connection, tenant_id: int) -> tuple[int, bool]:
    """Staged chunks of jobs that need them no more; counts jobs."""
    job_ids = await cancel_queries.orphaned_stages(connection, tenant_id)
    gone = [await cancel_queries.remove_staged(connection, tenant_id, job_id) for job_id in job_ids]
    return sum(gone), not all(gone)
