"""`POST /v1/jobs/{id}/undo`."""

from typing import Any, Final

import msgspec
from uuid_utils.compat import uuid7

from app.auth.authorization import CHANGING, FOLLOWING
from app.http.cursors import Cursor, NextCursor
from app.http.operation import Answer, Reply, operation
from app.http.parameters import JobId, Page
from app.http.principal import Principal
from app.http.request_context import Exchange
from app.job_status.live.job_cache import JobViews, job_answer
from app.job_status.ownership import JobOwners
from app.kit.notifier import Notifier
from app.kit.postgres.database import Database
from app.undo import not_reached, service
from app.undo.not_reached import NotReached

_CURSOR: Final = Cursor[int]("not-reached", int)


class NotReachedList(msgspec.Struct, frozen=True):
    """A page of records, in the order in which the undo comes to them; `next_cursor` is null on the last one."""

    records: list[NotReached]
    next_cursor: NextCursor


@operation(
    "POST",
    "/v1/jobs/{job_id}/undo",
    tag="jobs",
    access=CHANGING,
    answers=job_answer("The undo job.", 202, headers=("Location", "RetryAfter")),
    errors=(409,),
    keyed=True,
)
async def undo_job(
    job_id: JobId,
    principal: Principal,
    exchange: Exchange,
    database: Database,
    owners: JobOwners,
    views: JobViews,
    notifier: Notifier,
) -> Reply[Any]:
    """Undo a job.

    Each record that the job changed gets its earlier state as a new version, and one that it created is removed;
    destinations follow. A record that somebody changed since is left as it is: its item fails with
    `VERSION_CONFLICT` and shows who changed it, and it has a dead letter of the kind `undo`, whose replay restores the
    record after all. No history is deleted. A repeated request answers with the same undo job, and resumes a failed
    one; to redo the changes, undo it. A running job, a dry run, a retry and a replay of deliveries have nothing to undo
    (409). A body of this request is ignored.
    """
    await owners.check_change(principal, job_id)
    asked = await service.undo(
        database,
        principal.tenant_id,
        job_id,
        key_id=principal.key_id,
        request_id=exchange.request_id,
        trace=exchange.trace,
        new_id=uuid7,
    )
    if asked.new:
        notifier.notify_imports(principal.tenant_id, asked.job_id)
    return await views.reply_made(principal.tenant_id, asked.job_id)


@operation(
    "GET",
    "/v1/jobs/{job_id}/not-reached",
    tag="jobs",
    access=FOLLOWING,
    answers=Answer("A page of records; of a job that is no undo it is empty."),
)
async def list_not_reached(
    job_id: JobId, query: Page, principal: Principal, database: Database, owners: JobOwners
) -> NotReachedList:
    """Records that an undo has not come to.

    Of one that is running they are still to be restored; of one that failed they are as they were, until it is retried.
    """
    await owners.check_read(principal, job_id)
    async with database.connection() as connection:
        found, position = await not_reached.list_not_reached(
            connection, principal.tenant_id, job_id, before=_CURSOR.decode(query.cursor), limit=query.limit
        )
    return NotReachedList(found, _CURSOR.encode(position))
