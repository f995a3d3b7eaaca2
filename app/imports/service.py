"""The use case: a batch comes in, and one transaction decides every item, or nothing happened.

The phases, each with its exits:

1. cut       bytes → pieces, in steps between which others have their turn · more items than are answered at once →
             None: they are staged (`app.imports.upload`) · not a batch at all → as 2 says of the key, else
             `MalformedRequest` · no token for any item → as 2 says of the key, else `RateLimited`
2. claim     the key is new → go on · answered → the same answer · running → `KeyBusy` · other body →
             `KeyReused` · too old → `KeyExpired` · the type was declared anew since it was seen here → 1 again
3. write     pieces → items, each accepted or rejected; upsert and history · too much to explain → they are read without
             a transaction, then 2 again · a lock not had → every item `retry`
4. record    job, outcomes, deliveries, the answer under its key
5. commit    before it nothing happened, after it the key replays the bytes

No connection is held while a body is cut, and 2 to 5 are one transaction.
"""

import asyncio
import hashlib
import math
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import asyncpg
import msgspec
import structlog
from msgspec.structs import replace

from app.destinations.kinds import reach_of
from app.errors import (
    InvalidHeader,
    KeyBusy,
    KeyExpired,
    KeyReused,
    MalformedRequest,
    Overloaded,
    RateLimited,
    TooLarge,
)
from app.files.csv_columns import HeaderError
from app.files.csv_mapping import names_of
from app.files.json_document import MalformedBody
from app.files.readers import Contents, Family, Form, read_by_steps, read_quickly
from app.imports import queries, upload_queries, upsert
from app.imports.batch.items import BROKEN, LOCKED, Items, Undecided
from app.imports.outbox import book
from app.kit.compression import pack, unpack
from app.kit.postgres.database import Connection, Database
from app.kit.postgres.transactions import COLLIDED, HELD, retried
from app.limits.limiter import Budget
from app.resource_types.catalog import Catalog
from app.resources.declaration import Resource
from app.resources.decoding import Effort, Laborious, Piece, read_ids
from app.sagas.consistency import promise
from app.settings import Settings
from app.tracing import context, spans
from app.tracing.context import TraceContext
from app.tracing.spans import Kind
from app.vocabulary import outcomes_wire
from app.vocabulary.outcomes_wire import ItemOutcome, JobOptions
from app.vocabulary.states import Consistency, EffectState, ErrorCode

log = structlog.get_logger()

_MET: Final = (*COLLIDED, asyncpg.UniqueViolationError)
"""A unique violation is the key itself, that somebody else committed meanwhile."""
_MOST_EFFORT: Final = 262_144
"""Bytes of items that may be read thoroughly within the transaction: some tens of milliseconds."""
_BUSY_SECONDS: Final = 1.0
_RECEIVING_SECONDS: Final = 5.0
"""A body that is arriving may be complete, or abandoned, much sooner than its lease says."""


class Options(JobOptions, frozen=True, kw_only=True):
    """How a batch is to be taken."""

    minimal: bool = False
    wait: float = 0.0
    """Seconds for which the caller delays the answer to include effects."""

    @property
    def consistent(self) -> bool:
        """Whether what one destination refuses is to be taken back everywhere."""
        return self.consistency is Consistency.ALL_DESTINATIONS and not self.dry_run


class ImportRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request to import a batch, but for its body."""

    tenant_id: int
    key_id: str
    request_id: str
    trace: TraceContext | None = None
    resource: Resource
    """The type of its items, as it was last seen here."""
    route: str
    key: str
    options: Options
    form: Form = Form()


class Accepted207(msgspec.Struct, frozen=True, kw_only=True):
    """A decided batch. `to_notify`: destinations for which deliveries were written."""

    job_id: uuid.UUID
    body: bytes
    shown: bytes
    """The items of the answer, encoded."""
    summary: outcomes_wire.Summary
    counts: dict[tuple[str, str], int]
    """Items by status and error code."""
    effects: dict[str, EffectState]
    to_notify: list[int]


class Replay(msgspec.Struct, frozen=True):
    """The first answer of this key, byte for byte."""

    status: int
    body: bytes


def fingerprint(body: bytes, options: Options, form: Form) -> bytes:
    """Distinguishes requests under one key: the body, its format, and every option that changes its effect."""
    return seal(hashlib.sha256(body), options, form)


def seal(body: "hashlib._Hash", options: Options, form: Form) -> bytes:
    """The fingerprint of a request whose body went into this SHA-256 piece by piece; the digest is used up."""
    body.update(f"\0atomic={options.atomic}\0last_wins={options.last_wins}\0dry_run={options.dry_run}".encode())
    if options.consistency is not Consistency.NONE:
        body.update(f"\0consistency={options.consistency}".encode())
    if form.family is not Family.JSON:
        body.update(b"\0" + msgspec.json.encode(form, order="sorted"))
    return body.digest()


class Outdated(Exception):
    """The tenant has declared the type anew since it was seen here."""


async def renew_type(database: Database, catalog: Catalog, request: ImportRequest) -> ImportRequest:
    """The same request with its type as it is now."""
    async with database.connection() as connection:
        resource = await catalog.find(connection, request.tenant_id, request.resource.name)
    return replace(request, resource=resource)


async def accept(
    database: Database,
    request: ImportRequest,
    body: bytes,
    settings: Settings,
    *,
    catalog: Catalog,
    new_id: Callable[[], uuid.UUID],
    random: Callable[[], float],
    budget: Budget | None = None,
    rows: bytes | None = None,
) -> Accepted207 | Replay | None:
    """Take a batch: one transaction, tried again when PostgreSQL chose it as a deadlock's victim.

    None: it holds more than `max_sync_items`, so it is to be staged; nothing happened. Items that `budget` has no
    tokens for are `retry`; without one, nothing is limited. `rows`: of a workbook, what
    `app.imports.workbooks` made of it.

    Raises:
        KeyBusy, KeyReused, KeyExpired: see the phases above.
        MalformedRequest, InvalidHeader: the body cannot be cut into items.
        RateLimited: there is no token for any item, or with `atomic` not for all; nothing happened.
        TooLarge: there never are for so many at once.
        DatabaseUnavailable, Overloaded: nothing happened.
    """
    mark = fingerprint(body, request.options, request.form)
    while True:
        try:
            try:
                contents = await _cut(body if rows is None else rows, request, settings.max_sync_items)
            except (MalformedRequest, InvalidHeader):
                # A key that is in use says so, whatever is wrong with this body.
                if replay := await _look_up(database, request, mark):
                    return replay
                raise
            if contents is None:
                return None
            try:
                later = await _admit(contents.pieces, request.options, budget)
            except (RateLimited, TooLarge):
                if replay := await _look_up(database, request, mark):
                    return replay
                raise
            effort = Effort(_MOST_EFFORT)
            acceptance = _Acceptance(
                database, request, len(body), contents, mark, settings, new_id, random, effort, later
            )
            batch = spans.messaging("accept", "send", len(contents.pieces))
            with spans.span("accept import", Kind.PRODUCER, request.trace, batch):
                return await _within(budget, acceptance.run())
        except Outdated:
            request = await renew_type(database, catalog, request)


async def look_up(database: Database, request: ImportRequest, body: bytes) -> Replay | None:
    """The answer that is stored under the key. Raises as phase 2 of `accept`."""
    return await _look_up(database, request, fingerprint(body, request.options, request.form))


async def _look_up(database: Database, request: ImportRequest, mark: bytes) -> Replay | None:
    """The answer that is stored under the key. Raises as phase 2."""
    async with database.connection() as connection, connection.transaction():
        claim = await claim_key(connection, request)
        if replay := answered(claim, mark):
            return replay
        check_type(claim, request)
    return None


async def _admit(pieces: Sequence[Piece], options: Options, budget: Budget | None) -> dict[int, ItemOutcome]:
    """Take tokens for the items, in their order; returns the outcomes of those that there are none for.

    Items of one id stay together, so that what they mean together does not depend on where the tokens end.

    Raises:
        RateLimited, TooLarge: see `accept`.
    """
    total = len(pieces)
    if budget is None or (taken := await budget.take(total, whole=options.atomic)) == total:
        return {}
    if not taken:
        raise budget.refusal(total, whole=options.atomic)
    ids = read_ids(pieces)
    seconds = {index: budget.seconds(index - taken + 1) for index in range(taken, total)}
    last = {ids[index]: seconds[index] for index in seconds if ids[index] is not None}
    moved = {index: last[ids[index]] for index in range(taken) if ids[index] in last}
    if len(moved) == taken:
        moved = {}  # else a bucket that is smaller than such a group would never let it through
    await budget.refund(len(moved))
    code, detail = ErrorCode.RATE_LIMIT, budget.describe()
    return {
        index: outcomes_wire.retry(index, ids[index], code, last.get(ids[index], at), detail)
        for index, at in (moved | seconds).items()
    }


async def _within(budget: Budget | None, work: Awaitable[Accepted207 | Replay]) -> Accepted207 | Replay:
    """The work's result; where nothing was done, what was taken for it is given back."""
    if budget is None:
        return await work
    try:
        done = await work
    except Exception:
        await budget.refund()
        raise
    if isinstance(done, Replay):
        await budget.refund()
    return done


