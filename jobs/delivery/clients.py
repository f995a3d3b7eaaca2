"""Makes the client of a destination from the row that describes it: its policy, adapter, limits and circuits."""

import asyncio
import hashlib
from typing import Any, Final

import asyncpg
import msgspec
import structlog

from app.deliveries import queries
from app.deliveries.queries import Route
from app.destinations.credentials import RefreshTokenCredentials, Renewed
from app.destinations.kinds import KINDS, options_for
from app.destinations.options import UNSENT
from app.destinations.presets import resolve_preset
from app.errors import SettingsError, TrancheError
from app.kit.encryption import Vault
from app.kit.postgres.database import Database
from app.resources.declaration import Resource
from app.resources.types.contacts import CONTACTS
from app.settings import Settings
from app.telemetry import CircuitChanged, emit
from app.vocabulary.states import ErrorCode
from jobs.breaker.breaker import Breaker
from jobs.breaker.rules import Circuit, Transition
from jobs.breaker.transition_log import CircuitChange, TransitionLog
from jobs.crm import ADAPTERS
from jobs.crm.authorization import FixedAuthorizer
from jobs.crm.port import Authorizer, Crm, Timeouts
from jobs.delivery.destination_state import DestinationState, DestinationStates
from jobs.delivery.guarded_client import GuardedClient
from jobs.delivery.limits.rate_limiter import RateLimiter
from jobs.delivery.policy import DeliveryPolicy
from jobs.delivery.token_refresher import RenewingAuthorizer, open_credentials
from jobs.outbound.ssrf import DestinationSessions

log = structlog.get_logger()

_BLOCK_TIMEOUT: Final = 1.0
"""Seconds for which the answer of a call waits at most until its destination is blocked."""


class DestinationContext(msgspec.Struct, frozen=True):
    """What a worker serves one destination with."""

    destination: Route
    client: GuardedClient | None
    """`None`: it is removed, and not called any more."""
    policy: DeliveryPolicy
    state: DestinationState
    label: str | None = None
    """Its name in metrics, if it has one there."""
    options_hash: str = ""
    """Changes with every option that may change the bodies that it is sent."""

    @property
    def key(self) -> tuple[int, int]:
        """Tenant and destination, as queries take them."""
        return self.destination.tenant_id, self.destination.destination_id


