"""Fills syncs: takes the records that a destination lacks, a few thousand at a time, and books deliveries of them.

A step is one transaction. The next is due once few of the job's deliveries wait, so what is imported meanwhile waits
behind little.
"""

import time
import uuid
from collections.abc import Callable, Iterable
from typing import Final

import msgspec
import structlog
from msgspec import UNSET
from uuid_utils.compat import uuid7

from app.deliveries.drift import Listing
from app.destinations.kinds import KINDS
from app.errors import Conflict, Invalid, NotFound
from app.imports import processing_queries
from app.kit.compression import pack
from app.kit.postgres.database import Connection, Database
from app.resource_types.catalog import Catalog
from app.settings import Settings
from app.syncs import creation
from app.syncs import queries as rows
from app.syncs.creation import SyncRequest
from app.syncs.rules import Cursor, cuts
from app.vocabulary import outcomes_wire
from app.vocabulary.outcomes_wire import ItemOutcome, JobError
from app.vocabulary.states import ErrorCode, ItemStatus, Result
from jobs.scheduling.fair_queue import Job
from jobs.scheduling.worker_pool import PollingWorkerPool

_WORKERS: Final = 2
_INTERVAL: Final = 0.25
_MOST_RECORDS: Final = 5_000
"""Taken in one transaction."""
_MOST_WAITING: Final = 64
"""Deliveries of one sync that are not done, with which no more are booked."""
_DUE_INTERVAL: Final = 60.0
"""Seconds between two looks for verifications that are due."""
_PAUSE: Final = 0.1
"""Seconds until they are counted again."""

log = structlog.get_logger()

_encode: Final = msgspec.json.Encoder().encode


class SyncRunner(PollingWorkerPool):
    """Runs until it is stopped."""

    def __init__(self, database: Database, settings: Settings, serve: Callable[[int, int], None]) -> None:
        """`serve`: is called with a tenant and a destination that has something due."""
        super().__init__("sync", _WORKERS, database, interval=_INTERVAL, idle=settings.sweep_interval)
        self._catalog = Catalog()
        self._due_at = 0.0
        self._chunk_size = settings.chunk_size
        self._serve = serve

    async def find(self) -> Iterable[Job]:
        if time.monotonic() >= self._due_at:
            self._due_at = time.monotonic() + _DUE_INTERVAL
            await self.begin_due()
        async with self._database.connection() as connection:
            return await rows.working(connection)

    async def begin_due(self) -> None:
        """Begin the verifications that destinations have from time to time (option `verify_every`)."""
        async with self._database.connection() as connection:
            due = await rows.due_verifications(connection)
        for tenant_id, destination_id, name in due:
            async with self._database.connection() as connection:
                try:
                    await creation.create(
                        connection,
                        tenant_id,
                        name,
                        SyncRequest(mode="verify"),
                        catalog=self._catalog,
                        request_id=str(uuid7()),
                        actor="tranche",
                    )
                except Conflict:
                    continue  # another sync is running, and after it there is another minute
                except (Invalid, NotFound) as error:
                    log.warning("verification_not_begun", destination_id=destination_id, error=error)
                    await rows.note_verification(connection, tenant_id, destination_id)

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
        if cursor.listing:
            return await self._take_listed(connection, tenant_id, job_id, claimed)
        taken = await rows.records(
            connection,
            tenant_id,
            cursor.destination_id,
            cursor.type_ids[0],
            after=cursor.after,
            everything=cursor.mode != "missing",
            limit=_MOST_RECORDS,
        )
        if not taken and cursor.mode == "verify" and not claimed.removed:
            await self._list(connection, tenant_id, job_id, claimed, Listing())
            await _move(connection, tenant_id, job_id, cursor.list_there())
            return False
        if not taken:
            return await _end_type(connection, tenant_id, job_id, cursor)
        ids, versions = [record_id for record_id, _ in taken], [version for _, version in taken]
        first = claimed.total
        many = KINDS[claimed.kind].bulk_size if claimed.kind in KINDS and cursor.mode != "verify" else 0
        lows, highs = cuts(len(taken), max(many, self._chunk_size))
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
            outcomes=_outcomes(first, taken),
            lows=lows,
            highs=highs,
            forced=cursor.mode == "all" or cursor.repair,
            verify=cursor.mode == "verify",
            results=_results(first + len(taken)),
            cursor=_encode(cursor.past(ids[-1])).decode(),
        )
        return False

    async def _list(
        self, connection: Connection, tenant_id: int, job_id: uuid.UUID, claimed: rows.Claimed, listing: Listing
    ) -> None:
        cursor = claimed.sync
        await rows.book_listing(
            connection,
            tenant_id,
            job_id,
            cursor.destination_id,
            cursor.type_ids[0],
            request_id=claimed.request_id,
            first_index=claimed.total,
            listing=listing,
        )

    async def _take_listed(
        self, connection: Connection, tenant_id: int, job_id: uuid.UUID, claimed: rows.Claimed
    ) -> bool:
        """Make items of the job of what a list has shown, and go on with the list or with the next type."""
        cursor, first = claimed.sync, claimed.total
        found = await rows.read_listing(connection, tenant_id, job_id, cursor.destination_id, first)
        if found is not None and not found.done:
            self.rest((tenant_id, job_id), _PAUSE)
            return False
        if found is not None and found.record_ids:
            count = len(found.record_ids)
            await rows.book_unknown(
                connection,
                tenant_id,
                job_id,
                cursor.destination_id,
                found.delivery_id,
                first_index=first,
                count=count,
                outcomes=_outcomes(first, [(key, 0) for key in found.record_ids]),
                results=_results(first + count),
            )
            claimed = msgspec.structs.replace(claimed, total=first + count)
        elif found is not None:
            await rows.drop_listing(connection, tenant_id, found.delivery_id)
        if found is not None and found.listing.failed:
            words = f"what the destination has and nobody here knows could not be listed: {found.listing.failed}"
            await rows.note_error(connection, tenant_id, job_id, JobError(ErrorCode.DESTINATION_UNAVAILABLE, words))
        if found is not None and found.listing.after is not None and not claimed.removed:
            await self._list(connection, tenant_id, job_id, claimed, found.listing)
            return False
        return await _end_type(connection, tenant_id, job_id, cursor)


async def _end_type(connection: Connection, tenant_id: int, job_id: uuid.UUID, cursor: Cursor) -> bool:
    """Go on with the next type; true: there is none."""
    following = cursor.next_type()
    await _move(connection, tenant_id, job_id, following)
    if following is None:
        await processing_queries.end_import(connection, tenant_id, job_id)
    return following is None


async def _move(connection: Connection, tenant_id: int, job_id: uuid.UUID, cursor: Cursor | None) -> None:
    await rows.move(connection, tenant_id, job_id, None if cursor is None else _encode(cursor).decode())


def _outcomes(first: int, items: list[tuple[str, int]]) -> bytes:
    """Of items (id, version; 0: no record here has this id), packed."""
    outcomes = [
        ItemOutcome(first + place, record_id, ItemStatus.OK, Result.UNCHANGED, version or UNSET)
        for place, (record_id, version) in enumerate(items)
    ]
    return pack(outcomes_wire.encode_items(outcomes))


def _results(total: int) -> str:
    return _encode({Result.UNCHANGED: total}).decode()
