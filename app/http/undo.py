"""`POST /v1/jobs/{id}/undo`."""

from __future__ import annotations

from uuid_utils.compat import uuid7

from app import status, undoing
from app.db.pool import Database
from app.http.auth import CHANGING
from app.http.exchange import Exchange
from app.http.jobs import CACHE, job_headers
from app.http.operation import Answer, Reply, operation
from app.http.ownership import JobOwners
from app.http.parameters import JobId
from app.http.views import JobViews
from app.keys import Principal
from app.wake import Waker


@operation(
    "POST",
    "/v1/jobs/{job_id}/undo",
    tag="jobs",
    access=CHANGING,
    answers=Answer("The undo job.", 202, headers=("Location", "RetryAfter", "ETag"), cache=CACHE),
    errors=(409,),
)
async def undo_job(
    job_id: JobId,
    principal: Principal,
    exchange: Exchange,
    database: Database,
    owners: JobOwners,
    views: JobViews,
    waker: Waker,
) -> Reply[status.Job]:
    """Undo a job.

    Each contact that the job changed gets its earlier state as a new version, and one that it created is removed;
    destinations follow. A contact that somebody changed since is left as it is: its item fails with
    `VERSION_CONFLICT` and shows who changed it. No history is deleted. A repeated request answers with the same undo
    job, and resumes a failed one; to redo the changes, undo it. A running job, a dry run, a retry and a replay have
    nothing to undo (409). A body of this request is ignored.
    """
    await owners.check_change(principal, job_id)
    asked = await undoing.undo(
        database,
        principal.tenant_id,
        job_id,
        key_id=principal.key_id,
        request_id=exchange.request_id,
        new_id=uuid7,
    )
    if asked.new:
        waker.wake_imports(principal.tenant_id, asked.job_id)
    view = await views.read(principal.tenant_id, asked.job_id, at_least=None)
    headers = job_headers(view, view.next_in or 0.0) | {"Location": f"/v1/jobs/{asked.job_id}"}
    return Reply(view.body, 202, headers)
