"""The use case: a staged import is processed chunk by chunk, each in one transaction that also removes it from staging.

Uncommitted work never happened, and the staged chunks are the remaining work; so nothing is skipped and
nothing is done twice, wherever a worker stops. The phases, each with its exits:

1. check    no id stands twice → 3 · some may → collect them, chunk by chunk, and settle what they mean
2. settle   equal ones follow their leader · differing ones fail, or the last one leads
3. apply    a chunk is written and booked → next · locks not had → later, at last `retry` · canceled → undone
4. resolve  items that wait for a leader get its outcome
5. end      → syncing, or finished where nothing is owed
"""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum
from typing import Final

import asyncpg
import msgspec
import structlog

from app import upsert
from app.booking import Booked, book
from app.db import canceling, processing
from app.db.packing import pack, unpack
from app.db.pool import UNREACHABLE, Connection, Database
from app.db.processing import Processing, SpooledChunk
from app.domain import answers, batch, rows
from app.domain.answers import ItemOutcome, Summary
from app.domain.batch import JobOptions
from app.domain.files.spooled import decode_pieces, decode_sources, encode_sources
from app.domain.items import BROKEN, LOCKED, Items, Undecided, sources
from app.domain.outcomes import ErrorCode, Step
from app.domain.repeats import Verdict, plan
from app.domain.rows import Accepted, Noted, Piece, Unfit
from app.errors import StorageFull, TrancheError
from app.settings import Settings

log = structlog.get_logger()

_TRIES: Final = 3
_BACKOFF: Final = 0.25
_BACKOFF_CAP: Final = 10.0
_WHOLE_FILE: Final = (Step.CHECK, Step.SETTLE, Step.ATOMIC)
_STUCK: Final = (
    "Processing failed repeatedly; the error was logged. Applied items remain; progress.not_processed "
    "counts the others."
)
FULL: Final = {
    "code": StorageFull.code,
    "detail": "The database has no disk space left. Nothing is lost; the job continues by itself once an "
    "operator has freed or added space.",
}
"""What a job waits for."""
_HELD: Final = (
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
)
"""Somebody else holds a row for long, a worker that was stopped with the job's own in its hand, say: it comes free."""


class Advance(Enum):
    """What came of one look at a job."""

    WORKED = "worked"
    WAITING = "waiting"
    """What is left is in other hands, or must wait."""
    DONE = "done"
    """Nothing is left to be processed."""


class _Exhausted(Exception):
    """The step of a whole file was tried as often as it may be."""


class _Canceled(Exception):
    """The job is no longer to be processed; the transaction is undone."""


