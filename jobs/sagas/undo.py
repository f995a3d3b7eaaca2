"""Undo: every record that a job changed is restored to its version before, unless somebody changed it since.

1. restore   newest first, a range of items a transaction
2. deliver   wait until the destinations have it, or it has dead letters
"""

from typing import Final

import msgspec

from app.sagas.rules import Answer, Continue, Done, Failed
from app.undo import queries
from app.undo.restore import RANGE, WORKFLOW
from jobs.sagas import compensation
from jobs.sagas.compensation import Tally
from jobs.sagas.runner import Step, StepContext, Workflow, no_compensation


async def _restore(context: StepContext) -> Answer:
    tally = msgspec.convert(context.data, Tally)
    job = await queries.read_undo(context.connection, context.tenant_id, context.saga.subject)
    if job is None or job.undo_of is None:
        return Failed("there is no such undo job")
    changes = await queries.read_changes(
        context.connection, context.tenant_id, job.undo_of, before=tally.before, limit=RANGE
    )
    if changes:
        found = await compensation.restore_range(context, job, changes, of=job.undo_of, first_index=tally.done)
        tally = tally.add(found, before=changes[-1].item_index)
        if len(changes) == RANGE:
            return Continue(msgspec.structs.asdict(tally))
    await compensation.end(context, job.job_id)
    return Done(msgspec.structs.asdict(tally), audit_detail=tally.audit_detail())


async def _deliver(context: StepContext) -> Answer:
    return await compensation.deliver(context, context.saga.subject)


async def _fail(context: StepContext) -> Answer:
    await compensation.fail(context, context.saga.subject)
    return Done()


UNDO: Final = Workflow(WORKFLOW, (Step("restore", _restore, _fail), Step("deliver", _deliver, no_compensation)))
"""The subject of its sagas is the undo job."""
