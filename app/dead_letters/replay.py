"""The job that sends dead letters again: its deliveries, and how fast they become due."""

import math
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import msgspec
import structlog

from app.dead_letters import queries as rows
from app.dead_letters.queries import Attempt, DeadLetterRow, NewDeliveries
from app.dead_letters.selection import Actor, Selection, Skipped
from app.kit.compression import pack
from app.kit.postgres.database import Connection
from app.settings import Settings
from app.tracing import context
from app.vocabulary import outcomes_wire
from app.vocabulary.outcomes_wire import ItemOutcome
from app.vocabulary.states import EffectState, ItemStatus, JobKind, JobState, Resolution, Result

log = structlog.get_logger()


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """The job that a retry or replay came to; see `AttemptAnswer`."""

    job_id: uuid.UUID
    kind: JobKind = JobKind.REPLAY
    state: JobState = JobState.SYNCING
    root_job_id: uuid.UUID
    taken: int = 0
    items: int = 0
    due: int = 0
    remaining: int = 0
    skipped: list[Skipped] = []
    effects: dict[str, EffectState] = {}
    jobs: list[uuid.UUID]
    """Every job that has dead letters of this selection, the new one last."""
    to_notify: list[int]
    """Destinations to wake workers for."""


class NothingTaken(msgspec.Struct, kw_only=True):
    """No dead letter of the selection is open: nothing was changed; `jobs` have replayed them before."""

    job_id: None = None
    taken: int = 0
    remaining: int = 0
    skipped: list[Skipped]
    jobs: list[uuid.UUID]


async def send_again(
    connection: Connection,
    actor: Actor,
    kind: JobKind,
    root: uuid.UUID | None,
    locked: Sequence[DeadLetterRow],
    selection: Selection,
    settings: Settings,
    rate: float,
    new_id: Callable[[], uuid.UUID],
) -> Taken | None:
    """Create the job that sends these dead letters; `None`: there are none."""
    if not locked:
        return None
    job_id = new_id()
    # One item a record: it is sent as it stands, and no delivery may name it twice. Records of one type follow one
    # another, so that deliveries do not overlap.
    newest: dict[tuple[int, int], dict[tuple[int, str], DeadLetterRow]] = {}
    for dead_letter in locked:
        assert dead_letter.destination_id is not None, "an undo's dead letters are replayed otherwise"
        at = newest.setdefault((dead_letter.destination_id, dead_letter.type_id), {})
        if dead_letter.record not in at or at[dead_letter.record].version <= dead_letter.version:
            at[dead_letter.record] = dead_letter
    records = sorted({dead_letter.record for dead_letter in locked})
    index = {record: position for position, record in enumerate(records)}
    types = {dead_letter.type for dead_letter in locked}
    to_notify: Counter[int] = Counter()
    for (destination_id, _), at in sorted(newest.items()):
        to_notify[destination_id] += len(at)
    attempt = Attempt(
        tenant_id=actor.tenant_id,
        job_id=job_id,
        kind=kind,
        type=types.pop() if len(types) == 1 else None,
        root_job_id=root or job_id,
        request_id=actor.request_id,
        trace_context=context.keep(actor.trace),
        key_id=actor.key_id,
        total=len(records),
        to_notify=dict(to_notify),
    )
    await rows.insert_attempt(connection, attempt)
    await _book(connection, attempt, records, newest.values(), settings)
    for (destination_id, type_id), at in sorted(newest.items()):
        dead_letters = [at[record] for record in records if record in at]
        await rows.insert_deliveries(
            connection,
            attempt,
            NewDeliveries(
                destination_id=destination_id,
                type_id=type_id,
                record_ids=[x.record_id for x in dead_letters],
                versions=[x.version for x in dead_letters],
                indexes=[index[x.record] for x in dead_letters],
                dead_letters=[x.dead_letter_id for x in dead_letters],
                cuts=await _pace(connection, actor.tenant_id, destination_id, len(dead_letters), settings, rate),
            ),
        )
    await resolve(connection, actor, locked, Resolution.REPLAYED, None, job_id)
    log.info(
        "dead_letters_taken",
        tenant_id=actor.tenant_id,
        job_id=str(job_id),
        kind=kind.value,
        dead_letters=len(locked),
        key_id=actor.key_id,
    )
    return Taken(
        job_id=job_id,
        kind=kind,
        root_job_id=attempt.root_job_id,
        taken=len(locked),
        items=len(records),
        jobs=[job_id],
        effects={selection.name(destination_id): EffectState.PENDING for destination_id in attempt.to_notify},
        to_notify=list(attempt.to_notify),
    )


async def resolve(
    connection: Connection,
    actor: Actor,
    locked: Sequence[DeadLetterRow],
    resolution: Resolution,
    note: str | None,
    job_id: uuid.UUID | None = None,
) -> None:
    """End dead letters that the caller's transaction holds, and let their jobs show it."""
    if not locked:
        return
    ids = [x.dead_letter_id for x in locked]
    await rows.resolve(
        connection, actor.tenant_id, ids, resolution=resolution, actor=actor.key_id, note=note, job_id=job_id
    )
    touched = {x.root_job_id for x in locked} | {x.job_id for x in locked}
    await rows.touch_roots(connection, actor.tenant_id, sorted(touched))


async def _book(
    connection: Connection,
    attempt: Attempt,
    records: Sequence[tuple[int, str]],
    newest: Iterable[dict[tuple[int, str], DeadLetterRow]],
    settings: Settings,
) -> None:
    """The items of the job: nothing changes here, they are only sent again."""
    versions: dict[tuple[int, str], int] = {}
    for at in newest:
        for record, dead_letter in at.items():
            versions[record] = max(versions.get(record, 0), dead_letter.version)
    size = settings.import_chunk_items
    for first in range(0, len(records), size):
        outcomes = [
            ItemOutcome(first + n, record[1], ItemStatus.OK, Result.UNCHANGED, versions[record])
            for n, record in enumerate(records[first : first + size])
        ]
        await rows.insert_chunk(connection, attempt, first, len(outcomes), pack(outcomes_wire.encode_items(outcomes)))


async def _pace(
    connection: Connection, tenant_id: int, destination_id: int, count: int, settings: Settings, rate: float
) -> list[tuple[int, int, float]]:
    """Where to cut a destination's items, and when each part is due: `rate` items a second.

    What is more than one delivery waits for what was paced before; a single one does not wait behind a thousand.
    """
    size = min(settings.chunk_size, max(1, math.ceil(rate)))  # at the most a second's worth goes at once
    start = await rows.paced_until(connection, tenant_id, destination_id) if count > size else 0.0
    return [(first + 1, min(first + size, count), start + first / rate) for first in range(0, count, size)]
