"""The use cases of an operator who finds a saga that could go neither forward nor back."""

import uuid
from collections.abc import Sequence

import msgspec

from app.audit.queries import write_audit
from app.errors import Invalid, NotFound
from app.imports import processing_queries
from app.kit.postgres.database import Connection, Database
from app.sagas import queries
from app.sagas.queries import FailedSaga
from app.vocabulary.outcomes_wire import as_json
from app.vocabulary.states import ErrorCode

MOST = 1_000
"""Sagas that are listed: some come up when others have been decided about."""
_DROPPED = "Undoing failed, and an operator has left it as it is: "


class SagaDecision(msgspec.Struct, frozen=True):
    """A saga that an operator has decided about."""

    id: uuid.UUID


async def list_failed(connection: Connection, tenant_id: int) -> Sequence[FailedSaga]:
    return await queries.read_failed(connection, tenant_id, MOST)


async def retry(database: Database, tenant_id: int, saga_id: uuid.UUID, *, actor: str) -> SagaDecision:
    """Let it undo the step again at which it failed. Raises `NotFound`: no such saga waits for an operator."""
    async with database.connection() as connection, connection.transaction():
        if await queries.retry(connection, tenant_id, saga_id) is None:
            raise _missing()
        await write_audit(connection, tenant_id, actor, "saga.retry", f"saga:{saga_id}")
    return SagaDecision(saga_id)


async def drop(database: Database, tenant_id: int, saga_id: uuid.UUID, *, actor: str, reason: str) -> SagaDecision:
    """Leave it as it is, and end its job, which nobody works on.

    Raises:
        NotFound: no such saga waits for an operator.
        Invalid: the reason says nothing, or cannot be stored.
    """
    if not reason.strip() or "\0" in reason:
        raise Invalid("A reason of 1 to 1000 characters is needed: the audit log keeps it.")
    async with database.connection() as connection, connection.transaction():
        job_id = await queries.drop(connection, tenant_id, saga_id)
        if job_id is None:
            raise _missing()
        error = as_json({"code": ErrorCode.INTERNAL, "detail": _DROPPED + reason})
        await processing_queries.fail_import(connection, tenant_id, job_id, error)
        await write_audit(connection, tenant_id, actor, "saga.drop", f"saga:{saga_id}", {"reason": reason})
    return SagaDecision(saga_id)


def _missing() -> NotFound:
    return NotFound("No such saga waits for an operator.")
