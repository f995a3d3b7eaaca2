"""The use case of dead letters: a human has them sent again, or says what became of them.

Retrying a job and replaying letters are one thing. In one transaction letters that are open are taken (`replayed`), a
job is made that names them, and destinations are owed their contacts again; so nothing is taken twice, whoever asks how
often. Sync is state-based: a contact is sent as it stands, once, however many of its letters are taken. One that fails
again leaves a new letter in the same chain.

A transaction takes at most `MOST` letters; the answer tells how many are left, and asking again takes them.

Order of locks, as in recordings: letters, what destinations hold, jobs. Deliveries that somebody holds are passed over.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import Final, Literal, TypeVar

import asyncpg
import msgspec
import structlog

from app.db import letters as rows
from app.db.letters import Attempt, ClusterRow, Condition, DestinationRow, LetterRow, Owed
from app.db.packing import pack
from app.db.pool import Connection, Database
from app.domain import answers
from app.domain.answers import ItemOutcome
from app.domain.outcomes import ErrorCode, ItemStatus, JobKind, JobState, Resolution, Result
from app.errors import Conflict, Invalid, JobNotRetryable, NotFound, NothingToRetry, Overloaded
from app.settings import Settings

log = structlog.get_logger()

MOST: Final = 10_000
"""Letters that one job takes, or one decision ends: a transaction of about a second."""
MOST_IDS: Final = 1_000
"""Letters that can be named one by one."""
REMOVED: Final = "destination_removed"
"""Why a letter is passed over, beside the words of `Resolution`."""
_TRIES: Final = 3
_UNDECIDED: Final = frozenset({JobState.RECEIVING, JobState.QUEUED, JobState.RUNNING})

T = TypeVar("T")


class Actor(msgspec.Struct, frozen=True):
    """Who decides."""

    tenant_id: int
    key_id: str
    request_id: str


class Filter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which open letters; what is left out does not matter."""

    destination: str | None = None
    error_code: ErrorCode | None = None
    state: Literal["failed", "dead"] | None = None
    job_id: uuid.UUID | None = None
    contact_id: str | None = None
    created_before: datetime | None = None


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Letters by id, or all open ones that a filter lets through."""

    ids: Sequence[int] | None = None
    wanted: Filter = Filter()


class Skipped(msgspec.Struct, frozen=True):
    """Letters that were asked for and left alone."""

    destination: str
    reason: str
    count: int


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What a retry or replay came to."""

    job_id: uuid.UUID | None
    """The job that sends; `None`: there is nothing to send."""
    kind: JobKind = JobKind.REPLAY
    state: JobState = JobState.SYNCING
    root_job_id: uuid.UUID | None = None
    taken: int = 0
    items: int = 0
    remaining: int = 0
    """Open letters that are left for the next time."""
    due: int = 0
    """Items that waited for their next attempt, and wait no more."""
    skipped: list[Skipped]
    jobs: list[uuid.UUID]
    """Every job that has letters of this selection, the new one last."""
    effects: dict[str, str]
    owed: list[int]
    """Destinations to wake workers for."""


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """Letters that came to their end by a human's word."""

    decided: int
    remaining: int
    skipped: list[Skipped]


class _Places:
    """The tenant's destinations by id and by name."""

    def __init__(self, found: Sequence[DestinationRow]) -> None:
        self._by_id = {place.destination_id: place for place in found}

    def name(self, destination_id: int) -> str:
        return self._by_id[destination_id].name

    def is_removed(self, destination_id: int) -> bool:
        return self._by_id[destination_id].removed

    def select(self, name: str | None, *, present: bool = False) -> list[int]:
        """All of this name, or all; `present`: only such as are not removed.

        Raises:
            NotFound: there is none of this name.
        """
        found = [
            place.destination_id
            for place in self._by_id.values()
            if name in (None, place.name) and not (present and place.removed)
        ]
        if name is not None and not found:
            known = sorted({p.name for p in self._by_id.values() if not p.removed})
            raise NotFound(
                f"There is no destination {name[:100]!r}; there are: {', '.join(known) or 'none'}."
            )
        return found


async def read_places(connection: Connection, tenant_id: int) -> _Places:
    return _Places(await rows.read_destinations(connection, tenant_id))


async def condition(connection: Connection, tenant_id: int, wanted: Filter) -> Condition:
    """
    Raises:
        NotFound: the filter names a destination or job that there is not.
    """
    places = await read_places(connection, tenant_id)
    if wanted.job_id is not None and await rows.read_job(connection, tenant_id, wanted.job_id) is None:
        raise NotFound("There is no such job.")
    return Condition(
        destination_ids=places.select(wanted.destination),
        job_id=wanted.job_id,
        error_code=wanted.error_code,
        state=wanted.state,
        contact_id=wanted.contact_id,
        created_before=wanted.created_before,
    )


