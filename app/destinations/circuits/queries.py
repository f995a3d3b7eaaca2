"""Circuits as PostgreSQL knows them: what is wanted of them, and how they changed. Redis holds the circuits.

A tenant sees the circuits of its own connections. What it shares with other tenants is the operator's."""

from datetime import datetime
from typing import Final

import msgspec

from app.kit.postgres.database import Connection
from app.kit.postgres.query import Affected, Query, Seconds, query
from app.vocabulary.states import CircuitState

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


class Override(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody wants of a destination's circuits."""

    override: str
    """The current state there."""
    state: CircuitState
    by: str
    circuit: str | None
    """`None`: the connection's; `crm`: what it shares with other tenants; `connection`: its own, since the
    destination was changed."""
    seconds: float
    """That are left of it."""


ask_circuit = Query[[int, str, CircuitState, Seconds, str, str | None], int | None]("ask_circuit")
"""(tenant_id, name, state, seconds, actor, circuit)

Override the circuit of a destination, or (`crm`) the one that it shares with other tenants; returns its id, or `None`
if no destination has that name.
"""
overridden_destinations = Query[[], list[tuple[int, int]]]("overridden_destinations")
read_override = Query[[int, int], Override | None]("read_circuit_override")
"""(tenant_id, destination_id)"""
_clear_override = Query[[int, int, str, bool], None]("clear_circuit_override")


async def clear_override(connection: Connection, tenant_id: int, destination_id: int, override: Override) -> None:
    await _clear_override(
        connection, tenant_id, destination_id, override.override, override.state is CircuitState.CLOSED
    )


unblock_crm = Query[[str, str], None]("unblock_crm")
"""(kind, base_url) Let everybody's calls to a CRM be due, where a circuit held them back."""


@query("record_circuit_change")
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
    ago: Seconds,
) -> Affected:
    """Write down a change that a call of this destination met; returns how many rows it made.

    Changes of its own connection are sent to the tenant's webhooks, with `reason`. `detail` is kept here.
    """


_count_openings = Query[[int], list[tuple[str, int]]]("count_openings")


class _LastChange(msgspec.Struct, frozen=True):
    name: str
    at: datetime | None
    after: str | None
    detail: str | None
    override: str | None
    left_open: float | None


_read_circuits = Query[[int], list[_LastChange]]("read_circuits")


async def read_circuits(connection: Connection, tenant_id: int) -> dict[str, Circuit]:
    """The circuits of a tenant's own connections, by destination."""
    openings = dict(await _count_openings(connection, tenant_id))
    found: dict[str, Circuit] = {}
    for row in await _read_circuits(connection, tenant_id):
        state, left = _state(row.after, row.left_open)
        circuit = Circuit(
            state=state,
            since=row.at,
            retry_after_seconds=left,
            openings_24h=openings.get(row.name, 0),
            detail=None if state is CircuitState.CLOSED else row.detail,
        )
        if row.override is not None:
            circuit = msgspec.structs.replace(
                circuit,
                state=CircuitState(row.override),
                detail="requested by an operator; a worker is about to apply it",
            )
        found[row.name] = circuit
    return found


def _state(after: str | None, left_open: float | None) -> tuple[CircuitState, int]:
    """What a circuit's last change says of it now: an open one whose time is over lets the next call try."""
    if after is None or after == CircuitState.CLOSED or left_open is None or left_open < -_MEMORY:
        return CircuitState.CLOSED, 0
    if after == CircuitState.OPEN and left_open > 0:
        return CircuitState.OPEN, -int(-left_open // 1)
    return CircuitState.HALF_OPEN, 0


list_changes = Query[[int, str, int], list[CircuitChange]]("list_circuit_changes")
"""(tenant_id, name, limit) The latest changes of a tenant's own connection to a destination, newest first."""
