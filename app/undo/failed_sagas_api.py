"""`/v1/dead-letters/sagas`: undos and compensations that failed for good, for an operator to decide about."""

import uuid
from functools import partial
from typing import Annotated, Final

import msgspec

from app.auth.authorization import ADMIN, READING
from app.http.operation import Answer, operation
from app.http.parameters import uuid_path
from app.http.principal import Principal
from app.kit.notifier import Notifier
from app.kit.postgres.database import Connection, Database
from app.sagas.queries import FailedSaga
from app.undo import failed_sagas
from app.undo.failed_sagas import SagaDecision

_operation: Final = partial(operation, tag="dead letters")
_PATH: Final = "/v1/dead-letters/sagas"


class FailedSagaList(msgspec.Struct, frozen=True):
    """Sagas that wait for an operator, the oldest first."""

    sagas: list[FailedSaga]


class SagaDropRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a saga is left as it is."""

    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=1_000)]


SagaId = Annotated[
    uuid.UUID, uuid_path("The saga.", "01992e41-90d1-7a52-8b1e-5a5f0f6e2b11", missing="There is no such saga.")
]


@_operation("GET", _PATH, access=READING, answers=Answer("At most 1000 of them."))
async def list_failed_sagas(principal: Principal, connection: Connection) -> FailedSagaList:
    """Undos and compensations that failed for good.

    They could go neither forward nor back: a step failed repeatedly, and so did undoing it. Each names how many records
    were restored, left and not reached.
    """
    return FailedSagaList(list(await failed_sagas.list_failed(connection, principal.tenant_id)))


@_operation("POST", _PATH + "/{saga_id}/retry", access=ADMIN, answers=Answer("It goes on."), keyed=True)
async def retry_saga(saga_id: SagaId, principal: Principal, database: Database, notifier: Notifier) -> SagaDecision:
    """Retry a saga that failed.

    It undoes the step again at which it failed. A body of this request is ignored.
    """
    decided = await failed_sagas.retry(database, principal.tenant_id, saga_id, actor=principal.key_id)
    notifier.notify_imports(principal.tenant_id, saga_id)
    return decided


@_operation("POST", _PATH + "/{saga_id}/drop", access=ADMIN, answers=Answer("It is dropped."), keyed=True)
async def drop_saga(saga_id: SagaId, body: SagaDropRequest, principal: Principal, database: Database) -> SagaDecision:
    """Drop a saga that failed.

    It stays as it is, and its job ends as `failed`. The audit log keeps the reason and who gave it.
    """
    return await failed_sagas.drop(database, principal.tenant_id, saga_id, actor=principal.key_id, reason=body.reason)
