"""The use case of dead letters: an operator replays, drops or settles them.

Retrying a job and replaying dead letters are one thing. In one transaction open dead letters are claimed
(`replayed`), a job is created that names them, and deliveries are written for their records; so none is
claimed twice, however often it is requested. Sync is state-based: a record is sent in its current version,
once, however many of its dead letters are claimed. One that fails again leaves a new dead letter in the same chain.

A transaction claims at most `selection.MOST` dead letters; the answer says how many are left for the next request.

Order of locks, as in recordings: dead letters, sync states, jobs. Deliveries that somebody holds are passed over.
"""

import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec

from app.dead_letters import queries as rows
from app.dead_letters import views
from app.dead_letters.queries import DeadLetterRow, Filter, JobRow
from app.dead_letters.replay import NothingTaken, Taken, resolve, send_again
from app.dead_letters.selection import MOST, Actor, Selection, Skipped, Wanted, cluster, select, show
from app.dead_letters.shapes import PreviewAnswer
from app.dead_letters.undo_replay import MOST as MOST_CONFLICTS
from app.dead_letters.undo_replay import restore_again
from app.errors import Conflict, Invalid, JobNotRetryable, NotFound, NothingToRetry, Overloaded
from app.kit.postgres.database import Connection, Database
from app.kit.postgres.transactions import COLLIDED, retried
from app.resource_types.catalog import Catalog
from app.settings import Settings
from app.undo import queries
from app.vocabulary.states import (
    UNDECIDED_JOB_STATES,
    DeadLetterKind,
    EffectState,
    ErrorCode,
    JobKind,
    JobState,
    Resolution,
)

T = TypeVar("T")


class DecisionAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Dead letters that were resolved; `remaining` are open and left for the next request."""

    decided: int
    remaining: int
    skipped: list[Skipped]


async def retry(
    database: Database,
    actor: Actor,
    job_id: uuid.UUID,
    destinations: Sequence[str] | None,
    settings: Settings,
    *,
    new_id: Callable[[], uuid.UUID],
) -> Taken:
    """Retry the failed items of a job and its retries, and what waits of it without waiting any longer.

    Where nothing is to be sent again but an attempt is under way, that one is the answer. A job that takes something
    back, and failed at it, goes on where it ended; it is its own retry.

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
        if job.kind == JobKind.UNDO and (taken := await _go_on(connection, actor, job_id, job)):
            return taken
        if job.state in UNDECIDED_JOB_STATES:
            raise JobNotRetryable()
        root = job.root_job_id if job.kind == JobKind.RETRY else job_id
        selection = await select(connection, tenant_id)
        named = [selection.find_places(name) for name in destinations] if destinations is not None else None
        chosen = sorted({i for ids in named for i in ids}) if named is not None else selection.find_places(None)
        present = selection.present(chosen)
        due = await rows.make_due(connection, tenant_id, root, present)
        wanted = Filter(job_id=root)
        locked, full = await selection.lock_chosen(wanted, present)
        taken = await send_again(
            connection, actor, JobKind.RETRY, root, locked, selection, settings, settings.replay_rate, new_id
        )
        skipped = await selection.count_removed(wanted, chosen)
        if taken is None:
            return await _find_running_retry(connection, tenant_id, root, present, due, skipped, selection)
        await rows.note_decision(
            connection,
            tenant_id,
            actor=actor.key_id,
            action="jobs.retry",
            subjects={f"job:{root}": {"dead_letters": taken.taken, "due": due, "retry_job_id": taken.job_id}},
        )
        remaining = await selection.count(wanted, present if full else ())
        return msgspec.structs.replace(
            taken, due=due, remaining=remaining, skipped=skipped, to_notify=present if due else taken.to_notify
        )

    return await _decide(database, work)