async def retry(
    database: Database,
    actor: Actor,
    job_id: uuid.UUID,
    destinations: Sequence[str] | None,
    settings: Settings,
    *,
    new_id: Callable[[], uuid.UUID],
) -> Taken:
    """Send again what failed of a job and its retries, and what waits of it without waiting any longer.

    Where nothing is to be sent again but an attempt is under way, that one is the answer.

    Raises:
        NotFound: there is no such job, or no such destination.
        JobNotRetryable: items of it are still being decided.
        NothingToRetry: nothing of it failed or waits.
    """

    async def work(connection: Connection) -> Taken:
        tenant_id = actor.tenant_id
        job = await rows.read_job(connection, tenant_id, job_id)
        if job is None:
            raise NotFound("There is no such job.")
        if job.state in _UNDECIDED:
            raise JobNotRetryable()
        root = job.root_job_id if job.kind == JobKind.RETRY else job_id
        places = await read_places(connection, tenant_id)
        named = [places.select(name) for name in destinations] if destinations is not None else None
        chosen = sorted({i for ids in named for i in ids}) if named is not None else places.select(None)
        present = [i for i in chosen if not places.is_removed(i)]
        due = await rows.make_due(connection, tenant_id, root, present)
        wanted = Condition(destination_ids=present, job_id=root)
        locked, full = await _lock_chosen(connection, tenant_id, wanted)
        taken = await _send_again(
            connection, actor, JobKind.RETRY, root, locked, places, settings, settings.replay_rate, new_id
        )
        lost = [i for i in chosen if places.is_removed(i)]
        skipped = await _count_removed(
            connection, tenant_id, Condition(destination_ids=lost, job_id=root), places
        )
        if taken is None:
            return await _find_under_way(connection, tenant_id, root, present, due, skipped, places)
        await rows.note_decision(
            connection,
            tenant_id,
            actor=actor.key_id,
            action="jobs.retry",
            subjects=[
                (
                    f"job:{root}",
                    answers.as_json({"letters": taken.taken, "due": due, "retry_job_id": taken.job_id}),
                )
            ],
        )
        remaining = await _count(connection, tenant_id, wanted) if full else 0
        return msgspec.structs.replace(
            taken, due=due, remaining=remaining, skipped=skipped, owed=present if due else taken.owed
        )

    return await _decide(database, work)


async def _find_under_way(
    connection: Connection,
    tenant_id: int,
    root: uuid.UUID,
    destination_ids: Sequence[int],
    due: int,
    skipped: list[Skipped],
    places: _Places,
) -> Taken:
    """
    Raises:
        NothingToRetry: no attempt is under way either.
    """
    found = await rows.find_under_way(connection, tenant_id, root, destination_ids)
    if found is None:
        raise NothingToRetry(_tell_removed(skipped))
    return Taken(
        job_id=found.job_id,
        kind=JobKind(found.kind),
        state=JobState(found.state),
        root_job_id=found.root_job_id,
        due=due,
        skipped=skipped,
        jobs=[found.job_id],
        effects={places.name(i): "pending" for i in found.destination_ids},
        owed=list(destination_ids) if due else [],
    )


def _tell_removed(skipped: Sequence[Skipped]) -> str:
    names = ", ".join(sorted({s.destination for s in skipped}))
    return (
        f"What failed of this job was for destinations that are removed ({names}); nothing can be sent there."
        if names
        else ""
    )


async def replay(
    database: Database,
    actor: Actor,
    selection: Selection,
    settings: Settings,
    *,
    rate: float | None,
    new_id: Callable[[], uuid.UUID],
) -> Taken:
    """Send again what these letters tell of. Letters that somebody has taken already are left to whoever did.

    Raises:
        NotFound: a letter, destination or job that is named does not exist.
    """

    async def work(connection: Connection) -> Taken:
        tenant_id = actor.tenant_id
        places = await read_places(connection, tenant_id)
        locked, skipped, full, wanted = await _lock(connection, tenant_id, selection, places, replaying=True)
        pace = rate or settings.replay_rate
        found = await _send_again(
            connection, actor, JobKind.REPLAY, None, locked, places, settings, pace, new_id
        )
        known = await rows.read_letters(connection, tenant_id, selection.ids or ())
        earlier = {x.replay_job_id for x in known if x.replay_job_id is not None}
        if found is None:
            return Taken(job_id=None, skipped=skipped, jobs=sorted(earlier), effects={}, owed=[])
        await _note(
            connection, actor, "dead_letters.replay", selection, locked, places, {"job_id": found.job_id}
        )
        jobs = [*sorted(earlier - {found.job_id}), *([found.job_id] if found.job_id else [])]
        remaining = await _count(connection, tenant_id, wanted) if wanted and full else 0
        return msgspec.structs.replace(found, skipped=skipped, jobs=jobs, remaining=remaining)

    return await _decide(database, work)


