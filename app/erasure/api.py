"""`POST /v1/{type}:erase`."""

from typing import Annotated, Any

import msgspec
from uuid_utils.compat import uuid7

from app.auth.authorization import ADMIN
from app.erasure import service
from app.http.encryption_key import open_vault
from app.http.operation import Reply, operation
from app.http.parameters import TypeName
from app.http.principal import Principal
from app.http.request_context import Exchange
from app.job_status.live.job_cache import JobViews, job_answer
from app.kit.notifier import Notifier
from app.kit.postgres.database import Connection, Database
from app.resource_types.catalog import Catalog
from app.settings import Settings


class EraseRequest(msgspec.Struct, forbid_unknown_fields=True):
    ids: Annotated[list[str], msgspec.Meta(examples=[["c1", "c2"]])]
    """Of the records, each once."""
    reason: Annotated[str, msgspec.Meta(examples=["request of the person, ticket 4711"])]
    """For the audit log; without personal data, for it is kept."""


@operation(
    "POST",
    "/v1/{type}:erase",
    tag="records",
    access=ADMIN,
    answers=job_answer("The job that erases.", 202, headers=("Location", "RetryAfter")),
    keyed=True,
    body_limit=lambda settings: service.most_bytes(settings.max_sync_items),
)
async def erase_records(
    type: TypeName,
    body: EraseRequest,
    principal: Principal,
    exchange: Exchange,
    settings: Settings,
    database: Database,
    connection: Connection,
    catalog: Catalog,
    views: JobViews,
    notifier: Notifier,
) -> Reply[Any]:
    """Erase records.

    Deletes the records, archives them at the destinations, and then removes whatever is known of them: all versions,
    outcomes and rows of jobs, dead letters and their evidence, webhook messages, stored answers. What remains says that
    and when they were erased. The job ends when nothing is left; `docs/erasure.md` says what it waits for.
    """
    service.check(body.ids, body.reason, most=settings.max_sync_items)
    resource = await catalog.find(connection, principal.tenant_id, type)
    job_id = await service.erase(
        database,
        open_vault(settings),
        principal.tenant_id,
        resource,
        body.ids,
        body.reason,
        key_id=principal.key_id,
        request_id=exchange.request_id,
        new_id=uuid7,
    )
    notifier.notify_imports(principal.tenant_id, job_id)
    return await views.reply(principal.tenant_id, job_id, 202)