class _Acceptance(msgspec.Struct, frozen=True):
    """A batch that is cut into items, and the one transaction that takes it."""

    database: Database
    request: ImportRequest
    size: int
    contents: Contents
    fingerprint: bytes
    settings: Settings
    new_id: Callable[[], uuid.UUID]
    random: Callable[[], float]
    effort: Effort
    later: Mapping[int, ItemOutcome]
    """Outcomes of items that there are no tokens for."""

    async def run(self) -> Accepted207 | Replay:
        while True:
            try:
                return await self._decide()
            except Laborious:  # the items must be examined first; nothing happened
                for _ in self._collect().examine():
                    await asyncio.sleep(0)

    async def _decide(self) -> Accepted207 | Replay:
        undecided: Undecided | None = None
        request_id = self.request.request_id

        async def transaction() -> Accepted207 | Replay:
            async with connection.transaction():
                claim = await claim_key(connection, self.request)
                if replay := answered(claim, self.fingerprint):
                    return replay
                check_type(claim, self.request)
                return await self._take(connection, claim, undecided)

        async with self.database.connection() as connection:
            for _ in range(2):  # if the items cannot be decided, at least that is recorded
                try:
                    return await retried(transaction, on=_MET)
                except (*_MET, *HELD) as error:
                    log.warning("import_undecided", error=type(error).__name__, request_id=request_id)
                    undecided = LOCKED
                except asyncpg.DataError as error:
                    # Validation should let nothing through that PostgreSQL refuses; if it does, nobody is told "ok".
                    log.error("import_data_error", error=error, request_id=request_id)
                    undecided = BROKEN
        raise Overloaded(retry_after=self.settings.db_lock_timeout)

    def _collect(self) -> Items:
        return Items(
            self.request.resource,
            self.contents.pieces,
            last_wins=self.request.options.last_wins,
            max_item_bytes=self.settings.max_item_bytes,
            effort=self.effort,
            lines=self.contents.lines,
            grid=self.contents.grid,
            later=self.later,
        )

    async def _take(self, connection: Connection, claim: queries.KeyClaim, undecided: Undecided | None) -> Accepted207:
        request, settings, items = self.request, self.settings, self._collect()
        options = request.options
        job_id = self.new_id()
        if undecided is None:
            await upsert.write(
                connection, request.tenant_id, job_id, items, atomic=options.atomic, dry_run=options.dry_run
            )
        else:
            seconds = math.ceil(settings.db_lock_timeout * (1 + self.random()))
            items.postpone(undecided, seconds)
        destinations = claim.destinations
        booked = await book(
            connection,
            request.tenant_id,
            request.resource.type_id,
            job_id,
            request.request_id,
            items.outcomes,
            items.pieces,
            items.versions,
            destination_ids=list(destinations),
            chunk_size=settings.chunk_size,
            dry_run=options.dry_run,
        )
        summary = booked.summary
        effects = {"db": _database_effect(options, summary)} | dict.fromkeys(
            destinations.values(), EffectState.PENDING if booked.has_deliveries else EffectState.SKIPPED
        )
        shown = outcomes_wire.encode_items(outcomes_wire.not_ok(items.outcomes)) if options.minimal else booked.encoded
        body = outcomes_wire.compose(job_id, summary, effects, shown, dry_run=options.dry_run)
        await queries.insert_import(
            connection,
            queries.ImportRecord(
                tenant_id=request.tenant_id,
                job_id=job_id,
                type=request.resource.name,
                pending=booked.has_deliveries,
                request_id=request.request_id,
                trace_context=context.keep(request.trace),
                key_id=request.key_id,
                options=encode_options(options),
                results=outcomes_wire.as_json(booked.results),
                body_bytes=self.size,
                form=outcomes_wire.as_json(self.contents.kept),
                route=request.route,
                key=request.key,
                fingerprint=self.fingerprint,
                status=207,
                answer=pack(body),
                retention=settings.idempotency_retention,
                holding=options.wait or None,
            ),
            summary,
        )
        if options.consistent and booked.has_deliveries:
            await promise(connection, request.tenant_id, job_id, key_id=request.key_id)
        return Accepted207(
            job_id=job_id,
            body=body,
            shown=shown,
            summary=summary,
            counts=booked.counts,
            effects=effects,
            to_notify=list(destinations) if booked.has_deliveries else [],
        )


