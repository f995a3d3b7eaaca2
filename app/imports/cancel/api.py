"""`POST /v1/jobs/{id}/cancel`."""

from typing import Any

from app.auth.authorization import CHANGING
from app.http.operation import Reply, operation
from app.http.parameters import JobId
from app.http.principal import Principal
from app.imports.cancel import service
from app.job_status.live.job_cache import JobViews, job_answer
from app.job_status.ownership import JobOwners
from app.kit.postgres.database import Database


@operation(
    "POST",
    "/v1/jobs/{job_id}/cancel",
    tag="jobs",
    access=CHANGING,
    answers=job_answer(
        "The job is canceled; `progress.not_processed` items were not applied.", headers=("MaybeRetryAfter",)
    ),
    errors=(409,),
)
async def cancel_job(
    job_id: JobId, principal: Principal, database: Database, owners: JobOwners, views: JobViews
) -> Reply[Any]:
    """Cancel an import.

    Items that are not applied yet will not be; applied items remain and are delivered. Canceling a job again changes
    nothing. An upload that is still arriving is dropped, and its Idempotency-Key is free again. A body of this
    request is ignored.
    """
    await owners.check_change(principal, job_id)
    await service.cancel(database, principal.tenant_id, job_id, actor=principal.key_id)
    return await views.reply(principal.tenant_id, job_id)
