"""`POST /v1/jobs/{id}/retry`."""

from typing import Annotated

import msgspec
from uuid_utils.compat import uuid7

from app.auth.authorization import CHANGING
from app.dead_letters import api, service
from app.dead_letters.selection import MOST
from app.dead_letters.shapes import AttemptAnswer, describe
from app.errors import Invalid
from app.http.operation import Answer, Reply, operation
from app.http.parameters import JobId
from app.http.principal import Principal
from app.http.request_context import Exchange
from app.job_status.ownership import JobOwners
from app.kit.notifier import Notifier
from app.kit.postgres.database import Database
from app.settings import Settings
from app.vocabulary.states import JobKind


class RetryRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where to send again what failed; null: at every destination."""

    destinations: Annotated[list[str], msgspec.Meta(min_length=1, max_length=100)] | None = None


def _describe(settings: Settings) -> str:
    return (
        "One new job claims the open dead letters of the job and of its earlier retries, at the named "
        "destinations or all; items that wait for their next attempt become due. Records are sent in their current "
        f"version, {settings.replay_rate:g} items per second at a destination. A repeated request does nothing twice: "
        "while a retry is running and nothing new has failed, it is the answer. One job claims "
        f"{MOST} dead letters at most; `remaining` is the number left. A failed undo (also one that an import shows "
        "as `compensated_by`) resumes where it ended."
    )


@operation(
    "POST",
    "/v1/jobs/{job_id}/retry",
    tag="jobs",
    access=CHANGING,
    description=_describe,
    answers=Answer("The job that sends them: a new one, or the running one.", 202, headers=api.MADE),
    errors=(409,),
    keyed=True,
)
async def retry_job(
    job_id: JobId,
    body: RetryRequest | None,
    principal: Principal,
    exchange: Exchange,
    settings: Settings,
    database: Database,
    owners: JobOwners,
    notifier: Notifier,
) -> Reply[AttemptAnswer]:
    """Retry the failed items of a job."""
    await owners.check_change(principal, job_id)
    destinations = body.destinations if body else None
    if any("\0" in name for name in destinations or ()):
        raise Invalid("A destination's name holds a NUL character.")
    taken = await service.retry(
        database, api.actor_of(principal, exchange), job_id, destinations, settings, new_id=uuid7
    )
    notifier.notify(principal.tenant_id, taken.to_notify, reason=f"retry:{exchange.request_id}")
    if taken.kind == JobKind.UNDO:
        notifier.notify_imports(principal.tenant_id, job_id)
    answer = AttemptAnswer(**describe(taken))
    return Reply(answer, 202, api.made_headers(answer.status_url))
