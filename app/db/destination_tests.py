"""The queries of tests of destinations, typed."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import msgspec

from app.db.pool import Connection
from app.db.sql import QUERIES


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """A test that this worker makes."""

    destination_id: int
    canary: bool
    request_id: str
    left: bool
    """Another worker began it and is gone."""
    late: bool
    """Whoever asked for it does not wait any more."""


async def find_destination(connection: Connection, tenant_id: int, name: str) -> tuple[int, str] | None:
    """Id and state of a destination."""
    row = await connection.fetchrow(QUERIES["find_destination_to_test"], tenant_id, name)
    return None if row is None else (row["destination_id"], row["state"])


async def forget(connection: Connection, tenant_id: int) -> None:
    await connection.execute(QUERIES["forget_destination_tests"], tenant_id)


async def insert(
    connection: Connection,
    tenant_id: int,
    test_id: uuid.UUID,
    destination_id: int,
    *,
    canary: bool,
    request_id: str,
    most: int,
) -> bool:
    """False: the tenant has `most` of them under way."""
    query = QUERIES["insert_destination_test"]
    return (
        await connection.fetchval(query, tenant_id, test_id, destination_id, canary, request_id, most)
        is not None
    )


async def due(connection: Connection) -> list[tuple[int, uuid.UUID]]:
    """(tenant, test)"""
    rows = await connection.fetch(QUERIES["due_destination_tests"])
    return [(row["tenant_id"], row["test_id"]) for row in rows]


async def claim(
    connection: Connection, tenant_id: int, test_id: uuid.UUID, *, lease: float, late: float
) -> Claimed | None:
    """`None`: somebody else has it, or it is done."""
    row = await connection.fetchrow(
        QUERIES["claim_destination_test"],
        tenant_id,
        test_id,
        timedelta(seconds=lease),
        timedelta(seconds=late),
    )
    return None if row is None else Claimed(**dict(row))


async def finish(connection: Connection, tenant_id: int, test_id: uuid.UUID, steps: bytes) -> None:
    await connection.execute(QUERIES["finish_destination_test"], tenant_id, test_id, steps.decode())


async def withdraw(connection: Connection, tenant_id: int, test_id: uuid.UUID) -> bool:
    """False: a worker makes it."""
    query = QUERIES["withdraw_destination_test"]
    return await connection.fetchval(query, tenant_id, test_id) is not None


async def read(
    connection: Connection, tenant_id: int, test_id: uuid.UUID, name: str
) -> dict[str, Any] | None:
    """The columns of the query; `steps` is JSON."""
    row = await connection.fetchrow(QUERIES["read_destination_test"], tenant_id, test_id, name)
    return None if row is None else dict(row)