async def drop(database: Database, actor: Actor, selection: Selection, reason: str) -> Decided:
    """A human says that these are not worth sending; their history stays.

    Raises:
        NotFound: a letter, destination or job that is named does not exist.
    """

    async def work(connection: Connection) -> Decided:
        places = await read_places(connection, actor.tenant_id)
        locked, skipped, full, wanted = await _lock(
            connection, actor.tenant_id, selection, places, replaying=False
        )
        await _end(connection, actor, locked, Resolution.DROPPED, reason)
        await _note(connection, actor, "dead_letters.drop", selection, locked, places, {"reason": reason})
        remaining = await _count(connection, actor.tenant_id, wanted) if wanted and full else 0
        return Decided(decided=len(locked), remaining=remaining, skipped=skipped)

    return await _decide(database, work)


async def settle(database: Database, actor: Actor, ids: Sequence[int], reason: str) -> Decided:
    """A human says that the destinations have what these letters are in doubt about.

    Raises:
        NotFound: there is no such letter.
        Conflict: one of them is in no doubt.
    """
    selection = Selection(ids=ids)

    async def work(connection: Connection) -> Decided:
        tenant_id = actor.tenant_id
        places = await read_places(connection, tenant_id)
        locked, skipped, _, _ = await _lock(connection, tenant_id, selection, places, replaying=False)
        certain = [x.dead_letter_id for x in locked if x.error_code != ErrorCode.OUTCOME_UNKNOWN]
        if certain:
            raise Conflict(
                f"Only letters with the code {ErrorCode.OUTCOME_UNKNOWN} can be settled; not so: {_show(certain)}. "
                "Nothing was changed; replay or drop those."
            )
        if locked:
            await rows.settle_syncs(connection, tenant_id, locked)
        await _end(connection, actor, locked, Resolution.DELIVERED, reason)
        await _note(connection, actor, "dead_letters.settle", selection, locked, places, {"reason": reason})
        return Decided(decided=len(locked), remaining=0, skipped=skipped)

    return await _decide(database, work)


async def preview(
    database: Database, tenant_id: int, selection: Selection
) -> tuple[list[ClusterRow], list[Skipped], _Places]:
    """What a replay would take, by destination and code, and what it would leave alone; nothing is changed.

    Raises:
        NotFound: a letter, destination or job that is named does not exist.
    """
    async with database.connection() as connection:
        places = await read_places(connection, tenant_id)
        if selection.ids is not None:
            found = await _read_all(connection, tenant_id, selection.ids)
            able, skipped = _part(found, places, replaying=True)
            return cluster(able), skipped, places
        wanted = await condition(connection, tenant_id, selection.wanted)
        present = [i for i in wanted.destination_ids if not places.is_removed(i)]
        clusters = await rows.read_clusters(
            connection, tenant_id, msgspec.structs.replace(wanted, destination_ids=present)
        )
        skipped = await _count_removed(connection, tenant_id, wanted, places)
        return clusters, skipped, places


def cluster(letters: Iterable[LetterRow]) -> list[ClusterRow]:
    """Letters counted as PostgreSQL counts them."""
    groups: dict[tuple[int, str], list[LetterRow]] = {}
    for letter in letters:
        groups.setdefault((letter.destination_id, letter.error_code), []).append(letter)
    found = [
        ClusterRow(
            destination_id=destination_id,
            error_code=code,
            count=len(group),
            failed=sum(x.state == "failed" for x in group),
            dead=sum(x.state == "dead" for x in group),
            oldest=min(x.created_at for x in group),
            newest=max(x.created_at for x in group),
            samples=sorted(x.dead_letter_id for x in group)[:5],
            detail=min(group, key=lambda x: x.dead_letter_id).error_detail,
        )
        for (destination_id, code), group in groups.items()
    ]
    return sorted(found, key=lambda c: (-c.count, c.destination_id, c.error_code))


# taking


