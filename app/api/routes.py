"""Every operation of the service, by feature."""

from typing import Final

from litestar.handlers import HTTPRouteHandler

from app.api import documents
from app.auth import api as auth_api
from app.auth import session_api, tenants_api
from app.console import api as console
from app.dead_letters import api as dead_letter_api
from app.dead_letters import retry_api
from app.destinations import api as destination_api
from app.destinations.testing import api as testing_api
from app.erasure import api as erasure_api
from app.http.operation import Operation
from app.imports import api as import_api
from app.imports.cancel import api as cancel_api
from app.imports.idempotency import api as idempotency_api
from app.job_status import api as job_status_api
from app.job_status.items import api as item_api
from app.job_status.live import events_api
from app.monitoring import audit_api, health_api, metrics_api
from app.records import api as record_api
from app.resource_types import api as resource_type_api
from app.syncs import api as sync_api
from app.undo import api as undo_api
from app.undo import failed_sagas_api
from app.webhooks import api as webhook_api

_FEATURES: Final = (
    import_api,
    record_api,
    erasure_api,
    resource_type_api,
    audit_api,
    job_status_api,
    cancel_api,
    retry_api,
    undo_api,
    events_api,
    item_api,
    idempotency_api,
    dead_letter_api,
    failed_sagas_api,
    destination_api,
    testing_api,
    sync_api,
    webhook_api,
    auth_api,
    session_api,
    tenants_api,
    health_api,
    metrics_api,
    documents,
)

OPERATIONS: Final = tuple(one for feature in _FEATURES for one in vars(feature).values() if isinstance(one, Operation))
ROUTES: Final[tuple[HTTPRouteHandler, ...]] = (*(one.route for one in OPERATIONS), documents.favicon, console.serve)
