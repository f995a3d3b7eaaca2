"""The queries of sagas, typed. Each is for the caller's transaction."""

from __future__ import annotations

import uuid
from datetime import timedelta

import msgspec

from app.db.pool import Connection
from app.db.sql import QUERIES
from app.domain.outcomes import SagaState
from app.domain.saga import Data, Position


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


async def begin(
    connection: Connection,
    tenant_id: int,
    saga_id: uuid.UUID,
    *,
    workflow: str,
    subject: uuid.UUID,
    actor: str,
    data: Data | None = None,
) -> bool:
    """False: there is one of this workflow for this subject already."""
    told = msgspec.json.encode(data or {}).decode()
    return (
        await connection.fetchval(QUERIES["insert_saga"], tenant_id, saga_id, workflow, subject, actor, told)
        is not None
    )


async def due(connection: Connection) -> list[tuple[int, uuid.UUID]]:
    """(tenant, saga)"""
    return [(row["tenant_id"], row["saga_id"]) for row in await connection.fetch(QUERIES["due_sagas"])]


async def claim(connection: Connection, tenant_id: int, saga_id: uuid.UUID) -> Saga | None:
    """Held until the transaction ends; `None`: there is nothing to be had of it now."""
    row = await connection.fetchrow(QUERIES["claim_saga"], tenant_id, saga_id)
    if row is None:
        return None
    at = Position(
        SagaState(row["state"]),
        row["step"],
        msgspec.json.decode(row["data"]),
        row["attempts"],
        error=row["error"],
    )
    return Saga(tenant_id, row["saga_id"], row["workflow"], row["subject"], row["actor"], row["age"], at)


async def move(connection: Connection, saga: Saga, to: Position) -> None:
    await connection.execute(
        QUERIES["move_saga"],
        saga.tenant_id,
        saga.saga_id,
        to.state,
        to.step,
        msgspec.json.encode(to.data).decode(),
        to.attempts,
        timedelta(seconds=to.wait),
        to.error,
        to.finished,
    )
