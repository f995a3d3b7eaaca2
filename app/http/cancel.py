"""`POST /v1/jobs/{id}/cancel`."""

from __future__ import annotations

from app import canceling, status
from app.db.pool import Database
from app.http.auth import CHANGING
from app.http.jobs import CACHE, job_headers
from app.http.operation import Answer, Reply, operation
from app.http.ownership import JobOwners
from app.http.parameters import JobId
from app.http.views import JobViews
from app.keys import Principal


@operation(
    "POST",
    "/v1/jobs/{job_id}/cancel",
    tag="jobs",
    access=CHANGING,
    answers=Answer(
        "The job is canceled; `progress.not_processed` items were not applied.",
        headers=("ETag", "MaybeRetryAfter"),
        cache=CACHE,
    ),
    errors=(409,),
)
async def cancel_job(
    job_id: JobId, principal: Principal, database: Database, owners: JobOwners, views: JobViews
) -> Reply[status.Job]:
    """Cancel an import.

    Items that are not applied yet will not be; applied items remain and are delivered. Canceling a job again changes
    nothing. An upload that is still arriving is dropped, and its Idempotency-Key is free again. A body of this
    request is ignored.
    """
    await owners.check_change(principal, job_id)
    await canceling.cancel(database, principal.tenant_id, job_id, actor=principal.key_id)
    view = await views.read(principal.tenant_id, job_id, at_least=None)
    return Reply(view.body, headers=job_headers(view, view.next_in))
