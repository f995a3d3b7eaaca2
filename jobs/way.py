"""From a destination as it is stored to the line that calls it: its own limits, its adapter, its circuits."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any, Final

import asyncpg
import msgspec
import structlog

from app.db import delivering
from app.db.delivering import Route
from app.db.pool import Database
from app.domain.destinations import Limits, limits_of
from app.domain.outcomes import ErrorCode
from app.errors import SettingsError, TrancheError
from app.settings import Settings
from app.vault import Vault
from jobs.breaker.breaker import Breaker
from jobs.breaker.rules import Circuit, Transition
from jobs.breaker.transition_log import TransitionLog
from jobs.crm import ADAPTERS
from jobs.crm.port import Crm, Timeouts
from jobs.egress import Egress
from jobs.line import Line
from jobs.pace import Pace
from jobs.windows import Lanes, Windows

log = structlog.get_logger()

_HOLD: Final = 1.0
"""Seconds that a call's answer waits for its destination to be held at most."""
LEASE_MARGIN: Final = 5.0
"""Seconds that a lease is longer than the longest call: the time to claim, load and record."""


class Way(msgspec.Struct, frozen=True):
    """How one destination is served."""

    route: Route
    line: Line | None
    """`None`: it is removed, and not called any more."""
    settings: Settings
    """As its options have them."""
    lanes: Lanes
    shape: str = ""
    """Of the bodies that it is sent: changes with every option that may change them."""


class Ways:
    """Makes ways; what circuits, rates, windows and adapters remember outlives each of them."""

    def __init__(
        self,
        database: Database,
        breaker: Breaker,
        pace: Pace,
        transitions: TransitionLog,
        egress: Egress,
        vault: Vault,
        settings: Settings,
        *,
        monotonic: Callable[[], float],
    ) -> None:
        self._database = database
        self._breaker = breaker
        self._pace = pace
        self._transitions = transitions
        self._egress = egress
        self._vault = vault
        self._settings = settings
        self._monotonic = monotonic
        self._windows = Windows(monotonic)

    def to(self, route: Route) -> Way:
        """
        Raises:
            ValueError: the destination is set up in a way that no worker can use.
            SettingsError: this worker cannot use it; another one may.
        """
        lanes = self._windows.of(route.tenant_id, route.destination_id)
        if route.state == "removed":
            # What a removed destination was owed is skipped, whether or not it could be reached.
            lanes.most = self._settings.delivery_concurrency
            return Way(route, None, self._settings, lanes)
        settings = settings_for(self._settings, route.options)
        lanes.most = settings.delivery_concurrency
        return Way(route, self._line(route, settings, lanes), settings, lanes, shape_of(route.options))

    def _line(self, route: Route, settings: Settings, lanes: Lanes) -> Line:
        timeouts = Timeouts(settings.crm_connect_timeout, settings.crm_total_timeout)
        made_of = (route.kind, route.base_url, route.credentials, route.options, timeouts)
        crm = lanes.adapter(made_of, lambda: self._adapter(route, timeouts))
        # Any service may be behind `http`, with a path of each tenant's choice: nobody's calls say anything to others.
        crm_circuit = (
            None if route.kind == "http" else Circuit(f"crm:{route.kind}:{route.base_url}", route.tenant_id)
        )
        own_circuit = f"connection:{route.tenant_id}:{route.destination_id}"

        def tell(transition: Transition, reason: str, detail: str) -> None:
            circuit = "connection" if transition.name == own_circuit else "crm"
            self._transitions.add(route.tenant_id, route.destination_id, circuit, transition, reason, detail)

        async def hold(seconds: float, detail: str) -> None:
            try:
                async with asyncio.timeout(_HOLD), self._database.connection() as connection:
                    await delivering.block_destination(
                        connection,
                        route.tenant_id,
                        route.destination_id,
                        seconds,
                        ErrorCode.CIRCUIT_OPEN,
                        detail,
                    )
            except (TrancheError, asyncpg.PostgresError, TimeoutError) as error:
                # The next call is refused, and says it again.
                log.warning("destination_not_held", error=error)

        return Line(
            crm,
            self._breaker,
            self._pace,
            lanes,
            own_circuit=own_circuit,
            crm_circuit=crm_circuit,
            rate=settings.crm_rate,
            timeouts=timeouts,
            patience=Timeouts(self._settings.crm_connect_timeout, self._settings.crm_total_timeout),
            monotonic=self._monotonic,
            tell=tell,
            hold=hold,
        )

    def _adapter(self, route: Route, timeouts: Timeouts) -> Crm:
        adapter = ADAPTERS.get(route.kind)
        if adapter is None:
            raise SettingsError(f"destination {route.name!r} is of the unknown kind {route.kind!r}")
        token = self._vault.open(
            route.credentials, tenant_id=route.tenant_id, name=route.name, address=route.base_url
        )
        return adapter(
            session=self._egress.to(route.base_url),
            base_url=route.base_url,
            token=token,
            options=route.options,
            timeouts=timeouts,
        )


def shape_of(options: dict[str, Any]) -> str:
    """Says of two ways whether they send the same; empty for one without options."""
    limits = {"batch_size", *Limits.__struct_fields__}
    told = {name: value for name, value in options.items() if name not in limits}
    return hashlib.sha256(msgspec.json.encode(told, order="sorted")).hexdigest()[:16] if told else ""


def settings_for(settings: Settings, options: dict[str, Any]) -> Settings:
    """The settings as one destination's options change them.

    Raises:
        ValueError: an option cannot be used.
    """
    limits = limits_of(options)
    total = limits.total_timeout or settings.crm_total_timeout
    connect = limits.connect_timeout or settings.crm_connect_timeout
    return msgspec.structs.replace(
        settings,
        crm_connect_timeout=min(connect, total),
        crm_total_timeout=total,
        crm_rate=settings.crm_rate if limits.rate is None else limits.rate,
        delivery_concurrency=limits.concurrency or settings.delivery_concurrency,
        delivery_lease=max(settings.delivery_lease, total + LEASE_MARGIN),
    )
