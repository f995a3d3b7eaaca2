"""`/v1/destinations`: where a tenant's records are synced. Credentials go in and never come out."""

from typing import Annotated, Final
from urllib.parse import quote

import msgspec

from app.auth.authorization import ADMIN, READING
from app.destinations import service
from app.destinations.circuits import service as circuit_service
from app.destinations.circuits.service import DEFAULT_SECONDS, MOST_SECONDS, CircuitHistory, CircuitOrder
from app.destinations.service import Destination, DestinationChange, NewDestination
from app.errors import NotFound
from app.http.encryption_key import open_vault
from app.http.operation import Answer, Fallback, Path, Reply, operation
from app.http.principal import Principal
from app.http.request_context import Exchange
from app.kit.notifier import Notifier
from app.kit.postgres.database import Connection, Database
from app.kit.worker_registry import WorkerWatch
from app.settings import Settings
from app.vocabulary.addresses import parse_networks
from app.vocabulary.freshness import Freshness

PATH: Final = "/v1/destinations"
_DESTINATION: Final = PATH + "/{name}"
_TAG: Final = "destinations"

Name = Annotated[
    str, Path(description="The destination.", schema={"type": "string", "minLength": 1}, example="hubspot")
]


class DestinationList(Freshness, frozen=True):
    destinations: list[Destination]


class CircuitQuery(msgspec.Struct, frozen=True):
    limit: Annotated[int, msgspec.Meta(ge=1, le=200)] = 20
    """Most changes."""


class Destinations(msgspec.Struct, frozen=True):
    """The destinations of a tenant as they are shown, and changes of their state."""

    database: Database
    workers: WorkerWatch
    notifier: Notifier

    async def read_all(self, tenant_id: int) -> list[Destination]:
        workers = await self.workers.look()
        async with self.database.connection() as connection:
            return await service.list_destinations(connection, tenant_id, workers)

    async def find(self, tenant_id: int, name: str) -> Destination:
        """Raises `NotFound`: it does not exist."""
        for destination in await self.read_all(tenant_id):
            if destination.name == name:
                return destination
        raise NotFound("There is no such destination.")

    async def set_state(self, principal: Principal, name: str, state: str, request_id: str) -> None:
        async with self.database.connection() as connection:
            destination_id = await service.set_destination_state(
                connection, principal.tenant_id, name, state, actor=principal.key_id
            )
        if state != "paused":
            # Its deliveries are due at once: to be sent, or to be recorded as skipped.
            self.notifier.notify(principal.tenant_id, [destination_id], reason=f"{state}:{request_id}")


@operation(
    "GET",
    PATH,
    tag=_TAG,
    access=READING,
    answers=Answer("All of them, by name."),
    fallback=Fallback(kind="destination"),
)
async def list_destinations(principal: Principal, destinations: Destinations) -> DestinationList:
    """The tenant's destinations.

    Credentials are never shown.
    """
    return DestinationList(await destinations.read_all(principal.tenant_id))


@operation(
    "POST",
    PATH,
    tag=_TAG,
    access=ADMIN,
    answers=Answer("It is there.", 201, headers=("Location",)),
    errors=(409,),
    keyed=True,
)
async def add_destination(
    body: NewDestination, principal: Principal, settings: Settings, connection: Connection
) -> Reply[Destination]:
    """Add a destination.

    Records that change from now on are synced to it.
    """
    vault = open_vault(settings)
    added = await service.add_destination(
        connection,
        vault,
        principal.tenant_id,
        body,
        private=parse_networks(settings.destination_private),
        most=settings.max_destinations,
        actor=principal.key_id,
    )
    return Reply(added, 201, {"Location": f"{PATH}/{quote(added.name)}"})


@operation(
    "GET",
    _DESTINATION,
    tag=_TAG,
    access=READING,
    answers=Answer("The destination."),
    fallback=Fallback(kind="destination"),
)
async def read_destination(name: Name, principal: Principal, destinations: Destinations) -> Destination:
    """One destination."""
    return await destinations.find(principal.tenant_id, name)


