"""The steps of a staged import: one piece of work of one job, over one connection (see `jobs.imports.processing`)."""

import math
import random
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum
from typing import Final

import asyncpg
import msgspec
import structlog

from app.destinations.kinds import reach_of
from app.errors import StorageFull
from app.files.staging_codec import decode_pieces, decode_sources, encode_sources
from app.files.workbook.addresses import Grid
from app.history.versions import NewVersion
from app.imports import processing_queries as rows
from app.imports import upsert
from app.imports.batch import duplicates
from app.imports.batch.file_duplicates import Verdict, plan
from app.imports.batch.items import BROKEN, LOCKED, Items, Undecided, locate, sources
from app.imports.cancel import queries
from app.imports.outbox import Booked, book
from app.imports.processing_queries import Processing, StagedChunk
from app.kit.compression import pack, unpack
from app.kit.postgres.database import UNREACHABLE, Connection
from app.kit.postgres.transactions import COLLIDED, HELD, retried
from app.limits.limiter import Budget
from app.resources import decoding
from app.resources.declaration import Resource
from app.resources.decoding import Accepted, Noted, Piece, UnreadablePiece
from app.settings import Settings
from app.vocabulary import outcomes_wire
from app.vocabulary.outcomes_wire import ItemOutcome, JobOptions, Summary
from app.vocabulary.states import ErrorCode, Step

log = structlog.get_logger()

_BACKOFF: Final = 0.25
_BACKOFF_CAP: Final = 10.0
WHOLE_FILE: Final = (Step.CHECK, Step.SETTLE, Step.ATOMIC)
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


class Advance(Enum):
    """What came of one look at a job."""

    WORKED = "worked"
    WAITING = "waiting"
    """What is left is in other hands, or must wait."""
    DONE = "done"
    """Nothing is left to be processed."""


class Exhausted(Exception):
    """The step of a whole file was tried as often as it may be."""


class Canceled(Exception):
    """The job is no longer to be processed; the transaction is undone."""