async def _lock(
    connection: Connection, tenant_id: int, selection: Selection, places: _Places, *, replaying: bool
) -> tuple[list[LetterRow], list[Skipped], bool, Condition | None]:
    """Open letters of the selection, those that are left alone, whether there may be more, and the condition."""
    if selection.ids is not None:
        known = await _read_all(connection, tenant_id, selection.ids)
        able, skipped = _part(known, places, replaying=replaying)
        return await rows.lock(connection, tenant_id, [x.dead_letter_id for x in able]), skipped, False, None
    wanted = await condition(connection, tenant_id, selection.wanted)
    skipped = []
    if replaying:
        skipped = await _count_removed(connection, tenant_id, wanted, places)
        present = [i for i in wanted.destination_ids if not places.is_removed(i)]
        wanted = msgspec.structs.replace(wanted, destination_ids=present)
    locked, full = await _lock_chosen(connection, tenant_id, wanted)
    return locked, skipped, full, wanted


async def _lock_chosen(
    connection: Connection, tenant_id: int, wanted: Condition
) -> tuple[list[LetterRow], bool]:
    """At most `MOST` letters, and whether there may be more. Where others had the same idea, the next ones."""
    while True:
        ids = await rows.choose(connection, tenant_id, wanted, MOST)
        locked = await rows.lock(connection, tenant_id, ids) if ids else []
        if locked or len(ids) < MOST:
            return locked, len(ids) == MOST


async def _read_all(connection: Connection, tenant_id: int, ids: Sequence[int]) -> list[LetterRow]:
    found = await rows.read_letters(connection, tenant_id, ids)
    missing = sorted(set(ids) - {x.dead_letter_id for x in found})
    if missing:
        raise NotFound(f"There is no dead letter {_show(missing)}; nothing was changed.")
    return found


def _part(
    letters: Sequence[LetterRow], places: _Places, *, replaying: bool
) -> tuple[list[LetterRow], list[Skipped]]:
    """Letters that can be decided about, and why the others cannot."""
    able: list[LetterRow] = []
    left: Counter[tuple[str, str]] = Counter()
    for letter in letters:
        if letter.resolution is not None:
            left[(places.name(letter.destination_id), letter.resolution)] += 1
        elif replaying and places.is_removed(letter.destination_id):
            left[(places.name(letter.destination_id), REMOVED)] += 1
        else:
            able.append(letter)
    return able, [Skipped(name, reason, count) for (name, reason), count in sorted(left.items())]


async def _count_removed(
    connection: Connection, tenant_id: int, wanted: Condition, places: _Places
) -> list[Skipped]:
    """Open letters at destinations that nothing can be sent to any more."""
    removed = [i for i in wanted.destination_ids if places.is_removed(i)]
    if not removed:
        return []
    clusters = await rows.read_clusters(
        connection, tenant_id, msgspec.structs.replace(wanted, destination_ids=removed)
    )
    counts: Counter[str] = Counter()
    for found in clusters:
        counts[places.name(found.destination_id)] += found.count
    return [Skipped(name, REMOVED, count) for name, count in sorted(counts.items())]


async def _count(connection: Connection, tenant_id: int, wanted: Condition) -> int:
    return sum(found.count for found in await rows.read_clusters(connection, tenant_id, wanted))


async def _send_again(
    connection: Connection,
    actor: Actor,
    kind: JobKind,
    root: uuid.UUID | None,
    locked: Sequence[LetterRow],
    places: _Places,
    settings: Settings,
    rate: float,
    new_id: Callable[[], uuid.UUID],
) -> Taken | None:
    """Make the job that answers for these letters; `None`: there are none."""
    if not locked:
        return None
    job_id = new_id()
    # One item a contact: it is sent as it stands, and no delivery may name it twice.
    newest: dict[int, dict[str, LetterRow]] = {}
    for letter in locked:
        at = newest.setdefault(letter.destination_id, {})
        if letter.contact_id not in at or at[letter.contact_id].version <= letter.version:
            at[letter.contact_id] = letter
    contacts = sorted({letter.contact_id for letter in locked})
    index = {contact_id: position for position, contact_id in enumerate(contacts)}
    attempt = Attempt(
        tenant_id=actor.tenant_id,
        job_id=job_id,
        kind=kind,
        root_job_id=root or job_id,
        request_id=actor.request_id,
        key_id=actor.key_id,
        total=len(contacts),
        owed={destination_id: len(at) for destination_id, at in sorted(newest.items())},
    )
    await rows.insert_attempt(connection, attempt)
    await _book(connection, attempt, contacts, newest, settings)
    for destination_id, at in sorted(newest.items()):
        letters = [at[contact_id] for contact_id in contacts if contact_id in at]
        await rows.insert_deliveries(
            connection,
            attempt,
            Owed(
                destination_id=destination_id,
                contact_ids=[x.contact_id for x in letters],
                versions=[x.version for x in letters],
                indexes=[index[x.contact_id] for x in letters],
                letters=[x.dead_letter_id for x in letters],
                cuts=await _pace(connection, actor.tenant_id, destination_id, len(letters), settings, rate),
            ),
        )
    await _end(connection, actor, locked, Resolution.REPLAYED, None, job_id)
    log.info(
        "letters_taken",
        tenant_id=actor.tenant_id,
        job_id=str(job_id),
        kind=kind.value,
        letters=len(locked),
        key_id=actor.key_id,
    )
    return Taken(
        job_id=job_id,
        kind=kind,
        root_job_id=attempt.root_job_id,
        taken=len(locked),
        items=len(contacts),
        skipped=[],
        jobs=[job_id],
        effects={places.name(destination_id): "pending" for destination_id in attempt.owed},
        owed=list(attempt.owed),
    )


