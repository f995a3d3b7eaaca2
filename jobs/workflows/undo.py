"""Undo: every contact that a job changed gets back what stood before, unless somebody changed it since.

1. restore   newest first, a range of items a transaction
2. deliver   wait until the destinations have it, or gave up
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from app.db import undoing
from app.domain.saga import Again, Answer, Done, Failed
from app.restoring import RANGE
from app.settings import Settings
from app.undoing import WORKFLOW
from jobs.saga import Step, Turn, leave
from jobs.workflows import taking_back
from jobs.workflows.taking_back import Tally


class Undo:
    """The subject of its sagas is the undo job."""

    name = WORKFLOW

    def __init__(self, settings: Settings, serve: Callable[[int, int], None]) -> None:
        self._settings = settings
        self._serve = serve

    @property
    def steps(self) -> Sequence[Step]:
        return (
            Step("restore", self._restore, self._give_up),
            Step("deliver", self._deliver, leave),
        )

    async def _restore(self, turn: Turn) -> Answer:
        tally = msgspec.convert(turn.data, Tally)
        job = await undoing.read_undo(turn.connection, turn.tenant_id, turn.saga.subject)
        if job is None or job.undo_of is None:
            return Failed("there is no such undo job")
        changes = await undoing.read_changes(
            turn.connection, turn.tenant_id, job.undo_of, before=tally.before, limit=RANGE
        )
        if changes:
            found = await taking_back.take_back(
                turn, self._settings, self._serve, job, changes, of=job.undo_of, first_index=tally.done
            )
            tally = tally.add(found, before=changes[-1].item_index)
            if len(changes) == RANGE:
                return Again(msgspec.structs.asdict(tally))
        await taking_back.end(turn, job.job_id)
        return Done(msgspec.structs.asdict(tally), told=tally.tell())

    async def _deliver(self, turn: Turn) -> Answer:
        return await taking_back.deliver(turn, self._settings, turn.saga.subject)

    async def _give_up(self, turn: Turn) -> Answer:
        await taking_back.fail(turn, turn.saga.subject)
        return Done()
