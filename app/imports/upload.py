"""The use case: a body comes in that is too large to be answered at once, and is stored while it arrives.

The phases, each with its exits:

1. look      the key is new → go on · answered → the body is read to its end and compared: the same answer, or
             `KeyReused` · a body is arriving under it → `KeyBusy` · too old → `KeyExpired` · the type was declared
             anew since it was seen here → look again
2. begin     the first chunk is there: job (`receiving`), key and chunk in one transaction
3. append    a chunk a transaction · the job was canceled → `JobCanceled`
4. finish    one transaction: job `queued`, the answer under its key · the body is cut off, malformed, too large: the
             job is `canceled` or `failed`, what was stored is removed, the key is free

Nothing that was stored counts before 4 commits, so only that waits for the disk. No connection is held while the
client is waited for.
"""

import asyncio
import contextlib
import hashlib
import math
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import IO, Final, TypeVar

import asyncpg
import msgspec
import structlog

from app.errors import (
    ClientGone,
    DatabaseUnavailable,
    InvalidHeader,
    JobCanceled,
    MalformedRequest,
    Overloaded,
    QuotaExceeded,
    TooLarge,
    TrancheError,
)
from app.files.csv_columns import HeaderError
from app.files.csv_mapping import names_of
from app.files.json_document import MalformedBody
from app.files.readers import Chunk, Chunker, Family, Portion, Reader, keep, open_reader
from app.files.staging_codec import encode_pieces
from app.files.workbook.addresses import Grid
from app.imports import service, upload_queries
from app.imports.cancel import queries
from app.imports.queries import KeyClaim
from app.imports.service import ImportRequest, Replay
from app.imports.upload_queries import PackedChunk
from app.imports.workbooks import Workbooks, keep_workbook
from app.kit.compression import pack
from app.kit.postgres.column_codec import texts
from app.kit.postgres.database import Connection, Database
from app.kit.postgres.transactions import retried
from app.resource_types.catalog import Catalog
from app.resources.decoding import read_ids
from app.sagas.consistency import promise
from app.settings import PREFIX, Settings
from app.tracing import context
from app.vocabulary import outcomes_wire
from app.vocabulary.states import EffectState, JobState, Step

T = TypeVar("T")

log = structlog.get_logger()

_ITEMS_PER_SECOND: Final = 20_000
_LONGEST_ADVICE: Final = 10
_QUOTA_SECONDS: Final = 10.0
_QUOTA_BYTES: Final = 16_000_000
"""That may arrive between two looks at what all files of the tenant hold."""
_BEATS: Final = 4
"""In a lease: one that is late or lost does no harm."""
_INTERRUPTED: Final = "the client closed the connection before the body was complete; nothing of it was applied"


class Accepted202(msgspec.Struct, frozen=True, kw_only=True):
    """A body that is stored as a whole, and will be processed."""

    job_id: uuid.UUID
    body: bytes
    items: int

    @property
    def retry_after(self) -> int:
        """Seconds after which there may be progress."""
        return min(max(1, math.ceil(self.items / _ITEMS_PER_SECOND)), _LONGEST_ADVICE)


class QueuedAnswer(msgspec.Struct, omit_defaults=True):
    """The body of a 202. `effects`: nothing is decided yet (`pending`), or will ever be done (`skipped`: `dry_run`)."""

    job_id: uuid.UUID
    state: JobState
    status_url: str
    items_url: str
    events_url: str
    cancel_url: str
    effects: dict[str, EffectState]
    dry_run: bool = False