class Processor:
    """Works on one job at a time; a worker has several."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        *,
        random: Callable[[], float],
        owed: Callable[[int, list[int]], None],
    ) -> None:
        """`owed` is called with a tenant and its destinations once deliveries for them are committed."""
        self._database = database
        self._settings = settings
        self._random = random
        self._owed = owed
        self._whole = asyncio.Semaphore(max(1, settings.import_concurrency - 1))
        """Work on a whole file takes long, and small imports must not wait for all tasks of a worker."""

    async def advance(self, tenant_id: int, job_id: uuid.UUID) -> Advance:
        """Do one piece of work for a job, if there is any to be had.

        Raises:
            DatabaseUnavailable, Overloaded: nothing happened.
        """
        async with self._database.connection() as connection:
            job = await processing.read_processing(connection, tenant_id, job_id)
            if job is None:
                return Advance.DONE
            if job.step not in _WHOLE_FILE:
                return await self._advance(connection, tenant_id, job_id, job)
            if self._whole.locked():
                return Advance.WAITING
            async with self._whole:
                return await self._advance(connection, tenant_id, job_id, job)

    async def _advance(
        self, connection: Connection, tenant_id: int, job_id: uuid.UUID, job: Processing
    ) -> Advance:
        unit = _Unit(connection, tenant_id, job_id, job, self._settings, self._random)
        try:
            if await unit.work():
                self._database.storage.note_room()
                if unit.owed:
                    self._owed(tenant_id, unit.owed)
                return Advance.WORKED
            return await unit.move_on()
        except _Canceled:
            return Advance.DONE
        except _Exhausted:
            return await unit.fail()
        except _HELD as error:
            log.info("import_waits", job_id=str(job_id), error=error)
            return Advance.WAITING
        except (TrancheError, *UNREACHABLE):
            raise
        except asyncpg.DiskFullError:
            await unit.say_full()
            raise
        except Exception:
            # A fault of ours: everybody else goes on, and a job that meets it again and again comes to an end.
            log.exception("import_stuck", tenant_id=tenant_id, job_id=str(job_id))
            return await unit.stumble()


class _Unit:
    """One piece of work of one job, over one connection."""

    def __init__(
        self,
        connection: Connection,
        tenant_id: int,
        job_id: uuid.UUID,
        job: Processing,
        settings: Settings,
        random: Callable[[], float],
    ) -> None:
        self._connection = connection
        self._job = (tenant_id, job_id)
        self._tenant_id = tenant_id
        self._job_id = job_id
        self._processing = job
        self._options = msgspec.json.decode(job.options, type=JobOptions)
        self._settings = settings
        self._random = random
        self._claimed: tuple[int, int] | None = None
        """First index and spent attempts of what is being worked on."""
        self.owed: list[int] = []

    async def work(self) -> bool:
        """False: there was nothing to be had."""
        step = self._processing.step
        undecided: Undecided | None = None
        for attempt in range(1, _TRIES + 2):
            self._claimed = None
            try:
                async with self._connection.transaction():
                    return await self._step(step, undecided)
            except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError) as error:
                if attempt >= _TRIES:
                    return await self._postpone(error)
            except (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError) as error:
                return await self._postpone(error)
            except asyncpg.DataError as error:
                # Validation should let nothing through that PostgreSQL refuses; if it does, nobody is told "ok".
                if undecided is not None:
                    raise
                log.error("chunk_data_error", job_id=str(self._job_id), error=error)
                undecided = BROKEN
        return False

    async def _step(self, step: str, undecided: Undecided | None) -> bool:
        if step == Step.CHECK:
            return await self._check()
        if step == Step.SETTLE:
            return await self._settle()
        if step == Step.ATOMIC:
            return await self._apply_all(undecided)
        chunk = await processing.claim_chunk(self._connection, *self._job, step)
        if chunk is None:
            return False
        self._claimed = (chunk.first_index, chunk.attempts)
        if step == Step.COLLECT:
            await self._collect(chunk)
        elif step == Step.RESOLVE:
            await self._resolve(chunk)
        else:
            await self._apply(chunk, undecided or self._given_up(chunk.attempts))
        return True

    async def stumble(self) -> Advance:
        """Something went wrong that nobody foresaw: try again later, but not for ever."""
        if self._claimed is None:
            return Advance.WAITING
        if self._claimed[1] + 1 < self._settings.import_attempts:
            await self._put_off()
            return Advance.WAITING
        return await self.fail()

    async def fail(self) -> Advance:
        error = answers.as_json({"code": ErrorCode.INTERNAL, "detail": _STUCK})
        await processing.fail_import(self._connection, *self._job, error)
        log.error("import_failed", tenant_id=self._tenant_id, job_id=str(self._job_id))
        return Advance.DONE

    async def say_full(self) -> None:
        """Let the job say what it waits for, as far as there is room for that."""
        with suppress(asyncpg.PostgresError, *UNREACHABLE):
            await processing.say_waiting(self._connection, *self._job, answers.as_json(FULL))

    def _given_up(self, attempts: int) -> Undecided | None:
        return LOCKED if attempts >= self._settings.import_attempts else None

    async def _postpone(self, error: Exception) -> bool:
        """The locks were not to be had; what was claimed is left alone for a while."""
        log.info("chunk_postponed", job_id=str(self._job_id), claimed=self._claimed, error=error)
        if self._claimed is not None:
            await self._put_off()
        return False

    async def _put_off(self) -> None:
        assert self._claimed is not None
        first_index, attempts = self._claimed
        seconds = min(_BACKOFF * 2.0 ** min(attempts, 10), _BACKOFF_CAP) * (0.5 + self._random())
        await processing.postpone_chunk(self._connection, *self._job, first_index, seconds)

    async def _claim_job(self, step: Step) -> bool:
        """Be the only one who works on the job's present step, if it is `step`."""
        self._claimed = await processing.claim_job(self._connection, *self._job)
        if self._claimed is None:
            return False
        # The claim may have waited for whoever did this step already.
        now = await processing.read_processing(self._connection, *self._job)
        if now is None or now.step != step:
            return False
        if step != Step.ATOMIC and self._claimed[1] >= self._settings.import_attempts:
            raise _Exhausted
        await processing.allow_long(self._connection)
        return True

    async def _check(self) -> bool:
        if not await self._claim_job(Step.CHECK):
            return False
        repeats = await processing.has_repeats(self._connection, *self._job)
        if repeats:
            repeats = await processing.find_repeats(self._connection, *self._job) > 0
        await processing.take_step(self._connection, *self._job, Step.COLLECT if repeats else Step.APPLY)
        return True

    async def _collect(self, chunk: SpooledChunk) -> None:
        pieces = decode_pieces(unpack(chunk.rows))
        found = await processing.chunk_repeats(self._connection, *self._job, chunk)
        places = [
            r.item_index for r in found if not isinstance(pieces[r.item_index - chunk.first_index], Unfit)
        ]
        read = rows.read_items(
            [_raw(pieces[index - chunk.first_index]) for index in places],
            max_item_bytes=self._settings.max_item_bytes,
            indexes=places,
        )
        accepted = [row for row in read if isinstance(row, Accepted)]
        await processing.collect_repeats(
            self._connection,
            *self._job,
            [row.index for row in accepted],
            [row.contact_id for row in accepted],
            [batch.digest(row) for row in accepted],
        )
        await processing.move_chunk(self._connection, *self._job, chunk.first_index, Step.APPLY)

    async def _settle(self) -> bool:
        if not await self._claim_job(Step.SETTLE):
            return False
        await processing.settle_repeats(self._connection, *self._job, last_wins=self._options.last_wins)
        await processing.take_step(self._connection, *self._job, Step.APPLY)
        return True

    async def _apply(self, chunk: SpooledChunk, undecided: Undecided | None) -> None:
        pieces = decode_pieces(unpack(chunk.rows))
        found = await processing.chunk_repeats(self._connection, *self._job, chunk) if chunk.repeated else []
        planned = plan(chunk.first_index, pieces, found, max_item_bytes=self._settings.max_item_bytes)
        items = planned.items
        await self._decide(items, undecided, atomic=False)
        booked = await self._book(items.outcomes, items.pieces, chunk.first_index, chunk.item_count)
        if planned.leaders:
            outcomes = {outcome.index: outcome for outcome in items.outcomes}
            told = {index: answers.as_json(outcomes[index]) for index in planned.leaders}
            await processing.tell_leaders(self._connection, *self._job, told)
        if planned.waiting:
            await processing.move_chunk(self._connection, *self._job, chunk.first_index, Step.RESOLVE)
        else:
            await processing.drop_chunks(self._connection, *self._job, chunk.first_index, chunk.first_index)
        await self._count(booked.summary, booked.results)

    async def _apply_all(self, undecided: Undecided | None) -> bool:
        """The whole file at once: its size is bounded for the sake of this."""
        if not await self._claim_job(Step.ATOMIC):
            return False
        assert self._claimed is not None
        pieces: list[Piece] = []
        spans: list[tuple[int, int]] = []
        async for first, count, packed in processing.read_spool(self._connection, *self._job):
            pieces += decode_pieces(unpack(packed))
            spans.append((first, count))
        items = Items(pieces, last_wins=self._options.last_wins, max_item_bytes=self._settings.max_item_bytes)
        await self._decide(items, undecided or self._given_up(self._claimed[1]), atomic=True)
        booked = []
        for first, count in spans:
            part = slice(first, first + count)
            booked.append(await self._book(items.outcomes[part], pieces[part], first, count))
        await processing.drop_chunks(self._connection, *self._job, 0, spans[-1][0])
        for each in booked:
            await self._count(each.summary, each.results)
        return True

    async def _decide(self, items: Items, undecided: Undecided | None, *, atomic: bool) -> None:
        if undecided is None:
            await upsert.write(
                self._connection, *self._job, items, atomic=atomic, dry_run=self._options.dry_run
            )
        else:
            seconds = math.ceil(self._settings.db_lock_timeout * (1 + self._random()))
            items.postpone(undecided, seconds)

    async def _book(
        self, outcomes: list[ItemOutcome], pieces: Sequence[Piece], first_index: int, item_count: int
    ) -> Booked:
        destination_ids = await processing.owing_destinations(self._connection, self._tenant_id)
        booked = await book(
            self._connection,
            *self._job,
            self._processing.request_id,
            outcomes,
            pieces,
            first_index=first_index,
            item_count=item_count,
            destination_ids=destination_ids,
            chunk_size=self._settings.chunk_size,
            dry_run=self._options.dry_run,
        )
        if booked.owed:
            self.owed = destination_ids
        return booked

    async def _count(self, summary: Summary, results: dict[str, int]) -> None:
        """The job's own row comes last: it is held until the commit, and every chunk of the job needs it.

        Raises:
            _Canceled: the job was canceled meanwhile.
        """
        if not await processing.count_items(self._connection, *self._job, summary, answers.as_json(results)):
            raise _Canceled

    async def _resolve(self, chunk: SpooledChunk) -> None:
        """Give the items that waited the outcome of their leader."""
        packed, packed_sources = await processing.read_outcomes(
            self._connection, *self._job, chunk.first_index
        )
        followers = [
            (answers.follow if found.verdict == Verdict.EQUAL else answers.give_way)(
                found.item_index, msgspec.json.decode(found.outcome or b"", type=ItemOutcome)
            )
            for found in await processing.chunk_repeats(self._connection, *self._job, chunk)
            if found.verdict in (Verdict.EQUAL, Verdict.OLDER)
        ]
        outcomes = sorted([*answers.decode_items(unpack(packed)), *followers], key=lambda o: o.index)
        pieces = decode_pieces(unpack(chunk.rows))
        kept = decode_sources(unpack(packed_sources)) if packed_sources else {}
        kept |= sources(followers, [pieces[o.index - chunk.first_index] for o in followers])
        await processing.rewrite_outcomes(
            self._connection,
            *self._job,
            chunk.first_index,
            failures=answers.as_json(answers.cluster(outcomes)),
            outcomes=pack(answers.encode_items(outcomes)),
            sources=pack(encode_sources(kept)) if kept else None,
        )
        await processing.drop_chunks(self._connection, *self._job, chunk.first_index, chunk.first_index)
        await self._count(answers.summarize(followers), answers.count_results(followers))

    async def move_on(self) -> Advance:
        """Take the next step if the present one is done by everybody."""
        async with self._connection.transaction():
            step = await processing.lock_import(self._connection, *self._job)
            if step is None:
                return Advance.DONE
            left = await processing.steps_left(self._connection, *self._job)
            if step in left or (left and step in (Step.CHECK, Step.SETTLE, Step.ATOMIC)):
                return Advance.WAITING
            if left:
                await processing.take_step(
                    self._connection, *self._job, Step.SETTLE if step == Step.COLLECT else Step.RESOLVE
                )
                return Advance.WORKED
            state = await processing.end_import(self._connection, *self._job)
        log.info("import_processed", tenant_id=self._tenant_id, job_id=str(self._job_id), state=state)
        # Millions of repeated ids take longer than a statement may; what is left here, a sweeper finds.
        await canceling.remove_spool(self._connection, *self._job)
        return Advance.DONE


def _raw(piece: Piece) -> bytes:
    assert not isinstance(piece, Unfit)
    return piece.item if isinstance(piece, Noted) else bytes(piece)
