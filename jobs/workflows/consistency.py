"""`consistency=all_destinations`: what one destination finally refuses is taken back here and at the others.

1. settle     wait until every destination has said its last word about every item of the import
2. take_back  items that ended failed or dead somewhere get back what stood before, by an undo job of their own; its
              deliveries are what compensates at the other destinations
3. deliver    wait until those have it
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence

import msgspec

from app.consistency import WORKFLOW
from app.db import audit, undoing
from app.db.undoing import NewUndo, Refused, UndoRow
from app.domain.saga import Again, Answer, Done, Failed
from app.restoring import RANGE, Restored
from app.settings import Settings
from jobs.saga import Step, Turn, leave
from jobs.workflows import taking_back
from jobs.workflows.taking_back import Tally


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What its sagas remember. `job`: the job that takes items back, once there is one."""

    job: uuid.UUID | None = None
    tally: Tally = Tally()

    @classmethod
    def of(cls, turn: Turn) -> Memory:
        return msgspec.convert(turn.data, cls)

    def keep(self) -> dict[str, object]:
        kept: dict[str, object] = msgspec.to_builtins(self)
        return kept


class Consistency:
    """The subject of its sagas is the import."""

    name = WORKFLOW

    def __init__(
        self,
        settings: Settings,
        serve: Callable[[int, int], None],
        *,
        new_id: Callable[[], uuid.UUID],
    ) -> None:
        self._settings = settings
        self._serve = serve
        self._new_id = new_id

    @property
    def steps(self) -> Sequence[Step]:
        return (
            Step("settle", self._settle, self._give_up),
            Step("take_back", self._take_back, self._give_up),
            Step("deliver", self._deliver, leave),
        )

    async def _settle(self, turn: Turn) -> Answer:
        if await undoing.is_unsettled(turn.connection, turn.tenant_id, turn.saga.subject):
            return taking_back.patience(turn, self._settings)
        return Done()

    async def _take_back(self, turn: Turn) -> Answer:
        memory = Memory.of(turn)
        tally, imported = memory.tally, turn.saga.subject
        high = await undoing.last_refused(turn.connection, turn.tenant_id, imported, before=tally.before)
        if high is None:
            if memory.job is not None:
                await taking_back.end(turn, memory.job)
            return Done(told=tally.tell() | ({"undo_job": str(memory.job)} if memory.job else {}))
        low = max(0, high - RANGE + 1)
        refused = await undoing.read_refused(turn.connection, turn.tenant_id, imported, low, high)
        if await undoing.is_unsettled(turn.connection, turn.tenant_id, imported):
            # Since the last look somebody had letters sent again that are not among these: what comes of it is open.
            return taking_back.patience(turn, self._settings)
        changes = await undoing.read_changes_of(
            turn.connection, turn.tenant_id, imported, [item.item_index for item in refused]
        )
        if not changes:
            return Again(Memory(job=memory.job, tally=msgspec.structs.replace(tally, before=low)).keep())
        job = await self._find_job(turn, memory.job)
        if job is None:
            return Failed("there is no such import")
        await undoing.grow_undo(turn.connection, turn.tenant_id, job.job_id, len(changes))
        found = await taking_back.take_back(
            turn, self._settings, self._serve, job, changes, of=imported, first_index=tally.done
        )
        ids = {change.item_index: change.contact_id for change in changes}
        await self._drop_letters(turn, job, refused, ids, found)
        return Again(Memory(job=job.job_id, tally=tally.add(found, before=low)).keep())

    async def _find_job(self, turn: Turn, job_id: uuid.UUID | None) -> UndoRow | None:
        """The job that takes items back; the first range that needs one makes it."""
        if job_id is not None:
            return await undoing.read_undo(turn.connection, turn.tenant_id, job_id)
        imported = await undoing.read_undo(turn.connection, turn.tenant_id, turn.saga.subject)
        if imported is None:
            return None
        new = NewUndo(
            tenant_id=turn.tenant_id,
            job_id=self._new_id(),
            root_job_id=imported.root_job_id,
            undo_of=None,
            request_id=imported.request_id,
            key_id=imported.key_id,
            items=0,
        )
        await undoing.insert_undo(turn.connection, new)
        return await undoing.read_undo(turn.connection, turn.tenant_id, new.job_id)

    async def _drop_letters(
        self, turn: Turn, job: UndoRow, refused: Sequence[Refused], ids: dict[int, str], found: Restored
    ) -> None:
        """A replay of what was taken back would bring it back. Of what was changed since, the letters stay."""
        taken = {*found.restored, *found.unchanged}
        letters = [letter for item in refused if ids.get(item.item_index) in taken for letter in item.letters]
        note = f"taken back by job {job.job_id}, because the import asked for consistency=all_destinations"
        await undoing.drop_letters(turn.connection, turn.tenant_id, letters, by=audit.SYSTEM, note=note)

    async def _deliver(self, turn: Turn) -> Answer:
        job_id = Memory.of(turn).job
        return Done() if job_id is None else await taking_back.deliver(turn, self._settings, job_id)

    async def _give_up(self, turn: Turn) -> Answer:
        """The import shows the job that failed, also where it was not begun yet: nobody else would tell."""
        memory = Memory.of(turn)
        job = await self._find_job(turn, memory.job)
        if job is None:
            return Done()
        await taking_back.fail(turn, job.job_id)
        return Done(Memory(job=job.job_id, tally=memory.tally).keep())