async def receive(
    database: Database,
    upload: ImportRequest,
    body: AsyncIterator[bytes],
    settings: Settings,
    *,
    catalog: Catalog,
    new_id: Callable[[], uuid.UUID],
    clock: Callable[[], float],
    workbooks: Workbooks | None = None,
) -> Accepted202 | Replay:
    """Store a body while it arrives; a workbook, which `workbooks` is needed for, once it is there. Pieces are 64 KB at
    the most; an empty one says that time has passed.

    `clock` counts seconds from anywhere.

    Raises:
        KeyBusy, KeyReused, KeyExpired, JobCanceled: see the phases above.
        QuotaExceeded: the tenant's files are as many, or as large, as may wait to be processed.
        MalformedRequest, InvalidHeader, Invalid, TooLarge: the body cannot be taken.
        DatabaseUnavailable, Overloaded: nothing of it was kept.
        Whatever the iterator raises.
    """
    claim: KeyClaim | None = None
    while claim is None:
        async with database.connection() as connection, connection.transaction():
            found = await service.claim_key(connection, upload)
        try:
            if found.fingerprint is None:
                service.check_type(found, upload)
            claim = found
        except service.Outdated:
            upload = await service.renew_type(database, catalog, upload)
    with contextlib.ExitStack() as stack:
        workbook = None
        if upload.form.family is Family.XLSX:
            assert workbooks is not None
            workbook = _Workbook(workbooks, stack.enter_context(tempfile.TemporaryFile(prefix="tranche-workbook-")))
        return await _Intake(database, upload, settings, claim, new_id, clock, workbook).run(body)


class _Workbook(msgspec.Struct, frozen=True):
    """Where the bytes of a workbook are kept until all of them are there, and what then reads them."""

    workbooks: Workbooks
    stream: IO[bytes]


