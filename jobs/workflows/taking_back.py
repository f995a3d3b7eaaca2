"""What workflows share that take contacts back: a range of items a turn, then the wait for the destinations."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from app.db import processing, undoing
from app.db.undoing import END, Change, UndoRow
from app.domain import answers
from app.domain.outcomes import ErrorCode
from app.domain.saga import Answer, Done, Wait
from app.restoring import Restoration, Restored, restore
from app.settings import Settings
from jobs.saga import Turn

_LONGEST_WAIT: Final = 30.0
_SHARE: Final = 0.1
"""Of the time that a saga has waited already, until it looks again."""


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """How far a saga has come: what it remembers of it. `before`: the items from this one on are done."""

    before: int = END
    done: int = 0
    restored: int = 0
    unchanged: int = 0
    conflicts: int = 0

    def add(self, found: Restored, *, before: int) -> Tally:
        restored, unchanged, conflicts = (len(c) for c in (found.restored, found.unchanged, found.conflicts))
        return Tally(
            before=before,
            done=self.done + restored + unchanged + conflicts,
            restored=self.restored + restored,
            unchanged=self.unchanged + unchanged,
            conflicts=self.conflicts + conflicts,
        )

    def tell(self) -> dict[str, Any]:
        return {
            "restored": self.restored,
            "already_taken_back": self.unchanged,
            "changed_since": self.conflicts,
        }


def patience(turn: Turn, settings: Settings) -> Wait:
    """A saga that has waited for long can wait a little longer: a thousand of them must not ask every second."""
    return Wait(min(max(settings.saga_interval, _SHARE * turn.saga.age), _LONGEST_WAIT))


async def take_back(
    turn: Turn,
    settings: Settings,
    serve: Callable[[int, int], None],
    job: UndoRow,
    changes: Sequence[Change],
    *,
    of: uuid.UUID,
    first_index: int,
) -> Restored:
    """A range of items, and their destinations are told once it is committed."""
    tenant_id = turn.tenant_id
    restoration = Restoration(
        tenant_id=tenant_id,
        job_id=job.job_id,
        request_id=job.request_id,
        of=of,
        chunk_size=settings.chunk_size,
    )
    found = await restore(turn.connection, restoration, changes, first_index=first_index)
    if found.owed:

        def wake() -> None:
            for destination_id in found.owed:
                serve(tenant_id, destination_id)

        turn.then(wake)
    return found


async def end(turn: Turn, job_id: uuid.UUID) -> None:
    """Every item of the job is decided; what is left is the destinations'."""
    if await processing.lock_undo(turn.connection, turn.tenant_id, job_id):
        await processing.end_import(turn.connection, turn.tenant_id, job_id)


async def deliver(turn: Turn, settings: Settings, job_id: uuid.UUID) -> Answer:
    """Wait until no effect of the job is open; what a destination refused has its dead letters."""
    job = await undoing.read_undo(turn.connection, turn.tenant_id, job_id)
    if job is None or job.finished:
        return Done(told={"state": job.state} if job else {})
    return patience(turn, settings)


async def fail(turn: Turn, job_id: uuid.UUID) -> None:
    """It cannot be taken back to the end. What was, stays: restoring it once more could lose what came since."""
    error = answers.as_json(
        {
            "code": ErrorCode.INTERNAL,
            "detail": "Taking back failed again and again; the workers' log says why. What was taken back stays so; "
            "progress.not_processed tells how many items were not. Retry this job, and it goes on where it ended.",
        }
    )
    await processing.fail_import(turn.connection, turn.tenant_id, job_id, error)
