"""The queries of sagas, typed. Each is for the caller's transaction."""

import uuid
from datetime import datetime
from typing import Literal

import msgspec

from app.kit.postgres.database import Connection
from app.kit.postgres.query import Found, Json, Query, Seconds, query
from app.sagas.rules import Data, Position
from app.vocabulary.states import SagaState


class Saga(msgspec.Struct, frozen=True):
    """A saga that is claimed."""

    tenant_id: int
    saga_id: uuid.UUID
    workflow: str
    subject: uuid.UUID
    actor: str
    age: float
    """Seconds since it was begun."""
    at: Position


class _SagaRow(msgspec.Struct, frozen=True):
    saga_id: uuid.UUID
    workflow: str
    subject: uuid.UUID
    state: SagaState
    step: int
    data: Json[Data]
    attempts: int
    error: str | None
    actor: str
    age: float


@query("insert_saga")
async def begin(
    connection: Connection,
    tenant_id: int,
    saga_id: uuid.UUID,
    *,
    workflow: str,
    subject: uuid.UUID,
    actor: str,
    data: Json[Data] = {},  # noqa: B006
) -> Found:
    """False: there is one of this workflow for this subject already."""


class FailedSaga(msgspec.Struct, frozen=True, kw_only=True):
    """A saga that could go neither forward nor back."""

    id: uuid.UUID
    workflow: Literal["undo", "consistency", "erase"]
    job_id: uuid.UUID
    """What it is about: the undo job, or the import that asked for `consistency=all_destinations`."""
    detail: str | None
    """Why it failed."""
    actor: str
    created_at: datetime
    failed_at: datetime
    undo_job_id: uuid.UUID | None
    """The job whose items are the records that were restored or left; null: there is none."""
    restored: int
    unchanged: int
    """Had been taken back before."""
    conflicts: int
    """Left as they are, because somebody changed them since; each has a dead letter of the kind `undo`."""
    not_reached: int | None
    """Not looked at: `GET /v1/jobs/{undo_job_id}/not-reached` lists them. null: of an erasure, whose records are not
    erased before its end."""


read_failed = Query[[int, int], list[FailedSaga]]("failed_sagas")
"""(tenant_id, limit) The oldest first."""
retry = Query[[int, uuid.UUID], uuid.UUID | None]("retry_saga")
"""`None`: no such saga waits for an operator."""
drop = Query[[int, uuid.UUID], uuid.UUID | None]("drop_saga")
"""The job that it works on; `None`: no such saga waits for an operator."""
read_data = Query[[int, str, uuid.UUID], Json[Data] | None]("saga_data")
"""(tenant_id, workflow, subject) What it remembers."""
due = Query[[], list[tuple[int, uuid.UUID]]]("due_sagas")
"""(tenant, saga)"""
_claim = Query[[int, uuid.UUID], _SagaRow | None]("claim_saga")


async def claim(connection: Connection, tenant_id: int, saga_id: uuid.UUID) -> Saga | None:
    """Held until the transaction ends; `None`: there is nothing to be had of it now."""
    row = await _claim(connection, tenant_id, saga_id)
    if row is None:
        return None
    at = Position(row.state, row.step, row.data, row.attempts, error=row.error)
    return Saga(tenant_id, row.saga_id, row.workflow, row.subject, row.actor, row.age, at)


@query("move_saga")
async def _move(
    connection: Connection,
    tenant_id: int,
    saga_id: uuid.UUID,
    state: SagaState,
    step: int,
    data: Json[Data],
    attempts: int,
    wait: Seconds,
    error: str | None,
    finished: bool,
) -> None: ...


async def move(connection: Connection, saga: Saga, to: Position) -> None:
    moved = (to.state, to.step, to.data, to.attempts, to.wait, to.error, to.finished)
    await _move(connection, saga.tenant_id, saga.saga_id, *moved)
