"""Circuits as PostgreSQL knows them: what is wanted of them, and how they changed. Redis holds the circuits.

A tenant sees the circuits of its own connections. What it shares with other tenants is the operator's."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import msgspec

from app.db.pool import Connection
from app.db.sql import QUERIES
from app.db.strokes import in_strokes
from app.domain.outcomes import CircuitState

RETENTION: Final = timedelta(days=90)
_MEMORY: Final = 600.0
"""Seconds after its time that a circuit of which nothing was heard is taken to be forgotten: no trouble any more."""


class Circuit(msgspec.Struct, frozen=True, kw_only=True):
    """The circuit of a tenant's connection to a destination."""

    state: CircuitState = CircuitState.CLOSED
    since: datetime | None = None
    """When it came to this state; null: it never was in another."""
    retry_after_seconds: int = 0
    openings_24h: int = 0
    detail: str | None = None


class CircuitChange(msgspec.Struct, frozen=True, kw_only=True):
    at: datetime
    circuit: str
    """`connection`: this tenant's own."""
    before: CircuitState
    after: CircuitState
    opens: int
    """Openings in a row, this one included."""
    seconds: float
    """That it stays open."""
    detail: str


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody wants of a destination's circuits."""

    wish: str
    """As it stands there."""
    state: CircuitState
    by: str
    circuit: str | None
    """`None`: the connection's; `crm`: what it shares with other tenants; `connection`: its own, since the
    destination was changed."""
    seconds: float
    """That are left of it."""


async def ask_circuit(
    connection: Connection,
    tenant_id: int,
    name: str,
    state: CircuitState,
    seconds: float,
    actor: str,
    *,
    shared: bool = False,
) -> int | None:
    """Open or close a destination by hand, or what it shares with other tenants; returns its id, or `None` if there is
    none of that name."""
    circuit = "crm" if shared else None
    found = await connection.fetchval(
        QUERIES["ask_circuit"], tenant_id, name, state.value, timedelta(seconds=seconds), actor, circuit
    )
    return None if found is None else int(found)


async def wished_destinations(connection: Connection) -> list[tuple[int, int]]:
    rows = await connection.fetch(QUERIES["wished_destinations"])
    return [(row["tenant_id"], row["destination_id"]) for row in rows]


async def read_wish(connection: Connection, tenant_id: int, destination_id: int) -> Wish | None:
    row = await connection.fetchrow(QUERIES["read_circuit_wish"], tenant_id, destination_id)
    return None if row is None else Wish(**(dict(row) | {"state": CircuitState(row["state"])}))


async def clear_wish(connection: Connection, tenant_id: int, destination_id: int, wish: Wish) -> None:
    closed = wish.state is CircuitState.CLOSED
    await connection.execute(QUERIES["clear_circuit_wish"], tenant_id, destination_id, wish.wish, closed)


async def unblock_crm(connection: Connection, kind: str, base_url: str) -> None:
    """Let everybody's calls to a CRM be due, where a circuit held them back."""
    await connection.execute(QUERIES["unblock_crm"], kind, base_url)


async def record_change(
    connection: Connection,
    tenant_id: int,
    destination_id: int,
    *,
    circuit: str,
    before: CircuitState,
    after: CircuitState,
    opens: int,
    seconds: float,
    reason: str,
    detail: str,
    ago: float,
) -> int:
    """Write down a change that a call of this destination met; returns how many rows it made.

    Of its own connection the tenant's webhooks are told, by `reason`. `detail` is kept here.
    """
    rows = await connection.fetch(
        QUERIES["record_circuit_change"],
        tenant_id,
        destination_id,
        circuit,
        before.value,
        after.value,
        opens,
        seconds,
        detail,
        timedelta(seconds=ago),
        reason,
    )
    return len(rows)


async def read_circuits(connection: Connection, tenant_id: int) -> dict[str, Circuit]:
    """The circuits of a tenant's own connections, by destination."""
    openings = {
        row["name"]: row["openings"] for row in await connection.fetch(QUERIES["count_openings"], tenant_id)
    }
    found: dict[str, Circuit] = {}
    for row in await connection.fetch(QUERIES["read_circuits"], tenant_id):
        state, left = _state(row["after"], row["left_open"])
        circuit = Circuit(
            state=state,
            since=row["at"],
            retry_after_seconds=left,
            openings_24h=openings.get(row["name"], 0),
            detail=None if state is CircuitState.CLOSED else row["detail"],
        )
        if row["wish"] is not None:
            circuit = msgspec.structs.replace(
                circuit,
                state=CircuitState(row["wish"]),
                detail="requested by an operator; a worker is about to apply it",
            )
        found[row["name"]] = circuit
    return found


def _state(after: str | None, left_open: float | None) -> tuple[CircuitState, int]:
    """What a circuit's last change says of it now: an open one whose time is over lets the next call try."""
    if after is None or after == CircuitState.CLOSED or left_open is None or left_open < -_MEMORY:
        return CircuitState.CLOSED, 0
    if after == CircuitState.OPEN and left_open > 0:
        return CircuitState.OPEN, -int(-left_open // 1)
    return CircuitState.HALF_OPEN, 0


async def list_changes(connection: Connection, tenant_id: int, name: str, limit: int) -> list[CircuitChange]:
    """The latest changes of a tenant's own connection to a destination, newest first."""
    rows = await connection.fetch(QUERIES["list_circuit_changes"], tenant_id, name, limit)
    return [
        CircuitChange(
            **(dict(row) | {"before": CircuitState(row["before"]), "after": CircuitState(row["after"])})
        )
        for row in rows
    ]


async def forget_changes(connection: Connection, tenant_id: int) -> None:
    await in_strokes(connection, QUERIES["forget_circuit_changes"], tenant_id, RETENTION)