class ClientFactory(msgspec.Struct, frozen=True, eq=False):
    """Circuits, rates and states of destinations outlive the clients."""

    database: Database
    breaker: Breaker
    rate_limiter: RateLimiter
    transitions: TransitionLog
    sessions: DestinationSessions
    vault: Vault
    settings: Settings
    states: DestinationStates = msgspec.field(default_factory=DestinationStates)
    labels: dict[tuple[int, int], str] = msgspec.field(default_factory=dict)

    def connect(self, destination: Route) -> DestinationContext:
        """
        Raises:
            ValueError: the destination is set up in a way that no worker can use.
            SettingsError: this worker cannot use it; another one may.
        """
        state = self.states.of(destination.tenant_id, destination.destination_id)
        removed = destination.state == "removed"
        policy = DeliveryPolicy.of(self.settings, {} if removed else destination.options)
        state.limit.most = policy.concurrency
        if removed:
            # What is pending for a removed destination is skipped, whether or not it could be called.
            return DestinationContext(destination, None, policy, state)
        label = self._label(destination)
        client = self._client(destination, policy, state, label)
        return DestinationContext(destination, client, policy, state, label, hash_options(destination.options))

    def _label(self, destination: Route) -> str | None:
        """Its name in metrics: there are so many, as long as this process lives, and all others share one."""
        most, key = self.settings.metrics_destinations, (destination.tenant_id, destination.destination_id)
        if key not in self.labels and len(self.labels) < most:
            self.labels[key] = f"{destination.tenant}/{destination.name}"
        return self.labels.get(key, "other") if most else None

    def _client(
        self, destination: Route, policy: DeliveryPolicy, state: DestinationState, label: str | None
    ) -> GuardedClient:
        tenant_id, destination_id = destination.tenant_id, destination.destination_id
        authorizer = self._authorizer(destination, policy.timeouts, state)
        made_of = (destination.kind, destination.base_url, authorizer, destination.options, policy.timeouts)
        made: dict[Resource, Crm] = {}

        def crm_for(resource: Resource) -> Crm:
            if resource not in made:
                made[resource] = state.adapter(
                    resource.type_id,
                    (*made_of, resource),
                    lambda: self._adapter(destination, policy.timeouts, resource, authorizer),
                )
            return made[resource]

        if destination.kind not in ADAPTERS:
            raise SettingsError(f"destination {destination.name!r} is of the unknown kind {destination.kind!r}")
        crm_for(CONTACTS)  # whatever is wrong with its set-up is wrong for every type
        # Any server of a tenant's choice may be behind such a kind: its calls say nothing to other tenants.
        crm_circuit = (
            None
            if KINDS[destination.kind].takes_any
            else Circuit(f"crm:{destination.kind}:{destination.base_url}", tenant_id)
        )
        own_circuit = f"connection:{tenant_id}:{destination_id}"

        def on_transition(transition: Transition, reason: str, detail: str) -> None:
            circuit = "connection" if transition.name == own_circuit else "crm"
            emit(
                CircuitChanged(
                    kind=destination.kind,
                    destination=label,
                    circuit=transition.name,
                    scope=circuit,
                    before=transition.before.value,
                    after=transition.after.value,
                    opens=transition.opens,
                    retry_after=round(transition.retry_after, 3),
                    reason=reason,
                )
            )
            self.transitions.add(CircuitChange(tenant_id, destination_id, circuit, transition, reason, detail))

        async def block(seconds: float, detail: str) -> None:
            try:
                async with asyncio.timeout(_BLOCK_TIMEOUT), self.database.connection() as connection:
                    await queries.block_destination(
                        connection, tenant_id, destination_id, seconds, ErrorCode.CIRCUIT_OPEN, detail
                    )
            except (TrancheError, asyncpg.PostgresError, TimeoutError) as error:
                # The next call is rejected, and says it again.
                log.warning("destination_not_blocked", error=error)

        return GuardedClient(
            kind=destination.kind,
            label=label,
            crm_for=crm_for,
            breaker=self.breaker,
            rate_limiter=self.rate_limiter,
            state=state,
            own_circuit=own_circuit,
            crm_circuit=crm_circuit,
            policy=policy,
            operator_timeouts=Timeouts(self.settings.crm_connect_timeout, self.settings.crm_total_timeout),
            on_transition=on_transition,
            block=block,
        )

    def _authorizer(self, destination: Route, timeouts: Timeouts, state: DestinationState) -> Authorizer:
        stored = open_credentials(self.vault, destination, destination.credentials)
        credentials = stored.credentials
        if not isinstance(credentials, Renewed):
            return state.authorizer(credentials, lambda: FixedAuthorizer(credentials))
        identity = credentials
        if isinstance(credentials, RefreshTokenCredentials):
            identity = msgspec.structs.replace(credentials, refresh_token="")
        authorizer = state.authorizer(
            (destination.base_url, identity, timeouts),
            lambda: RenewingAuthorizer(
                destination, stored, database=self.database, vault=self.vault, sessions=self.sessions, timeouts=timeouts
            ),
        )
        assert isinstance(authorizer, RenewingAuthorizer)
        authorizer.see(destination.credentials, stored)
        return authorizer

    def _adapter(self, destination: Route, timeouts: Timeouts, resource: Resource, authorizer: Authorizer) -> Crm:
        connect = ADAPTERS[destination.kind]
        return connect(
            session=self.sessions.to(destination.base_url),
            base_url=destination.base_url,
            authorizer=authorizer,
            resource=resource,
            options=options_for(resource, destination.name, destination.options),
            timeouts=timeouts,
        )


def hash_options(options: dict[str, Any]) -> str:
    """The same for two destinations that are sent the same; empty without options."""
    others = {name: value for name, value in resolve_preset(options).items() if name not in UNSENT}
    return hashlib.sha256(msgspec.json.encode(others, order="sorted")).hexdigest()[:16] if others else ""