class Paced(Exception):
    """The rate limit of the job's items is used up for some seconds; the transaction is undone."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class Unit:
    """One piece of work of one job, over one connection."""

    def __init__(
        self,
        connection: Connection,
        tenant_id: int,
        job_id: uuid.UUID,
        job: Processing,
        resource: Resource,
        settings: Settings,
        budget: Budget,
    ) -> None:
        self._connection = connection
        self._job = (tenant_id, job_id)
        self._tenant_id = tenant_id
        self._job_id = job_id
        self._processing = job
        self._resource = resource
        self._options = msgspec.json.decode(job.options, type=JobOptions)
        self._settings = settings
        self._budget = budget
        self._claimed: tuple[int, int] | None = None
        """First index and spent attempts of what is being worked on."""
        self.pending: list[int] = []
        self.counts: Counter[tuple[str, str]] = Counter()
        """Items that were decided, by status and error code."""

    async def work(self) -> bool:
        """False: there was nothing to be had. Raises `Paced`."""
        done = False
        try:
            done = await self._work()
        finally:
            if not done:
                await self._budget.refund()
        return done

    async def _work(self) -> bool:
        step = self._processing.step
        undecided: Undecided | None = None

        async def transaction() -> bool:
            self._claimed = None
            self.counts.clear()
            async with self._connection.transaction():
                return await self._step(step, undecided)

        while True:
            try:
                return await retried(transaction)
            except (*COLLIDED, *HELD) as error:
                return await self._postpone(error)
            except asyncpg.DataError as error:
                # Validation should let nothing through that PostgreSQL refuses; if it does, no item is reported as ok.
                if undecided is not None:
                    raise
                log.error("chunk_data_error", job_id=str(self._job_id), error=error)
                undecided = BROKEN

    async def _step(self, step: str, undecided: Undecided | None) -> bool:
        if step == Step.CHECK:
            return await self._check()
        if step == Step.SETTLE:
            return await self._settle()
        if step == Step.ATOMIC:
            return await self._apply_all(undecided)
        chunk = await rows.claim_chunk(self._connection, *self._job, step)
        if chunk is None:
            return False
        self._claimed = (chunk.first_index, chunk.attempts)
        if step == Step.COLLECT:
            await self._collect(chunk)
        elif step == Step.RESOLVE:
            await self._resolve(chunk)
        else:
            await self._charge(chunk.item_count)
            await self._apply(chunk, undecided or self._given_up(chunk.attempts))
        return True

    async def _charge(self, items: int) -> None:
        """Raises `Paced`: the limits leave no room for them now."""
        if seconds := await self._budget.charge(items):
            raise Paced(seconds)

    async def on_error(self) -> Advance:
        """Something went wrong that nobody foresaw: try again later, but not for ever."""
        if self._claimed is None:
            return Advance.WAITING
        if self._claimed[1] + 1 < self._settings.import_attempts:
            await self._put_off()
            return Advance.WAITING
        return await self.fail()

    async def fail(self) -> Advance:
        error = outcomes_wire.as_json({"code": ErrorCode.INTERNAL, "detail": _STUCK})
        await rows.fail_import(self._connection, *self._job, error)
        log.error("import_failed", tenant_id=self._tenant_id, job_id=str(self._job_id))
        return Advance.DONE

    async def say_full(self) -> None:
        await self._say(FULL)

    async def say_paced(self) -> None:
        detail = f"Its items wait, because {self._budget.describe()}. The job continues by itself."
        await self._say({"code": ErrorCode.RATE_LIMIT, "detail": detail})

    async def _say(self, waiting: dict[str, str]) -> None:
        """Let the job say what it waits for, as far as there is room for that."""
        with suppress(asyncpg.PostgresError, *UNREACHABLE):
            await rows.say_waiting(self._connection, *self._job, outcomes_wire.as_json(waiting))

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
        seconds = min(_BACKOFF * 2.0 ** min(attempts, 10), _BACKOFF_CAP) * (0.5 + random.random())  # noqa: S311 - jitter, not a secret
        await rows.postpone_chunk(self._connection, *self._job, first_index, seconds)

    async def _claim_job(self, step: Step) -> bool:
        """Be the only one who works on the job's present step, if it is `step`."""
        self._claimed = await rows.claim_job(self._connection, *self._job)
        if self._claimed is None:
            return False
        # The claim may have waited for whoever did this step already.
        now = await rows.read_processing(self._connection, *self._job)
        if now is None or now.step != step:
            return False
        if step != Step.ATOMIC and self._claimed[1] >= self._settings.import_attempts:
            raise Exhausted
        await rows.allow_long(self._connection)
        return True

    async def _check(self) -> bool:
        if not await self._claim_job(Step.CHECK):
            return False
        repeats = await rows.has_repeats(self._connection, *self._job)
        if repeats:
            repeats = await rows.find_repeats(self._connection, *self._job) > 0
        await rows.take_step(self._connection, *self._job, Step.COLLECT if repeats else Step.APPLY)
        return True

    async def _collect(self, chunk: StagedChunk) -> None:
        pieces = decode_pieces(unpack(chunk.rows)).pieces
        found = await rows.chunk_repeats(self._connection, *self._job, chunk)
        places = [
            r.item_index for r in found if not isinstance(pieces[r.item_index - chunk.first_index], UnreadablePiece)
        ]
        read = decoding.reader_of(self._resource).read(
            [_raw(pieces[index - chunk.first_index]) for index in places],
            max_item_bytes=self._settings.max_item_bytes,
            indexes=places,
        )
        accepted = [row for row in read if isinstance(row, Accepted)]
        await rows.collect_repeats(
            self._connection,
            *self._job,
            [row.index for row in accepted],
            [row.record_id for row in accepted],
            [duplicates.digest(row) for row in accepted],
        )
        await rows.move_chunk(self._connection, *self._job, chunk.first_index, Step.APPLY)

    async def _settle(self) -> bool:
        if not await self._claim_job(Step.SETTLE):
            return False
        await rows.settle_repeats(self._connection, *self._job, last_wins=self._options.last_wins)
        await rows.take_step(self._connection, *self._job, Step.APPLY)
        return True

    async def _apply(self, chunk: StagedChunk, undecided: Undecided | None) -> None:
        pieces, lines, grid = decode_pieces(unpack(chunk.rows))
        found = await rows.chunk_repeats(self._connection, *self._job, chunk) if chunk.repeated else []
        most = self._settings.max_item_bytes
        planned = plan(self._resource, chunk.first_index, pieces, found, max_item_bytes=most, lines=lines, grid=grid)
        items = planned.items
        await self._decide(items, undecided, atomic=False)
        booked = await self._book(items.outcomes, items.pieces, items.versions, chunk.first_index, chunk.item_count)
        if planned.leaders:
            outcomes = {outcome.index: outcome for outcome in items.outcomes}
            reported = {index: outcomes_wire.as_json(outcomes[index]) for index in planned.leaders}
            await rows.report_leaders(self._connection, *self._job, reported)
        if planned.waiting:
            await rows.move_chunk(self._connection, *self._job, chunk.first_index, Step.RESOLVE)
        else:
            await rows.drop_chunks(self._connection, *self._job, chunk.first_index, chunk.first_index)
        await self._count(booked.summary, booked.results)

    async def _apply_all(self, undecided: Undecided | None) -> bool:
        """The whole file at once: its size is bounded for the sake of this."""
        if not await self._claim_job(Step.ATOMIC):
            return False
        assert self._claimed is not None
        pieces: list[Piece] = []
        lines: list[int] = []
        grid: Grid | None = None
        spans: list[tuple[int, int]] = []
        async for first, count, packed in rows.read_staged(self._connection, *self._job):
            part = decode_pieces(unpack(packed))
            pieces += part.pieces
            lines += part.lines
            grid = part.grid
            spans.append((first, count))
        await self._charge(len(pieces))
        items = Items(
            self._resource,
            pieces,
            last_wins=self._options.last_wins,
            max_item_bytes=self._settings.max_item_bytes,
            lines=lines,
            grid=grid,
        )
        await self._decide(items, undecided or self._given_up(self._claimed[1]), atomic=True)
        booked = []
        for first, count in spans:
            span = slice(first, first + count)
            made = [version for version in items.versions if first <= version.index < first + count]
            booked.append(await self._book(items.outcomes[span], pieces[span], made, first, count))
        await rows.drop_chunks(self._connection, *self._job, 0, spans[-1][0])
        for each in booked:
            await self._count(each.summary, each.results)
        return True

    async def _decide(self, items: Items, undecided: Undecided | None, *, atomic: bool) -> None:
        if undecided is None:
            await upsert.write(self._connection, *self._job, items, atomic=atomic, dry_run=self._options.dry_run)
        else:
            seconds = math.ceil(self._settings.db_lock_timeout * (1 + random.random()))  # noqa: S311 - jitter, not a secret
            items.postpone(undecided, seconds)

    async def _book(
        self,
        outcomes: list[ItemOutcome],
        pieces: Sequence[Piece],
        made: Sequence[NewVersion],
        first_index: int,
        item_count: int,
    ) -> Booked:
        destination_ids = await rows.pending_destinations(self._connection, self._tenant_id, reach_of(self._resource))
        booked = await book(
            self._connection,
            self._tenant_id,
            self._resource.type_id,
            self._job_id,
            self._processing.request_id,
            outcomes,
            pieces,
            made,
            first_index=first_index,
            item_count=item_count,
            destination_ids=destination_ids,
            chunk_size=self._settings.chunk_size,
            dry_run=self._options.dry_run,
        )
        self.counts.update(booked.counts)
        if booked.has_deliveries:
            self.pending = destination_ids
        return booked

    async def _count(self, summary: Summary, results: dict[str, int]) -> None:
        """The job's own row comes last: it is held until the commit, and every chunk of the job needs it.
        Raises `Canceled`: the job was canceled meanwhile."""
        if not await rows.count_items(self._connection, *self._job, summary, outcomes_wire.as_json(results)):
            raise Canceled

    async def _resolve(self, chunk: StagedChunk) -> None:
        """Give the items that waited the outcome of their leader."""
        packed, packed_sources = await rows.read_outcomes(self._connection, *self._job, chunk.first_index)
        followers = [
            (outcomes_wire.follow if found.verdict == Verdict.EQUAL else outcomes_wire.yield_to)(
                found.item_index, msgspec.json.decode(found.outcome or b"", type=ItemOutcome)
            )
            for found in await rows.chunk_repeats(self._connection, *self._job, chunk)
            if found.verdict in (Verdict.EQUAL, Verdict.OLDER)
        ]
        pieces, lines, grid = decode_pieces(unpack(chunk.rows))
        if lines:
            for outcome in followers:
                locate(outcome, lines[outcome.index - chunk.first_index], grid)
        outcomes = sorted([*outcomes_wire.decode_items(unpack(packed)), *followers], key=lambda o: o.index)
        kept = decode_sources(unpack(packed_sources)) if packed_sources else {}
        kept |= sources(followers, [pieces[o.index - chunk.first_index] for o in followers])
        await rows.rewrite_outcomes(
            self._connection,
            *self._job,
            chunk.first_index,
            failures=outcomes_wire.as_json(outcomes_wire.cluster(outcomes)),
            outcomes=pack(outcomes_wire.encode_items(outcomes)),
            sources=pack(encode_sources(kept)) if kept else None,
        )
        await rows.drop_chunks(self._connection, *self._job, chunk.first_index, chunk.first_index)
        summary = outcomes_wire.summarize(followers)
        self.counts.update(outcomes_wire.count_codes(followers, summary))
        await self._count(summary, outcomes_wire.count_results(followers))

    async def move_on(self) -> Advance:
        """Take the next step if the present one is done by everybody."""
        async with self._connection.transaction():
            step = await rows.lock_import(self._connection, *self._job)
            if step is None:
                return Advance.DONE
            left = await rows.steps_left(self._connection, *self._job)
            if step in left or (left and step in WHOLE_FILE):
                return Advance.WAITING
            if left:
                await rows.take_step(
                    self._connection, *self._job, Step.SETTLE if step == Step.COLLECT else Step.RESOLVE
                )
                return Advance.WORKED
            state = await rows.end_import(self._connection, *self._job)
        log.info("import_processed", tenant_id=self._tenant_id, job_id=str(self._job_id), state=state)
        # Millions of repeated ids take longer than a statement may; what is left here, a sweeper finds.
        await queries.remove_staged(self._connection, *self._job)
        return Advance.DONE


def _raw(piece: Piece) -> bytes:
    assert not isinstance(piece, UnreadablePiece)
    return piece.item if isinstance(piece, Noted) else bytes(piece)