async def _go_on(connection: Connection, actor: Actor, job_id: uuid.UUID, job: JobRow) -> Taken | None:
    """`None`: every item that it takes back is decided."""
    resumed = await queries.resume_undo(connection, actor.tenant_id, job_id, actor=actor.key_id)
    if not resumed and job.state not in UNDECIDED_JOB_STATES:
        return None
    return Taken(
        job_id=job_id,
        kind=JobKind.UNDO,
        state=JobState.RUNNING,
        root_job_id=job.root_job_id,
        jobs=[job_id],
        to_notify=[],
    )


async def _find_running_retry(
    connection: Connection,
    tenant_id: int,
    root: uuid.UUID,
    destination_ids: Sequence[int],
    due: int,
    skipped: list[Skipped],
    selection: Selection,
) -> Taken:
    """Raises `NothingToRetry`: no attempt is under way either."""
    found = await rows.find_running_retry(connection, tenant_id, root, destination_ids)
    if found is None:
        names = ", ".join(sorted({s.destination or "" for s in skipped}))
        why = f"The failed items of this job were for removed destinations ({names}); nothing can be sent there."
        raise NothingToRetry(why if names else "")
    return Taken(
        job_id=found.job_id,
        kind=JobKind(found.kind),
        state=JobState(found.state),
        root_job_id=found.root_job_id,
        due=due,
        skipped=skipped,
        jobs=[found.job_id],
        effects={selection.name(i): EffectState.PENDING for i in found.destination_ids},
        to_notify=list(destination_ids) if due else [],
    )


async def replay(
    database: Database,
    actor: Actor,
    wanted: Wanted,
    settings: Settings,
    *,
    rate: float | None,
    catalog: Catalog,
    new_id: Callable[[], uuid.UUID],
) -> Taken | NothingTaken:
    """Send the items of these dead letters again, or restore their records. Those claimed already are left alone.

    Raises:
        NotFound: a dead letter, destination or job that is named does not exist.
        Invalid: the dead letters that are named are of deliveries and of undos.
    """

    async def work(connection: Connection) -> Taken | NothingTaken:
        tenant_id = actor.tenant_id
        selection = await select(connection, tenant_id)
        locked, skipped, left = await selection.lock(wanted, replaying=True)
        if {x.kind for x in locked} == {*DeadLetterKind}:
            raise Invalid("These dead letters are of deliveries and of undos: replay them in two requests.")
        undone = bool(locked) and locked[0].kind is DeadLetterKind.UNDO
        if undone:
            found, locked, more = await restore_again(connection, actor, locked, selection, catalog, settings, new_id)
            skipped = skipped + more
        else:
            pace = rate or settings.replay_rate
            found = await send_again(connection, actor, JobKind.REPLAY, None, locked, selection, settings, pace, new_id)
        known = await rows.read_dead_letters(connection, tenant_id, () if isinstance(wanted, Filter) else wanted)
        earlier = {x.replay_job_id for x in known if x.replay_job_id is not None}
        if found is None:
            return NothingTaken(skipped=skipped, jobs=sorted(earlier))
        await _note(connection, actor, "dead_letters.replay", wanted, locked, selection, {"job_id": found.job_id})
        jobs = [*sorted(earlier - {found.job_id}), found.job_id]
        if undone:
            still_open = sum(x.resolution is None for x in known) or await selection.count(wanted, [None])
            remaining = max(0, still_open - sum(one.count for one in more))
        else:
            remaining = await selection.count(wanted, left)
        return msgspec.structs.replace(found, skipped=skipped, jobs=jobs, remaining=remaining)

    return await _decide(database, work)


async def drop(database: Database, actor: Actor, wanted: Wanted, reason: str) -> DecisionAnswer:
    """An operator states that these are not worth sending; their history remains.
    Raises `NotFound`: a dead letter, destination or job that is named does not exist."""

    async def work(connection: Connection) -> DecisionAnswer:
        selection = await select(connection, actor.tenant_id)
        locked, skipped, left = await selection.lock(wanted, replaying=False)
        await resolve(connection, actor, locked, Resolution.DROPPED, reason)
        await _note(connection, actor, "dead_letters.drop", wanted, locked, selection, {"reason": reason})
        remaining = await selection.count(wanted, left)
        return DecisionAnswer(decided=len(locked), remaining=remaining, skipped=skipped)

    return await _decide(database, work)