class _Intake:
    """One upload on its way into staging."""

    def __init__(
        self,
        database: Database,
        upload: ImportRequest,
        settings: Settings,
        claim: KeyClaim,
        new_id: Callable[[], uuid.UUID],
        clock: Callable[[], float],
        workbook: _Workbook | None,
    ) -> None:
        self._database = database
        self._workbook = workbook
        self._upload = upload
        self._settings = settings
        self._new_id = new_id
        self._clock = clock
        self._digest = hashlib.sha256()
        self._size = 0
        self._reader: Reader = open_reader(upload.form, names_of(upload.resource))
        self._chunker = Chunker(items=settings.import_chunk_items, size=settings.import_chunk_bytes)
        self._claim = claim
        self._arrival: upload_queries.Arrival | None = None
        """Once there is a job."""
        self._checked = 0
        """Bytes that had arrived when quotas were last looked at."""
        self._heard = 0.0
        """When the last heartbeat of the upload was written."""

    async def run(self, body: AsyncIterator[bytes]) -> Accepted202 | Replay:
        service.check_kept(self._claim)
        if not self._replaying:
            async with self._database.connection() as connection:
                await self._check_quota(connection, more=1)
        try:
            async for piece in body:
                await self._take(piece)
            return await self._finish()
        except Exception as error:
            await self._give_up(error)
            raise

    @property
    def _replaying(self) -> bool:
        """The key has an answer, which is for this body if it proves to be the same."""
        return self._claim.fingerprint is not None

    async def _take(self, piece: bytes) -> None:
        self._digest.update(piece)
        self._size += len(piece)
        if self._replaying:
            return
        if piece and self._workbook is not None:
            keep_workbook(self._workbook.stream, piece)
        elif piece:
            await self._read(piece)
        if self._arrival is not None and self._clock() - self._heard >= self._settings.receive_lease / _BEATS:
            async with self._database.connection() as connection, connection.transaction():
                await self._renew(connection, self._arrival)
            self._heard = self._clock()

    async def _check_quota(self, connection: Connection, *, more: int) -> None:
        """
        Raises:
            QuotaExceeded: the tenant has sent as much as may wait to be processed; `more`: jobs that are to come.
        """
        settings = self._settings
        waiting = await upload_queries.read_staging(connection, self._upload.tenant_id)
        if waiting.jobs + more > settings.max_unfinished_jobs:
            held = f"{waiting.jobs} files of this tenant"
            raise _exceeded(held, settings.max_unfinished_jobs, "MAX_UNFINISHED_JOBS")
        if waiting.bytes >= settings.max_staged_bytes:
            held = f"{waiting.bytes} bytes of this tenant's files"
            raise _exceeded(held, settings.max_staged_bytes, "MAX_STAGED_BYTES")
        self._checked = self._size

    async def _read(self, data: bytes | None) -> None:
        """Keep what comes of these bytes, or of the end (None); others have their turn between two steps."""
        try:
            for portion in self._reader.read(data):
                await self._keep(portion)
                await asyncio.sleep(0)
                if self._replaying:
                    return  # somebody else was answered under the key: the rest is only compared
        except MalformedBody as error:
            raise MalformedRequest(error.detail) from error
        except HeaderError as error:
            raise InvalidHeader(error.detail) from error

    async def _read_workbook(self, workbook: _Workbook) -> None:
        rows = workbook.workbooks.read(workbook.stream, self._upload.form, atomic=self._upload.options.atomic)
        async with contextlib.aclosing(rows):
            async for block in rows:
                self._size += len(block)  # what is staged is much more than the workbook
                await self._read(block)
                if self._replaying:
                    return

    async def _keep(self, portion: Portion) -> None:
        for chunk in self._chunker.feed(portion):
            if not self._replaying:
                await self._store(_pack(chunk, self._reader.grid))
        self._check_count()

    def _check_count(self) -> None:
        settings, count = self._settings, self._chunker.count
        if self._upload.options.atomic and count > settings.max_atomic_items:
            raise TooLarge(
                f"With atomic=true a request holds at most {settings.max_atomic_items} items, because one transaction "
                "then holds the locks of all of them; send the items without atomic=true, or in several requests."
            )
        if count > settings.max_file_items:
            raise TooLarge(
                f"A request holds at most {settings.max_file_items} items; send them in several, each with its own "
                "Idempotency-Key."
            )
        if self._upload.form.family is Family.JSON and count > settings.max_json_items:
            raise TooLarge(
                f"A JSON body holds at most {settings.max_json_items} items; send them as application/x-ndjson or "
                f"text/csv, which may hold {settings.max_file_items}, or in several requests, each with its own "
                "Idempotency-Key."
            )

    async def _store(self, packed: PackedChunk) -> None:
        """Stages a chunk; the first one creates the job."""
        if self._arrival is None:
            await self._begin(packed)
        else:
            async with self._database.connection() as connection, connection.transaction():
                await self._renew(connection, self._arrival)
                if self._size - self._checked >= _QUOTA_BYTES:
                    await self._check_quota(connection, more=0)
                await upload_queries.store(connection, self._arrival, packed)
        self._heard = self._clock()

    async def _begin(self, packed: PackedChunk) -> None:
        """Job, key and first chunk, unless the key was answered since we looked."""
        arrival: upload_queries.Arrival | None = None

        async def begin(connection: Connection) -> None:
            nonlocal arrival
            self._claim = await service.claim_key(connection, self._upload)
            arrival = None if self._replaying else self._announce()
            if arrival is not None:
                await upload_queries.begin(connection, arrival)
                await upload_queries.renew(connection, arrival, self._size)
                await upload_queries.store(connection, arrival, packed)

        await self._under_key(begin)
        self._arrival = arrival

    async def _under_key(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """One transaction, tried again where somebody else committed something under the key while we looked."""

        async def transaction() -> T:
            async with self._database.connection() as connection, connection.transaction():
                return await work(connection)

        try:
            return await retried(transaction, on=(asyncpg.UniqueViolationError,))
        except asyncpg.UniqueViolationError:
            raise Overloaded(retry_after=1.0) from None

    def _announce(self) -> upload_queries.Arrival:
        upload, settings = self._upload, self._settings
        return upload_queries.Arrival(
            tenant_id=upload.tenant_id,
            job_id=self._new_id(),
            type=upload.resource.name,
            request_id=upload.request_id,
            trace_context=context.keep(upload.trace),
            key_id=upload.key_id,
            options=service.encode_options(upload.options),
            route=upload.route,
            key=upload.key,
            lease=settings.receive_lease,
            retention=settings.idempotency_retention,
        )

    async def _renew(self, connection: Connection, arrival: upload_queries.Arrival) -> None:
        if not await upload_queries.renew(connection, arrival, self._size):
            raise await _explain(connection, arrival)

    async def _finish(self) -> Accepted202 | Replay:
        if self._workbook is not None and not self._replaying:
            await self._read_workbook(self._workbook)
        if not self._replaying:
            await self._read(None)
        rest = self._chunker.finish()
        packed = None if rest is None else _pack(rest, self._reader.grid)
        mark = service.seal(self._digest, self._upload.options, self._upload.form)
        return await self._under_key(lambda connection: self._settle(connection, packed, mark))

    async def _settle(self, connection: Connection, packed: PackedChunk | None, mark: bytes) -> Accepted202 | Replay:
        arrival = self._arrival
        if arrival is None:
            unread = self._replaying
            self._claim = await service.claim_key(connection, self._upload)
            replay = service.answered(self._claim, mark)
            if replay is not None:
                return replay
            if unread:  # the answer was forgotten while the body, of which nothing was read, arrived
                raise Overloaded(retry_after=1.0)
            arrival = self._announce()
            await upload_queries.begin(connection, arrival)
        if packed is not None:
            await upload_queries.store(connection, arrival, packed)
        answer = self._answer(arrival.job_id)
        done = await upload_queries.finish(
            connection,
            arrival,
            step=Step.ATOMIC if self._upload.options.atomic else Step.CHECK,
            items=self._chunker.count,
            size=self._size,
            form=outcomes_wire.as_json(keep(self._upload.form, self._reader)),
            fingerprint=mark,
            answer=pack(answer),
        )
        if not done:
            raise await _explain(connection, arrival)
        if self._upload.options.consistent:
            await promise(connection, arrival.tenant_id, arrival.job_id, key_id=arrival.key_id)
        return Accepted202(job_id=arrival.job_id, body=answer, items=self._chunker.count)

    def _answer(self, job_id: uuid.UUID) -> bytes:
        dry_run = self._upload.options.dry_run
        word = EffectState.SKIPPED if dry_run else EffectState.PENDING
        return msgspec.json.encode(
            QueuedAnswer(
                job_id=job_id,
                state=JobState.QUEUED,
                **outcomes_wire.job_urls(job_id),
                effects=dict.fromkeys(("db", *self._claim.destinations.values()), word),
                dry_run=dry_run,
            )
        )

    async def _give_up(self, error: Exception) -> None:
        """The job says why, what was stored goes, and the key is free; the lease does the same if this cannot."""
        if self._arrival is None:
            return
        if isinstance(error, ClientGone):
            state, code, detail = JobState.CANCELED, upload_queries.INTERRUPTED, _INTERRUPTED
        elif isinstance(error, TrancheError):
            state, code, detail = JobState.FAILED, error.code, error.detail
        else:
            state, code = JobState.FAILED, TrancheError.code
            detail = "An internal error occurred; it was logged."
        reason = outcomes_wire.as_json({"code": code, "detail": detail})
        try:
            async with self._database.connection() as connection:
                async with connection.transaction():
                    await upload_queries.give_up(connection, self._arrival, state, reason)
                await queries.remove_staged(connection, self._arrival.tenant_id, self._arrival.job_id)
        except (TrancheError, asyncpg.PostgresError) as failure:
            log.warning("upload_left", error=str(failure), request_id=self._upload.request_id)


def _exceeded(held: str, most: int, setting: str) -> QuotaExceeded:
    return QuotaExceeded(
        f"{held} are not processed yet, and {most} may be; wait for one of them to be applied, or cancel one (GET "
        f"/v1/jobs lists them). An operator may raise {PREFIX}{setting}.",
        retry_after=_QUOTA_SECONDS,
    )


def _pack(chunk: Chunk, grid: Grid | None) -> PackedChunk:
    ids = texts([read_ids(chunk.pieces)])
    rows = pack(encode_pieces(chunk.pieces, chunk.lines, grid))
    return PackedChunk(chunk.first_index, len(chunk.pieces), rows, ids.columns[0], ids.separator, ids.null)


async def _explain(connection: Connection, arrival: upload_queries.Arrival) -> TrancheError:
    """Why a body cannot be stored any further."""
    found = await upload_queries.read_state(connection, arrival.tenant_id, arrival.job_id)
    if found is None or found[0] == JobState.RECEIVING:
        return DatabaseUnavailable(
            "The database was restarted and lost a part of the body. Nothing of it was applied; send it again.",
            retry_after=1.0,
        )
    if found[1] == upload_queries.INTERRUPTED:
        return Overloaded(
            "The upload was abandoned because the server stopped responding; send it again.", retry_after=1.0
        )
    return JobCanceled()