@operation("PATCH", _DESTINATION, tag=_TAG, access=ADMIN, answers=Answer("The destination."))
async def change_destination(
    name: Name,
    body: DestinationChange,
    principal: Principal,
    exchange: Exchange,
    settings: Settings,
    database: Database,
    destinations: Destinations,
    notifier: Notifier,
) -> Destination:
    """Change a destination's credentials or options.

    Waiting deliveries use them from the next call on; new credentials are tried at once, even if the circuit is open.
    Records that have arrived are not sent again because of new options.
    """
    vault = open_vault(settings)
    async with database.connection() as connection:
        destination_id = await service.change_destination(
            connection,
            vault,
            principal.tenant_id,
            name,
            body,
            private=parse_networks(settings.destination_private),
            actor=principal.key_id,
        )
    notifier.notify(principal.tenant_id, [destination_id], reason=f"change:{exchange.request_id}")
    return await destinations.find(principal.tenant_id, name)


@operation("DELETE", _DESTINATION, tag=_TAG, access=ADMIN, answers=Answer("It is gone.", 204))
async def remove_destination(name: Name, principal: Principal, exchange: Exchange, destinations: Destinations) -> None:
    """Remove a destination.

    Pending deliveries are skipped; history remains.
    """
    await destinations.set_state(principal, name, "removed", exchange.request_id)


@operation("POST", _DESTINATION + "/pause", tag=_TAG, access=ADMIN, answers=Answer("The destination."))
async def pause_destination(
    name: Name, principal: Principal, exchange: Exchange, destinations: Destinations
) -> Destination:
    """Pause a destination.

    Nothing is sent until it is resumed; nothing is lost.
    """
    await destinations.set_state(principal, name, "paused", exchange.request_id)
    return await destinations.find(principal.tenant_id, name)


@operation("POST", _DESTINATION + "/resume", tag=_TAG, access=ADMIN, answers=Answer("The destination."))
async def resume_destination(
    name: Name, principal: Principal, exchange: Exchange, destinations: Destinations
) -> Destination:
    """Resume a destination.

    Waiting deliveries are due at once. An open circuit remains open for its time, unless it is closed by an override.
    """
    await destinations.set_state(principal, name, "active", exchange.request_id)
    return await destinations.find(principal.tenant_id, name)


@operation("GET", _DESTINATION + "/circuit", tag=_TAG, access=READING, answers=Answer("The circuit and its changes."))
async def read_circuit(name: Name, query: CircuitQuery, principal: Principal, connection: Connection) -> CircuitHistory:
    """The circuit of a destination.

    The circuit of this tenant's connection. While it is open no calls are made, which spends no attempt; half-open it
    allows a few probes. If calls of several tenants to one CRM fail, all calls to it are suspended for a while: the
    destination then shows `CIRCUIT_OPEN` and the seconds.
    """
    return await circuit_service.read_circuit(connection, principal.tenant_id, name, query.limit)


def _describe_circuit(_: Settings) -> str:
    return (
        f"`open` sends nothing for `seconds` (default {DEFAULT_SECONDS:g}, at most {MOST_SECONDS:g}) and then makes a "
        "few probes; `closed` sends at once. It is this tenant's own circuit: only the operator can release a CRM "
        "for all tenants. The last override counts."
    )


@operation(
    "POST",
    _DESTINATION + "/circuit",
    tag=_TAG,
    access=ADMIN,
    description=_describe_circuit,
    answers=Answer("The destination."),
)
async def set_circuit(
    name: Name,
    body: CircuitOrder,
    principal: Principal,
    exchange: Exchange,
    database: Database,
    destinations: Destinations,
    notifier: Notifier,
) -> Destination:
    """Override the circuit of a destination."""
    async with database.connection() as connection:
        destination_id = await circuit_service.set_circuit(
            connection, principal.tenant_id, name, body, actor=principal.key_id
        )
    notifier.notify(principal.tenant_id, [destination_id], reason=f"circuit:{exchange.request_id}")
    return await destinations.find(principal.tenant_id, name)
