"""Writes the many records of one delivery by a job of the CRM's own, and goes on with it whoever began it.

The job's id is kept before it is started, so that no worker that comes later needs to guess what became of it: one that
was not started is aborted, one that runs is waited for, and one that has ended says whom it wrote. Whoever it did not
write is sent as usual.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from app.deliveries import queries
from app.kit.postgres.database import Database
from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.port import BulkJob, BulkState, BulkWriter, Headers, SentRecord
from jobs.delivery.attempt_calls import AttemptCalls

_RUNNING: Final = BulkState.RUNNING
_LONGEST: Final = 300.0
"""Seconds that one attempt waits for a job."""
_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 20.0
"""Seconds between two looks at a job that runs; each is half as long again as the one before."""


class BulkWrites:
    """Of one attempt."""

    def __init__(self, calls: AttemptCalls, database: Database, *, budget: float) -> None:
        """`budget`: seconds that a delivery has."""
        self._calls = calls
        self._budget = budget
        self._claim, self._items = calls.claim, calls.items
        self._database = database
        self._writer: BulkWriter | None = calls.crm.bulk
        self.running = False
        """A job of the delivery may be writing: nothing else may be done with its items."""

    async def resume(self) -> None:
        """Go on with the job that an earlier attempt has left."""
        task, writer = self._claim.task, self._writer
        if task is None:
            return
        self.running = True
        late = self._claim.age >= self._budget
        job = None if writer is None else await self._ask(lambda headers: writer.look(task, headers))
        if writer is not None and job is not None and (job.state is BulkState.OPEN or (late and job.state is _RUNNING)):
            # Whoever began it was stopped before it was started, or before it knew that it was; or it takes too long.
            job = await self._ask(lambda headers: writer.abort(task, headers))
        if writer is None or job is None or job.state not in (_RUNNING, BulkState.ENDED, BulkState.GONE):
            if late:
                await self._forget()  # nobody can say what became of it, and others wait
            return
        if job.state is BulkState.GONE:
            await self._forget()  # its records are read back
            return
        await self._finish(writer, task, self._open(), resumed=True)

    async def write(self, records: Sequence[SentRecord]) -> bool:
        """Those of these records that a job takes, if they are enough for one; false: no job was asked for."""
        writer = self._writer
        if writer is None or writer.least is None or len(records) < writer.least:
            return False
        taken = [record for record in records if writer.takes(record)]
        if len(taken) < writer.least:
            return False
        made = await self._ask(lambda headers: writer.create(taken, headers))
        if made is None or made.task is None:
            return True  # the usual calls meet the same trouble, or do without
        task = made.task
        if not await self._note(task):
            self.running = True
            return True
        for position in self._items.positions(taken):
            words = f"it is written by the bulk job {task}, whose end is not known"
            self._items.settle(position, EffectState.UNKNOWN, code=ErrorCode.OUTCOME_UNKNOWN, detail=words)
        self.running = True
        started = await self._calls.bulk(lambda headers: writer.start(task, headers), taken)
        if started is not None and started.state is BulkState.RUNNING:
            await self._finish(writer, task, taken)
        return True

    async def _finish(self, writer: BulkWriter, task: str, records: list[SentRecord], *, resumed: bool = False) -> None:
        pause, until = _PAUSE, time.monotonic() + _LONGEST
        while True:
            job = await self._ask(lambda headers: writer.look(task, headers))
            if job is None or job.state is None:
                return
            if job.state is not BulkState.RUNNING:
                break
            if time.monotonic() >= until or not await self._calls.pause(pause):
                return  # another attempt goes on with it, within the time that a delivery has
            pause = min(pause * 1.5, _LONGEST_PAUSE)
        if job.state is BulkState.ENDED:
            job = await self._ask(lambda headers: writer.results(task, records, headers))
            if job is None:
                return
            if job.state is None:
                if job.pause is None:
                    await self._forget()  # they are read back, like any whose answer was lost
                return
            for record, position in zip(records, self._items.positions(records), strict=True):
                # A job that an earlier attempt began has not written what the record became since.
                older = resumed and self._items.sync_state(position).tried_version < record.version
                outcome = None if older else job.outcomes.get(record.record_id)
                if outcome is not None:
                    self._items.apply(record, outcome, "")
                else:
                    self._items.retract(position)
        await self._forget()

    def _open(self) -> list[SentRecord]:
        items, ids = self._items, self._claim.record_ids
        return [items.record(p) for p in items.within(EffectState.UNKNOWN) if ids[p] in items.sync_states]

    async def _ask(self, ask: Callable[[Headers], Awaitable[BulkJob]]) -> BulkJob | None:
        """A call that writes nothing."""
        return await self._calls.bulk(ask, None)

    async def _note(self, task: str | None) -> bool:
        async with self._database.connection() as connection:
            return await queries.note_task(connection, self._claim, task)

    async def _forget(self) -> None:
        self.running = not await self._note(None)