async def settle(database: Database, actor: Actor, ids: Sequence[int], reason: str) -> DecisionAnswer:
    """An operator states that the destinations have the items of these dead letters.

    Raises:
        NotFound: there is no such dead letter.
        Conflict: one of them is in no doubt.
    """

    async def work(connection: Connection) -> DecisionAnswer:
        tenant_id = actor.tenant_id
        selection = await select(connection, tenant_id)
        locked, skipped, _ = await selection.lock(ids, replaying=False)
        certain = [x.dead_letter_id for x in locked if x.error_code != ErrorCode.OUTCOME_UNKNOWN]
        if certain:
            raise Conflict(
                f"Only dead letters with the code {ErrorCode.OUTCOME_UNKNOWN} can be settled; not so: {show(certain)}. "
                "Nothing was changed; replay or drop those."
            )
        if locked:
            await rows.settle_syncs(connection, tenant_id, locked, actor=actor.key_id)
        await resolve(connection, actor, locked, Resolution.DELIVERED, reason)
        await _note(connection, actor, "dead_letters.settle", ids, locked, selection, {"reason": reason})
        return DecisionAnswer(decided=len(locked), remaining=0, skipped=skipped)

    return await _decide(database, work)


async def preview(database: Database, tenant_id: int, wanted: Wanted) -> PreviewAnswer:
    """What a replay would take, by destination and code, and what it would leave alone; nothing is changed.
    Raises `NotFound`: a dead letter, destination or job that is named does not exist."""
    async with database.connection() as connection:
        selection = await select(connection, tenant_id)
        if not isinstance(wanted, Filter):
            able, skipped = await selection.part(wanted, replaying=True)
            found = cluster(able)
        else:
            meant = await selection.find_meant(wanted)
            found = await selection.clusters(wanted, selection.present(meant))
            skipped = await selection.count_removed(wanted, meant)
    clusters = [views.describe_cluster(row, selection.name_place(row.destination_id)) for row in found]
    undone = any(row.destination_id is None for row in found)
    most = MOST_CONFLICTS if undone else MOST
    return PreviewAnswer(sum(cluster.count for cluster in clusters), most, clusters, skipped)


async def _note(
    connection: Connection,
    actor: Actor,
    action: str,
    wanted: Wanted,
    locked: Sequence[DeadLetterRow],
    selection: Selection,
    detail: dict[str, object],
) -> None:
    """Writes the audit log: a row for each dead letter that was named, otherwise one for each destination or undo."""
    if not isinstance(wanted, Filter):
        subjects = {f"dead_letter:{x.dead_letter_id}": detail for x in locked}
    else:
        counts = Counter(
            f"job:{x.job_id}" if x.destination_id is None else f"destination:{selection.name(x.destination_id)}"
            for x in locked
        )
        asked = {k: v for k, v in msgspec.to_builtins(wanted).items() if v is not None}
        if wanted.kind is DeadLetterKind.DELIVERY:
            del asked["kind"]
        subjects = {subject: detail | {"count": count, "filter": asked} for subject, count in sorted(counts.items())}
    if subjects:
        await rows.note_decision(connection, actor.tenant_id, actor=actor.key_id, action=action, subjects=subjects)


async def _decide(database: Database, work: Callable[[Connection], Awaitable[T]]) -> T:
    """Raises `Overloaded`: others were in the way of this transaction, however often it was tried."""

    async def transaction() -> T:
        async with connection.transaction():
            return await work(connection)

    async with database.connection() as connection:
        try:
            return await retried(transaction)
        except COLLIDED as error:
            raise Overloaded(retry_after=1.0) from error


def check_reason(reason: str) -> str:
    """Raises `Invalid`: it says nothing, or too much."""
    found = reason.strip()
    if not found or len(found) > 1_000 or "\0" in found:
        raise Invalid("A reason of 1 to 1000 characters is needed: the audit log keeps it.")
    return found
