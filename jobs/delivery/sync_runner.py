"""Fills syncs: takes the records that a destination lacks, a few thousand at a time, and books deliveries of them.

A step is one transaction. The next is due once few of the job's deliveries wait, so what is imported meanwhile waits
behind little.
"""

import uuid
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from app.imports import processing_queries
from app.kit.compression import pack
from app.kit.postgres.database import Connection, Database
from app.settings import Settings
from app.syncs import queries as rows
from app.syncs.rules import cuts
from app.vocabulary import outcomes_wire
from app.vocabulary.outcomes_wire import ItemOutcome
from app.vocabulary.states import ItemStatus, Result
from jobs.scheduling.fair_queue import Job
from jobs.scheduling.worker_pool import PollingWorkerPool

_WORKERS: Final = 2
_INTERVAL: Final = 0.25
_MOST_RECORDS: Final = 5_000
"""Taken in one transaction."""
_MOST_WAITING: Final = 64
"""Deliveries of one sync that are not done, with which no more are booked."""
_PAUSE: Final = 0.1
"""Seconds until they are counted again."""

_encode: Final = msgspec.json.Encoder().encode


class SyncRunner(PollingWorkerPool):
    """Runs until it is stopped."""

    def __init__(self, database: Database, settings: Settings, serve: Callable[[int, int], None]) -> None:
        """`serve`: is called with a tenant and a destination that has something due."""
        super().__init__("sync", _WORKERS, database, interval=_INTERVAL, idle=settings.sweep_interval)
        self._chunk_size = settings.chunk_size
        self._serve = serve

    async def find(self) -> Iterable[Job]:
        async with self._database.connection() as connection:
            return await rows.working(connection)

    async def work(self, job: Job) -> None:
        tenant_id, job_id = job
        async with self._database.connection() as connection, connection.transaction():
            await rows.lock_effects(connection, tenant_id, job_id)
            claimed = await rows.claim(connection, tenant_id, job_id)
            if claimed is None:
                self.rest(job)
                return
            waiting = await rows.open_deliveries(connection, tenant_id, job_id, _MOST_WAITING)
            if waiting >= _MOST_WAITING:
                self.rest(job, _PAUSE)
                return
            ended = await self._take(connection, tenant_id, job_id, claimed)
        if ended:
            self.forget(job)
        self._serve(tenant_id, claimed.sync.destination_id)

    async def _take(self, connection: Connection, tenant_id: int, job_id: uuid.UUID, claimed: rows.Claimed) -> bool:
        """Book the next records; true: there are no more."""
        cursor = claimed.sync
        everything = cursor.mode == "all"
        taken = await rows.records(
            connection,
            tenant_id,
            cursor.destination_id,
            cursor.type_ids[0],
            after=cursor.after,
            everything=everything,
            limit=_MOST_RECORDS,
        )
        if not taken:
            following = cursor.next_type()
            await rows.move(connection, tenant_id, job_id, None if following is None else _encode(following).decode())
            if following is None:
                await processing_queries.end_import(connection, tenant_id, job_id)
            return following is None
        ids, versions = [record_id for record_id, _ in taken], [version for _, version in taken]
        first = claimed.total
        outcomes = [
            ItemOutcome(first + place, record_id, ItemStatus.OK, Result.UNCHANGED, version)
            for place, (record_id, version) in enumerate(taken)
        ]
        lows, highs = cuts(len(taken), self._chunk_size)
        await rows.book(
            connection,
            tenant_id,
            job_id,
            cursor.destination_id,
            cursor.type_ids[0],
            request_id=claimed.request_id,
            first_index=first,
            record_ids=ids,
            versions=versions,
            outcomes=pack(outcomes_wire.encode_items(outcomes)),
            lows=lows,
            highs=highs,
            everything=everything,
            results=_encode({Result.UNCHANGED: first + len(taken)}).decode(),
            cursor=_encode(cursor.past(ids[-1])).decode(),
        )
        return False
