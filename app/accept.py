"""The use case: a batch comes in, and one transaction decides every item, or nothing happened.

The phases, each with its exits:

1. claim     the key is new → go on · answered → the same answer · running → `KeyBusy` · other body →
             `KeyReused` · too old → `KeyExpired`
2. read      bytes → items, each accepted or rejected · not a batch at all → `MalformedRequest`
3. write     upsert and ledger · a lock not had → every item `retry`
4. record    job, outcomes, deliveries, the answer under its key
5. commit    before it nothing happened, after it the key replays the bytes
"""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Callable, Sequence
from typing import Final

import asyncpg
import msgspec
import structlog
import zstandard

from app.db import imports
from app.db.pool import Connection, Database
from app.domain import answers, batch, envelope, rows
from app.domain.answers import ItemOutcome
from app.domain.outcomes import ErrorCode, ItemStatus, Result
from app.domain.rows import Accepted, FieldError, Rejected
from app.errors import KeyBusy, KeyExpired, KeyReused, MalformedRequest, TooLarge
from app.settings import Settings

log = structlog.get_logger()

TRANSACTION_TRIES: Final = 3
_BUSY_SECONDS: Final = 1.0


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a batch is to be taken."""

    atomic: bool = False
    last_wins: bool = False
    dry_run: bool = False
    minimal: bool = False
    wait: float = 0.0
    """Seconds for which the caller will hold the answer back to tell of effects."""


class Import(msgspec.Struct, frozen=True, kw_only=True):
    """A batch as it came in."""

    tenant_id: int
    key_id: str
    request_id: str
    route: str
    key: str
    body: bytes
    options: Options


class Accepted207(msgspec.Struct, frozen=True, kw_only=True):
    """A decided batch. `owed`: destinations were given deliveries, so a wake-up is worth while."""

    job_id: uuid.UUID
    body: bytes
    items: list[ItemOutcome]
    summary: answers.Summary
    effects: dict[str, str]
    owed: list[int]


class Replay(msgspec.Struct, frozen=True):
    """The first answer of this key, byte for byte."""

    status: int
    body: bytes


class _Undecided(msgspec.Struct, frozen=True):
    """Why no item could be decided this time."""

    code: ErrorCode
    detail: str


def fingerprint(body: bytes, options: Options) -> bytes:
    """Tells requests under one key apart: the body and whatever changes its effect."""
    digest = hashlib.sha256(body)
    digest.update(
        f"\0atomic={options.atomic}\0last_wins={options.last_wins}\0dry_run={options.dry_run}".encode()
    )
    return digest.digest()


async def accept(
    database: Database,
    request: Import,
    settings: Settings,
    *,
    new_id: Callable[[], uuid.UUID],
    random: Callable[[], float],
) -> Accepted207 | Replay:
    """Take a batch: one transaction, tried again when PostgreSQL chose it as a deadlock's victim.

    Raises:
        KeyBusy, KeyReused, KeyExpired: see the phases above.
        MalformedRequest, TooLarge: the body cannot be cut into items, or holds too many.
        DatabaseUnavailable, Overloaded: nothing happened.
    """
    mark = fingerprint(request.body, request.options)
    undecided: _Undecided | None = None
    async with database.connection() as connection:
        for attempt in range(1, TRANSACTION_TRIES + 2):
            try:
                async with connection.transaction():
                    replay = _answered(claim := await _claim(connection, request), mark)
                    if replay is not None:
                        return replay
                    return await _run(connection, request, settings, mark, claim, undecided, new_id, random)
            except (
                asyncpg.DeadlockDetectedError,
                asyncpg.SerializationError,
                asyncpg.UniqueViolationError,
            ) as error:
                # A unique violation is the key itself, that somebody else committed meanwhile.
                log.info(
                    "import_again", attempt=attempt, error=type(error).__name__, request_id=request.request_id
                )
                if attempt >= TRANSACTION_TRIES:
                    undecided = _Undecided(ErrorCode.LOCK_TIMEOUT, "other writers hold these contacts")
            except (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError) as error:
                log.warning("import_undecided", error=type(error).__name__, request_id=request.request_id)
                undecided = _Undecided(ErrorCode.LOCK_TIMEOUT, "other writers hold these contacts")
            except asyncpg.DataError as error:
                # Validation should let nothing through that PostgreSQL refuses; if it does, nobody is told "ok".
                log.error("import_data_error", error=str(error), request_id=request.request_id)
                undecided = _Undecided(
                    ErrorCode.INTERNAL, "the batch could not be stored; it was reported to the operators"
                )
    raise KeyBusy(retry_after=_BUSY_SECONDS)


async def _claim(connection: Connection, request: Import) -> imports.KeyClaim:
    claim = await imports.claim_key(connection, request.tenant_id, request.route, request.key)
    if claim.fingerprint is None and not claim.claimed:
        raise KeyBusy(retry_after=_BUSY_SECONDS)
    return claim


def _answered(claim: imports.KeyClaim, mark: bytes) -> Replay | None:
    if claim.fingerprint is None:
        return None
    if claim.expired or claim.answer is None:
        raise KeyExpired()
    if claim.fingerprint != mark:
        raise KeyReused()
    if claim.answering > 0:
        raise KeyBusy(retry_after=claim.answering)
    assert claim.status is not None
    return Replay(claim.status, unpack(claim.answer))


async def _run(
    connection: Connection,
    request: Import,
    settings: Settings,
    mark: bytes,
    claim: imports.KeyClaim,
    undecided: _Undecided | None,
    new_id: Callable[[], uuid.UUID],
    random: Callable[[], float],
) -> Accepted207:
    options = request.options
    job_id = new_id()
    items = read(request.body, options, settings)
    if undecided is None:
        await _write(connection, request.tenant_id, job_id, items, options)
    else:
        seconds = math.ceil(settings.db_lock_timeout * (1 + random()))
        items.postpone(undecided.code, seconds, undecided.detail)
    outcomes = items.outcomes
    summary = answers.summarize(outcomes)
    changed = [] if options.dry_run else items.changed()
    destinations = claim.destinations
    effects = {"db": "skipped" if options.dry_run else "ok"} | dict.fromkeys(
        destinations.values(), "pending" if changed else "skipped"
    )
    body = answers.compose(
        job_id, summary, effects, outcomes, minimal=options.minimal, dry_run=options.dry_run
    )
    await imports.insert_import(
        connection,
        imports.ImportRecord(
            tenant_id=request.tenant_id,
            job_id=job_id,
            state=answers.job_state(summary, owed=bool(changed and destinations)),
            request_id=request.request_id,
            key_id=request.key_id,
            options=answers.as_json(
                {"atomic": options.atomic, "last_wins": options.last_wins, "dry_run": options.dry_run}
            ),
            total=summary.total,
            succeeded=summary.succeeded,
            failed=summary.failed,
            retry=summary.retry,
            results=answers.as_json(answers.count_results(outcomes)),
            outcomes=pack(answers.encode_items(outcomes)),
            failures=answers.as_json(answers.cluster(outcomes)),
            destination_ids=list(destinations),
            contact_ids=[outcomes[i].id or "" for i in changed],
            versions=[int(outcomes[i].version or 0) for i in changed],
            indexes=changed,
            chunk_size=settings.chunk_size,
            route=request.route,
            key=request.key,
            fingerprint=mark,
            status=207,
            answer=pack(body),
            retention=settings.idempotency_retention,
            holding=options.wait or None,
        ),
    )
    return Accepted207(
        job_id=job_id,
        body=body,
        items=outcomes,
        summary=summary,
        effects=effects,
        owed=list(destinations) if changed else [],
    )


class Items:
    """The items of one batch on their way to outcomes."""

    def __init__(self, read_rows: Sequence[Accepted | Rejected], *, last_wins: bool) -> None:
        resolved = batch.resolve_duplicates(read_rows, last_wins=last_wins)
        self.applied: list[Accepted] = resolved.applied
        self._resolved = resolved
        self._read = read_rows
        self.outcomes: list[ItemOutcome] = []

    def abort(self) -> None:
        """One item failed under `atomic=true`: nothing was applied, and every other item says so."""
        decided = {}
        for outcome in self.outcomes:
            if outcome.status is ItemStatus.OK:
                outcome = answers.failed(outcome.index, outcome.id, [_ABORTED])
            decided[outcome.index] = outcome
        self.outcomes = [decided[i] for i in range(len(self._read))]

    def postpone(self, code: ErrorCode, seconds: int, detail: str) -> None:
        self.decide(
            {r.index: answers.retry(r.index, r.contact_id, code, seconds, detail) for r in self.applied}
        )

    def changed(self) -> list[int]:
        """Indexes of the items that made a new version, in item order."""
        return [
            o.index
            for o in self.outcomes
            if (o.result is Result.CREATED or o.result is Result.UPDATED) and o.duplicate_of is msgspec.UNSET
        ]

    def decide(self, decided: dict[int, ItemOutcome]) -> None:
        """Take the outcomes of the applied items, by index, and give the others what follows from them."""
        for row in self._resolved.rejected:
            decided[row.index] = answers.failed(row.index, row.contact_id, row.errors)
        for index, leader in self._resolved.followers.items():
            first = decided[leader]
            decided[index] = msgspec.structs.replace(first, index=index, duplicate_of=leader)
        for index, last in self._resolved.superseded.items():
            winner = decided[last]
            decided[index] = (
                ItemOutcome(index, winner.id, ItemStatus.OK, Result.SUPERSEDED, winner.version, last)
                if winner.status is ItemStatus.OK
                else msgspec.structs.replace(winner, index=index, duplicate_of=last)
            )
        self.outcomes = [decided[i] for i in range(len(self._read))]


_ABORTED: Final = FieldError(
    ErrorCode.ATOMIC_ABORTED, "", "another item of this batch failed and atomic=true, so nothing was applied"
)


def _conflict(row: Accepted, version: int) -> ItemOutcome:
    found = f"is at version {version}" if version else "does not exist"
    return answers.failed(
        row.index,
        row.contact_id,
        [
            FieldError(
                ErrorCode.VERSION_CONFLICT,
                "/if_version",
                f"the contact {found}, not at version {row.if_version}; read it again and decide anew",
            )
        ],
    )


def read(body: bytes, options: Options, settings: Settings) -> Items:
    """Bytes → items with duplicates resolved."""
    try:
        raws = envelope.split_json(body, max_items=settings.max_sync_items)
    except envelope.TooManyItems as error:
        raise TooLarge(
            f"A request holds at most {settings.max_sync_items} items; split the batch and send the parts."
        ) from error
    except envelope.MalformedBody as error:
        raise MalformedRequest(error.detail) from error
    return Items(rows.read_items(raws, max_item_bytes=settings.max_item_bytes), last_wins=options.last_wins)


class _MovedError(Exception):
    """A contact that was looked at without a lock is no longer at that version: start over."""


async def _write(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, items: Items, options: Options
) -> None:
    """Upsert what was accepted. A dry run, and an atomic batch with a failure, are undone to the savepoint."""
    if not (options.dry_run or options.atomic):
        items.decide(await _upsert(connection, tenant_id, job_id, items.applied))
        return
    savepoint = connection.transaction()
    await savepoint.start()
    items.decide(await _upsert(connection, tenant_id, job_id, items.applied))
    broken = options.atomic and any(o.status is not ItemStatus.OK for o in items.outcomes)
    if broken:
        items.abort()
    await (savepoint.rollback() if broken or options.dry_run else savepoint.commit())


async def _upsert(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, applied: Sequence[Accepted]
) -> dict[int, ItemOutcome]:
    """The outcome of each item, by index."""
    decided: dict[int, ItemOutcome] = {}
    special = [i for i in applied if i.if_version is not None or i.removes]
    peeked: dict[str, imports.Peek] = {}
    if special:
        peeked = await imports.peek_contacts(
            connection, tenant_id, [i.contact_id for i in special], [i.attributes for i in special]
        )
        for item in special:
            found = peeked[item.contact_id].version if item.contact_id in peeked else 0
            if item.if_version is not None and item.if_version != found:
                decided[item.index] = _conflict(item, found)
    left = [i for i in applied if i.index not in decided] if decided else applied
    if not left:
        return decided
    written = await imports.upsert_contacts(connection, tenant_id, job_id, _columns(left, peeked))
    for item in left:
        version = written.get(item.index)
        if version is not None:
            result = Result.CREATED if version == 1 else Result.UPDATED
            decided[item.index] = ItemOutcome(item.index, item.contact_id, ItemStatus.OK, result, version)
    if len(written) < len(left):
        await _leave(connection, tenant_id, [i for i in left if i.index not in written], decided)
    for item in special:
        _check_still(item, peeked.get(item.contact_id), decided[item.index], wrote=item.index in written)
    return decided


async def _leave(
    connection: Connection, tenant_id: int, items: Sequence[Accepted], decided: dict[int, ItemOutcome]
) -> None:
    """Items that changed nothing: the contact has all they say, or something newer."""
    standing = await imports.unwritten_contacts(connection, tenant_id, [i.contact_id for i in items])
    newer: dict[str, int] = {}
    for item in items:
        found = standing[item.contact_id]
        result = Result.UNCHANGED
        if item.source_version is not None:
            if found.source_version is None or item.source_version > found.source_version:
                newer[item.contact_id] = item.source_version
            elif item.source_version < found.source_version:
                result = Result.SUPERSEDED
        decided[item.index] = ItemOutcome(item.index, item.contact_id, ItemStatus.OK, result, found.version)
    if newer:
        await imports.touch_contacts(connection, tenant_id, newer)


def _check_still(item: Accepted, peek: imports.Peek | None, outcome: ItemOutcome, *, wrote: bool) -> None:
    """What was decided from an unlocked look holds only if nobody wrote in between."""
    if outcome.status is not ItemStatus.OK:
        return
    expected = (peek.version if peek else 0) + wrote
    if outcome.version != expected:
        raise _MovedError


_REPLACES: Final = 256
"""Added to the mask of an item whose attributes are not a patch (see upsert_contacts)."""


def _columns(items: Sequence[Accepted], peeked: dict[str, imports.Peek]) -> imports.Columns:
    masks = [i.mask for i in items]
    attributes = [i.attributes for i in items]
    for position, item in enumerate(items):
        if item.removes:
            masks[position] |= _REPLACES
            peek = peeked.get(item.contact_id)
            attributes[position] = peek.attributes if peek else _without_nulls(item.attributes)
        elif item.attributes is None and item.mask & rows.ATTRIBUTES:
            masks[position] |= _REPLACES
    return imports.Columns(
        contact_ids=[i.contact_id for i in items],
        masks=masks,
        emails=[i.email for i in items],
        first_names=[i.first_name for i in items],
        last_names=[i.last_name for i in items],
        phones=[i.phone for i in items],
        companies=[i.company for i in items],
        attributes=attributes,
        source_versions=[i.source_version for i in items],
        indexes=[i.index for i in items],
    )


def _without_nulls(patch: str | None) -> str:
    """What a patch leaves of nothing."""
    members: dict[str, object] = msgspec.json.decode(patch or "{}")
    return answers.as_json({key: value for key, value in members.items() if value is not None})


def pack(data: bytes) -> bytes:
    return zstandard.compress(data, 1)


def unpack(data: bytes) -> bytes:
    return zstandard.decompress(data)
