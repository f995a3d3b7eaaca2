"""Circuits as people see and set them. The circuits themselves are the workers'; both meet in PostgreSQL rows."""

from typing import Final, Literal

import msgspec

from app.destinations.circuits import queries
from app.destinations.circuits.queries import Circuit, CircuitChange
from app.errors import Invalid, NotFound
from app.kit.postgres.database import Connection
from app.vocabulary.states import CircuitState

DEFAULT_SECONDS: Final = 3_600.0
MOST_SECONDS: Final = 604_800.0


class CircuitOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a circuit shall be."""

    state: Literal["open", "closed"]
    seconds: float | None = None
    """For how long it shall be open; an hour if nothing is said."""


class CircuitHistory(msgspec.Struct, frozen=True, kw_only=True):
    """The circuit of a tenant's connection to a destination, and its latest changes, the newest first."""

    circuit: Circuit
    changes: list[CircuitChange]


async def set_circuit(
    connection: Connection, tenant_id: int, name: str, order: CircuitOrder, *, actor: str, shared: bool = False
) -> int:
    """Override the circuit of a tenant's connection; returns the destination's id.

    From now on nothing is sent to it, or again; the next worker that comes by sets the circuit. `shared`: that of its
    CRM instead, for all tenants who call it, which is an operator's to order.

    Raises:
        Invalid: it shall be open for a time that makes no sense.
        NotFound: there is no such destination.
    """
    if order.state == "closed" and order.seconds is not None:
        raise Invalid("seconds: only an open circuit has a time; leave it out to close one.")
    seconds = DEFAULT_SECONDS if order.seconds is None else order.seconds
    if not 0 < seconds <= MOST_SECONDS:
        raise Invalid(f"seconds: must be above 0 and at most {MOST_SECONDS:g} (a week).")
    state = CircuitState(order.state)
    circuit = "crm" if shared else None
    found = await queries.ask_circuit(connection, tenant_id, name, state, seconds, actor, circuit)
    if found is None:
        raise NotFound(f"There is no destination {name!r}.")
    return found


async def read_circuit(connection: Connection, tenant_id: int, name: str, limit: int) -> CircuitHistory:
    """Raises `NotFound`: there is no such destination."""
    found = (await queries.read_circuits(connection, tenant_id)).get(name)
    if found is None:
        raise NotFound("There is no such destination.")
    changes = await queries.list_changes(connection, tenant_id, name, limit)
    return CircuitHistory(circuit=found, changes=changes)