async def claim_key(connection: Connection, request: ImportRequest) -> queries.KeyClaim:
    """The stored request of this key; if there is none, this transaction may store one.

    An upload under this key whose heartbeat is lost is abandoned here, so that the key is free.

    Raises:
        KeyBusy: another request runs under this key, or its body is still arriving.
    """
    reach = reach_of(request.resource)
    claim = await queries.claim_key(connection, request.tenant_id, request.route, request.key, reach)
    if claim.fingerprint is not None:
        return claim
    if not claim.claimed:
        raise KeyBusy(retry_after=_BUSY_SECONDS)
    if claim.answering > 0 or (
        claim.job_id is not None
        and not await upload_queries.abandon(connection, request.tenant_id, claim.job_id, request.route, request.key)
    ):
        raise KeyBusy(retry_after=min(max(claim.answering, _BUSY_SECONDS), _RECEIVING_SECONDS))
    return claim


def check_type(claim: queries.KeyClaim, request: ImportRequest) -> None:
    """Raises `Outdated`: see there."""
    if claim.type_version != request.resource.version:
        raise Outdated


def answered(claim: queries.KeyClaim, mark: bytes) -> Replay | None:
    """The answer that is stored under the key; None: there is none yet.
    Raises `KeyExpired`, `KeyReused`, `KeyBusy`: see the phases above."""
    if claim.fingerprint is None:
        return None
    check_kept(claim)
    if claim.fingerprint != mark:
        raise KeyReused()
    if claim.answering > 0:
        raise KeyBusy(retry_after=claim.answering)
    assert claim.status is not None
    assert claim.answer is not None
    return Replay(claim.status, unpack(claim.answer))


def check_kept(claim: queries.KeyClaim) -> None:
    """Raises `KeyExpired`: the answer is no longer kept."""
    if claim.fingerprint is not None and (claim.expired or claim.answer is None):
        raise KeyExpired()


def _database_effect(options: Options, summary: outcomes_wire.Summary) -> EffectState:
    """`skipped`: nothing was written, because nothing was to be or because `atomic` took it all back."""
    aborted = options.atomic and summary.succeeded < summary.total
    return EffectState.SKIPPED if options.dry_run or aborted else EffectState.OK


def encode_options(options: Options) -> str:
    """What of the options a job keeps, as JSON."""
    kept = {name: getattr(options, name) for name in JobOptions.__struct_fields__}
    return outcomes_wire.as_json(JobOptions(**kept))


async def _cut(body: bytes, request: ImportRequest, max_items: int) -> Contents | None:
    """The body in pieces, cut in steps between which others have their turn. None: it has more than `max_items`.
    Raises `MalformedRequest`, `InvalidHeader`: it cannot be cut."""
    if contents := read_quickly(body, request.form, max_items=max_items):
        return contents
    steps = read_by_steps(body, request.form, names_of(request.resource), max_items=max_items)
    try:
        while True:
            try:
                next(steps)
            except StopIteration as end:
                cut: Contents | None = end.value
                return cut
            await asyncio.sleep(0)
    except MalformedBody as error:
        raise MalformedRequest(error.detail) from error
    except HeaderError as error:
        raise InvalidHeader(error.detail) from error