async def _book(
    connection: Connection,
    attempt: Attempt,
    contacts: Sequence[str],
    newest: dict[int, dict[str, LetterRow]],
    settings: Settings,
) -> None:
    """The items of the job: nothing changes here, they are only sent again."""
    versions: dict[str, int] = {}
    for at in newest.values():
        for contact_id, letter in at.items():
            versions[contact_id] = max(versions.get(contact_id, 0), letter.version)
    size = settings.import_chunk_items
    for first in range(0, len(contacts), size):
        outcomes = [
            ItemOutcome(first + n, contact_id, ItemStatus.OK, Result.UNCHANGED, versions[contact_id])
            for n, contact_id in enumerate(contacts[first : first + size])
        ]
        await rows.insert_chunk(
            connection, attempt, first, len(outcomes), pack(answers.encode_items(outcomes))
        )


async def _pace(
    connection: Connection, tenant_id: int, destination_id: int, count: int, settings: Settings, rate: float
) -> list[tuple[int, int, float]]:
    """Where to cut a destination's items, and when each part is due: `rate` items a second.

    What is more than one delivery waits for what was paced before; a single one does not wait behind a thousand.
    """
    size = settings.chunk_size
    start = await rows.paced_until(connection, tenant_id, destination_id) if count > size else 0.0
    return [(first + 1, min(first + size, count), start + first / rate) for first in range(0, count, size)]


async def _end(
    connection: Connection,
    actor: Actor,
    locked: Sequence[LetterRow],
    resolution: Resolution,
    note: str | None,
    job_id: uuid.UUID | None = None,
) -> None:
    if not locked:
        return
    await rows.resolve(
        connection,
        actor.tenant_id,
        [x.dead_letter_id for x in locked],
        resolution=resolution,
        actor=actor.key_id,
        note=note,
        job_id=job_id,
    )
    touched = {x.root_job_id for x in locked} | {x.job_id for x in locked}
    await rows.touch_roots(connection, actor.tenant_id, sorted(touched))


async def _note(
    connection: Connection,
    actor: Actor,
    action: str,
    selection: Selection,
    locked: Sequence[LetterRow],
    places: _Places,
    detail: dict[str, object],
) -> None:
    """Into the audit log: a row for each letter that was named, else one for each destination."""
    if selection.ids is not None:
        subjects = [(f"dead_letter:{x.dead_letter_id}", answers.as_json(detail)) for x in locked]
    else:
        counts = Counter(places.name(x.destination_id) for x in locked)
        asked = {k: v for k, v in msgspec.to_builtins(selection.wanted).items() if v is not None}
        subjects = [
            (f"destination:{name}", answers.as_json(detail | {"count": count, "filter": asked}))
            for name, count in sorted(counts.items())
        ]
    if subjects:
        await rows.note_decision(
            connection, actor.tenant_id, actor=actor.key_id, action=action, subjects=subjects
        )


async def _decide(database: Database, work: Callable[[Connection], Awaitable[T]]) -> T:
    """One transaction, tried again when PostgreSQL chose it as a deadlock's victim."""
    async with database.connection() as connection:
        for _ in range(_TRIES):
            try:
                async with connection.transaction():
                    return await work(connection)
            except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError) as error:
                log.info("letters_again", error=type(error).__name__)
    raise Overloaded(retry_after=1.0)


def _show(ids: Sequence[int]) -> str:
    shown = ", ".join(str(i) for i in ids[:10])
    return shown if len(ids) <= 10 else f"{shown} and {len(ids) - 10} more"


def check_reason(reason: str) -> str:
    """
    Raises:
        Invalid: it says nothing, or too much.
    """
    found = reason.strip()
    if not found or len(found) > 1_000 or "\0" in found:
        raise Invalid("A reason of 1 to 1000 characters is needed: the audit log keeps it.")
    return found
