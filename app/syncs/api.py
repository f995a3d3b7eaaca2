"""`POST /v1/destinations/{name}/sync`."""

import uuid

import msgspec

from app.auth.authorization import ADMIN
from app.destinations.api import PATH, Name
from app.http.operation import Answer, Reply, operation
from app.http.principal import Principal
from app.http.request_context import Exchange
from app.kit.notifier import Notifier
from app.kit.postgres.database import Database
from app.resource_types.catalog import Catalog
from app.syncs import creation
from app.syncs.creation import SyncRequest


class Sync(msgspec.Struct, frozen=True):
    """The job that sends them; its document shows how far it is."""

    job_id: uuid.UUID | None
    """null: there are no records."""
    status_url: str | None
    records: int
    """That there are; 1,000,000 may be more. Those that the destination has are not sent."""
    kind: str = "sync"


@operation(
    "POST",
    PATH + "/{name}/sync",
    tag="destinations",
    access=ADMIN,
    answers=(
        Answer("The job that sends them.", 202, headers=("Location", "RetryAfter")),
        Answer("There are no records: nothing is to be sent."),
    ),
    errors=(409,),
    keyed=True,
)
async def sync_destination(
    name: Name,
    body: SyncRequest | None,
    principal: Principal,
    exchange: Exchange,
    catalog: Catalog,
    database: Database,
    notifier: Notifier,
) -> Reply[Sync]:
    """Send a destination what it lacks.

    A job of the kind `sync` takes the records one after another and sends those that the destination has in no version
    or an older one, as a destination that is added late needs it; with `all`, every record again. Only a few of its
    deliveries wait at a time, so records that are imported meanwhile do not wait behind it. A worker that is killed
    loses nothing: another one goes on from there. It can be canceled.
    """
    async with database.connection() as connection:
        asked = await creation.create(
            connection,
            principal.tenant_id,
            name,
            body or SyncRequest(),
            catalog=catalog,
            request_id=exchange.request_id,
            trace=exchange.trace,
            actor=principal.key_id,
        )
    if asked.job_id is None:
        return Reply(Sync(None, None, 0))
    notifier.notify_imports(principal.tenant_id, asked.job_id)
    url = f"/v1/jobs/{asked.job_id}"
    return Reply(Sync(asked.job_id, url, asked.records), 202, {"Location": url, "Retry-After": "1"})
