"""The replay of dead letters of undos: restores records although somebody changed them since (`app.undo.replay`)."""

import uuid
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from app.dead_letters.queries import DeadLetterRow
from app.dead_letters.replay import Taken, resolve
from app.dead_letters.selection import BEING_ERASED, Actor, Selection, Skipped
from app.kit.postgres.database import Connection
from app.resource_types.catalog import Catalog
from app.settings import Settings
from app.undo import conflict_queries
from app.undo.conflicts import Conflict
from app.undo.replay import Replayable, replay
from app.undo.restore import RANGE
from app.vocabulary.states import EffectState, JobKind, Resolution

log = structlog.get_logger()

MOST: Final = RANGE
"""Dead letters that one job takes: its items are decided in one transaction."""


async def restore_again(
    connection: Connection,
    actor: Actor,
    locked: Sequence[DeadLetterRow],
    selection: Selection,
    catalog: Catalog,
    settings: Settings,
    new_id: Callable[[], uuid.UUID],
) -> tuple[Taken | None, list[DeadLetterRow], list[Skipped]]:
    """Create and do the job that takes back the items of these dead letters, as far as they are of one undone job.

    Returns it (`None`: all of them are left alone), those that it took, and those left alone. Those of other undone
    jobs are left for the next request.
    """
    able, erased = await _part(connection, actor.tenant_id, locked)
    skipped = [Skipped(None, BEING_ERASED, erased)] if erased else []
    if not able:
        return None, [], skipped
    first = able[0]
    of = _conflict(first).job_id
    # A record is restored once, to what it held before the earliest item of the job.
    chosen: dict[str, DeadLetterRow] = {}
    for dead_letter in able:
        if _conflict(dead_letter).job_id == of and len(chosen) < MOST:
            chosen.setdefault(dead_letter.record_id, dead_letter)
    taken = list(chosen.values())
    done = await replay(
        connection,
        actor.tenant_id,
        await catalog.by_id(connection, actor.tenant_id, first.type_id),
        first.root_job_id,
        [Replayable(one.record_id, one.version, _conflict(one)) for one in taken],
        settings,
        key_id=actor.key_id,
        request_id=actor.request_id,
        trace=actor.trace,
        new_id=new_id,
    )
    await resolve(connection, actor, taken, Resolution.REPLAYED, None, done.job_id)
    log.info(
        "conflicts_taken",
        tenant_id=actor.tenant_id,
        job_id=str(done.job_id),
        dead_letters=len(taken),
        restored=len(done.restored.restored),
        key_id=actor.key_id,
    )
    to_notify = done.restored.to_notify
    return (
        Taken(
            job_id=done.job_id,
            kind=JobKind.UNDO,
            state=done.state,
            root_job_id=first.root_job_id,
            taken=len(taken),
            items=len(taken),
            jobs=[done.job_id],
            effects={selection.name(destination_id): EffectState.PENDING for destination_id in to_notify},
            to_notify=to_notify,
        ),
        taken,
        skipped,
    )


async def _part(
    connection: Connection, tenant_id: int, locked: Sequence[DeadLetterRow]
) -> tuple[list[DeadLetterRow], int]:
    """Those that can be taken, and how many name a record that is being erased: that must not bring it back."""
    by_type: dict[str, list[str]] = {}
    for dead_letter in locked:
        by_type.setdefault(dead_letter.type, []).append(dead_letter.record_id)
    erased = {
        (type, record_id)
        for type, ids in by_type.items()
        for record_id in await conflict_queries.being_erased(connection, tenant_id, type, ids)
    }
    able = [one for one in locked if (one.type, one.record_id) not in erased]
    return able, len(locked) - len(able)


def _conflict(dead_letter: DeadLetterRow) -> Conflict:
    assert dead_letter.conflict is not None
    return dead_letter.conflict
