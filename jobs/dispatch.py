"""Brings deliveries and destinations together, a slice of time at a time.

A wake-up names a destination, not a delivery: what is due stands in PostgreSQL, and is claimed there one delivery
after the other. A tenant with ten thousand deliveries therefore has no more places in any queue than one with one.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Any, Final

import aiohttp
import asyncpg
import structlog

from app.db import delivering
from app.db.delivering import Route
from app.db.pool import Database
from app.domain.outcomes import ErrorCode
from app.errors import SettingsError, TrancheError
from app.settings import Settings
from app.vault import Vault
from app.wake import Waker
from jobs.breaker import Breaker, Permits, Refused
from jobs.crm import ADAPTERS
from jobs.crm.port import Timeouts
from jobs.deliver import Delivery
from jobs.line import Line
from jobs.recording import skip

log = structlog.get_logger()

_DRAINS: Final = 64
"""Destinations served at a time by one worker; the others take turns, first come first served."""
_SHORT_WAIT: Final = 60.0
_UNUSABLE: Final = 30.0
"""Seconds after which a destination that cannot be used as it is set up is looked at again."""


class Dispatcher:
    """Serves every destination that has something due, each by at most `delivery_concurrency` lanes."""

    def __init__(
        self,
        database: Database,
        breaker: Breaker,
        session: aiohttp.ClientSession,
        waker: Waker,
        vault: Vault,
        settings: Settings,
        *,
        monotonic: Callable[[], float],
        random: Callable[[], float],
        new_token: Callable[[], uuid.UUID],
    ) -> None:
        self._database = database
        self._breaker = breaker
        self._session = session
        self._waker = waker
        self._vault = vault
        self._settings = settings
        self._monotonic = monotonic
        self._random = random
        self._new_token = new_token
        self._serving: dict[tuple[int, int], bool] = {}
        """Destinations being served; true: something new was announced meanwhile."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(_DRAINS)
        self._stopping = False

    def serve(self, tenant_id: int, destination_id: int) -> None:
        """See to it that this destination is looked at soon; returns at once."""
        key = (tenant_id, destination_id)
        if self._stopping:
            return
        if key in self._serving:
            self._serving[key] = True
            return
        self._serving[key] = False
        task = asyncio.create_task(self._serve(key))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self, grace: float) -> None:
        """Claim nothing more, let calls under way end within `grace` seconds, then call them off."""
        self._stopping = True
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _serve(self, key: tuple[int, int]) -> None:
        try:
            more = True
            while more and not self._stopping:
                async with self._turns:
                    self._serving[key] = False
                    slice_over = await self._drain(*key)
                more = slice_over or self._serving[key]
        except TrancheError as error:
            # The sweeper comes back to it; the work itself is untouched in PostgreSQL.
            log.warning("destination_left", tenant_id=key[0], destination_id=key[1], error=str(error))
        except Exception:
            log.exception("destination_left", tenant_id=key[0], destination_id=key[1])
        finally:
            del self._serving[key]

    async def _drain(self, tenant_id: int, destination_id: int) -> bool:
        """Deliver what is due for one slice; true: the slice ended before the work did."""
        async with self._database.connection() as connection:
            route = await delivering.read_destination(connection, tenant_id, destination_id)
        if route is None:
            return False
        try:
            # What a removed destination was owed is skipped, whether or not it could be reached.
            line = None if route.state == "removed" else self._line(route)
        except ValueError as error:
            await self._close(
                route, _UNUSABLE, ErrorCode.DESTINATION_UNAVAILABLE, f"it cannot be used: {error}"
            )
            return False
        until = self._monotonic() + self._settings.delivery_slice
        lanes = 0
        over = False

        async with asyncio.TaskGroup() as group:

            def open_lane() -> None:
                nonlocal lanes
                if lanes < self._settings.delivery_concurrency:
                    lanes += 1
                    group.create_task(lane())

            async def lane() -> None:
                nonlocal lanes, over
                try:
                    while not self._stopping:
                        if self._monotonic() >= until:
                            over = True
                            return
                        if not await self._deliver_one(route, line, open_lane):
                            return
                except (TrancheError, asyncpg.PostgresError) as error:
                    # Its trouble is its own: in a group it would call off what other lanes are sending.
                    log.warning(
                        "lane_left",
                        tenant_id=tenant_id,
                        destination_id=destination_id,
                        error=str(error) or type(error).__name__,
                    )
                finally:
                    lanes -= 1

            open_lane()
        return over

    async def _deliver_one(self, route: Route, line: Line | None, found: Callable[[], None]) -> bool:
        """Claim and deliver one; false: nothing is due, or the way is closed."""
        admitted = None if line is None else await line.admit()
        if line is not None and isinstance(admitted, Refused):
            await self._close(route, admitted.retry_after, ErrorCode.CIRCUIT_OPEN, line.explain(admitted))
            return False
        permits = admitted if isinstance(admitted, Permits) else None
        claim = None
        leased_until = self._monotonic() + self._settings.delivery_lease
        try:
            async with self._database.connection() as connection:
                claim = await delivering.claim_delivery(
                    connection,
                    route.tenant_id,
                    route.destination_id,
                    token=self._new_token(),
                    lease=self._settings.delivery_lease,
                    concurrency=self._settings.delivery_concurrency,
                )
        finally:
            if line is not None and permits is not None and (claim is None or claim.removed):
                await line.release(permits)
        if claim is None:
            return False
        found()
        if line is None or claim.removed:
            await skip(self._database, claim)
            return True
        delivery = Delivery(
            claim,
            line,
            self._database,
            self._settings,
            monotonic=self._monotonic,
            random=self._random,
            leased_until=leased_until,
            permits=permits,
        )
        recorded = await delivery.run()
        if delivery.blocked_for is not None:
            self._announce(route, delivery.blocked_for)
            return False
        if recorded is not None and recorded.wait is not None:
            self._announce(route, recorded.wait)
        return True

    async def _close(self, route: Route, seconds: float, code: ErrorCode, detail: str) -> None:
        async with self._database.connection() as connection:
            await delivering.block_destination(
                connection, route.tenant_id, route.destination_id, seconds, code, detail
            )
        self._announce(route, seconds)

    def _announce(self, route: Route, seconds: float) -> None:
        """Ask for a wake-up when the wait is over; a long one is left to the sweeper."""
        if seconds <= _SHORT_WAIT:
            due = round(self._monotonic() + seconds, 1)
            self._waker.wake(
                route.tenant_id, [route.destination_id], reason=f"due:{due}", delay=seconds + 0.01
            )

    def _line(self, route: Route) -> Line:
        """
        Raises:
            ValueError: the destination is set up in a way that no worker can use.
            SettingsError: this worker cannot use it; another one may.
        """
        adapter = ADAPTERS.get(route.kind)
        if adapter is None:
            raise SettingsError(f"destination {route.name!r} is of the unknown kind {route.kind!r}")
        token = self._vault.open(route.credentials, tenant_id=route.tenant_id, name=route.name)
        options: dict[str, Any] = route.options
        crm = adapter(
            session=self._session,
            base_url=route.base_url,
            token=token,
            options=options,
            timeouts=Timeouts(self._settings.crm_connect_timeout, self._settings.crm_total_timeout),
        )
        return Line(
            crm,
            self._breaker,
            crm_circuit=f"crm:{route.kind}:{route.base_url}",
            connection_circuit=f"connection:{route.tenant_id}:{route.destination_id}",
        )
