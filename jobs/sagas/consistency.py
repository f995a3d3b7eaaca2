"""`consistency=all_destinations`: what one destination refuses for good is undone here and at the others.

1. settle     wait until every effect of the import is settled
2. take_back  items that ended failed or dead somewhere are restored by an undo job of their own; its deliveries
              compensate at the other destinations
3. deliver    wait until those have it
"""

import uuid
from collections.abc import Sequence
from typing import Final, Self

import msgspec
from uuid_utils.compat import uuid7

from app.audit.queries import SYSTEM
from app.sagas.consistency import WORKFLOW
from app.sagas.rules import Answer, Continue, Done, Failed
from app.undo import queries as undo_queries
from app.undo.queries import NewUndo, Refused, UndoRow
from app.undo.restore import RANGE, Restored
from jobs.sagas import compensation
from jobs.sagas.compensation import Tally
from jobs.sagas.runner import Step, StepContext, Workflow, no_compensation


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What its sagas remember. `job`: the undo job, once there is one."""

    job: uuid.UUID | None = None
    tally: Tally = Tally()

    @classmethod
    def of(cls, context: StepContext) -> Self:
        return msgspec.convert(context.data, cls)

    def keep(self) -> dict[str, object]:
        kept: dict[str, object] = msgspec.to_builtins(self)
        return kept


async def _settle(context: StepContext) -> Answer:
    if await undo_queries.is_unsettled(context.connection, context.tenant_id, context.saga.subject):
        return compensation.wait_longer(context)
    return Done()


async def _take_back(context: StepContext) -> Answer:
    memory = Memory.of(context)
    tally, imported = memory.tally, context.saga.subject
    high = await undo_queries.last_refused(context.connection, context.tenant_id, imported, before=tally.before)
    if high is None:
        if memory.job is not None:
            await compensation.end(context, memory.job)
        return Done(audit_detail=tally.audit_detail() | ({"undo_job": str(memory.job)} if memory.job else {}))
    low = max(0, high - RANGE + 1)
    refused = await undo_queries.read_refused(context.connection, context.tenant_id, imported, low, high)
    if await undo_queries.is_unsettled(context.connection, context.tenant_id, imported):
        # Somebody has replayed dead letters since that are not among these: their result is open.
        return compensation.wait_longer(context)
    changes = await undo_queries.read_changes_of(
        context.connection, context.tenant_id, imported, [item.item_index for item in refused]
    )
    if not changes:
        return Continue(Memory(job=memory.job, tally=msgspec.structs.replace(tally, before=low)).keep())
    job = await _find_job(context, memory.job)
    if job is None:
        return Failed("the import does not exist")
    await undo_queries.grow_undo(context.connection, context.tenant_id, job.job_id, len(changes))
    found = await compensation.restore_range(context, job, changes, of=imported, first_index=tally.done)
    ids = {change.item_index: change.record_id for change in changes}
    await _drop_dead_letters(context, job, refused, ids, found)
    return Continue(Memory(job=job.job_id, tally=tally.add(found, before=low)).keep())


async def _find_job(context: StepContext, job_id: uuid.UUID | None) -> UndoRow | None:
    """The undo job; the first range that needs one makes it."""
    if job_id is not None:
        return await undo_queries.read_undo(context.connection, context.tenant_id, job_id)
    imported = await undo_queries.read_undo(context.connection, context.tenant_id, context.saga.subject)
    if imported is None:
        return None
    new = NewUndo(
        tenant_id=context.tenant_id,
        job_id=uuid7(),
        root_job_id=imported.root_job_id,
        undo_of=None,
        request_id=imported.request_id,
        trace_context=imported.trace_context,
        key_id=imported.key_id,
        items=0,
    )
    await undo_queries.insert_undo(context.connection, new)
    return await undo_queries.read_undo(context.connection, context.tenant_id, new.job_id)


async def _drop_dead_letters(
    context: StepContext, job: UndoRow, refused: Sequence[Refused], ids: dict[int, str], found: Restored
) -> None:
    """A replay of what was undone would bring it back. Dead letters of what was changed since remain."""
    undone = {*found.restored, *found.unchanged}
    dropped = [id_ for item in refused if ids.get(item.item_index) in undone for id_ in item.dead_letters]
    note = f"undone by job {job.job_id}, because the import asked for consistency=all_destinations"
    await undo_queries.drop_dead_letters(context.connection, context.tenant_id, dropped, by=SYSTEM, note=note)


async def _deliver(context: StepContext) -> Answer:
    job_id = Memory.of(context).job
    return Done() if job_id is None else await compensation.deliver(context, job_id)


async def _fail(context: StepContext) -> Answer:
    """The import shows the job that failed, also if it had not begun: nothing else would report it."""
    memory = Memory.of(context)
    job = await _find_job(context, memory.job)
    if job is None:
        return Done()
    await compensation.fail(context, job.job_id)
    return Done(Memory(job=job.job_id, tally=memory.tally).keep())


CONSISTENCY: Final = Workflow(
    WORKFLOW,
    (Step("settle", _settle, _fail), Step("take_back", _take_back, _fail), Step("deliver", _deliver, no_compensation)),
)
"""The subject of its sagas is the import."""
