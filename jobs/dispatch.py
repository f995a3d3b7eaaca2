"""Brings deliveries and destinations together, a slice of time at a time.

A wake-up names a destination, not a delivery: what is due stands in PostgreSQL, and is claimed there. A tenant with
ten thousand deliveries therefore has no more places in any queue than one with one.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Final

import asyncpg
import structlog

from app.db import circuits, delivering
from app.db.delivering import Route
from app.db.pool import Database
from app.domain.outcomes import CircuitState, ErrorCode
from app.errors import TrancheError
from app.settings import Settings
from app.wake import Waker
from jobs.serving import Serving
from jobs.way import Way, Ways

log = structlog.get_logger()

_DRAINS: Final = 64
"""Destinations served at a time by one worker; the others take turns, first come first served."""
_SHORT_WAIT: Final = 60.0
_UNUSABLE: Final = 30.0
"""Seconds after which a destination that cannot be used as it is set up is looked at again."""


class Dispatcher:
    """Serves every destination that has something due."""

    def __init__(
        self,
        database: Database,
        ways: Ways,
        waker: Waker,
        settings: Settings,
        *,
        monotonic: Callable[[], float],
        random: Callable[[], float],
        new_token: Callable[[], uuid.UUID],
    ) -> None:
        self._database = database
        self._ways = ways
        self._waker = waker
        self._settings = settings
        self._monotonic = monotonic
        self._random = random
        self._new_token = new_token
        self._serving: dict[tuple[int, int], bool] = {}
        """Destinations being served; true: something new was announced meanwhile."""
        self._at_work: dict[tuple[int, int], Serving] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(_DRAINS)
        self._stopping = False

    def serve(self, tenant_id: int, destination_id: int) -> None:
        """See to it that this destination is looked at soon; returns at once."""
        key = (tenant_id, destination_id)
        if self._stopping or self._database.storage.seconds:
            return  # what could not be recorded must not be sent; the sweeper comes back to it
        if key in self._serving:
            self._serving[key] = True
            if key in self._at_work:
                self._at_work[key].poke()
            return
        self._serving[key] = False
        task = asyncio.create_task(self._serve(key))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self, margin: float) -> None:
        """Claim nothing more, let calls under way end, as long as they may take and `margin` seconds more, then call
        them off."""
        self._stopping = True
        longest = max(
            (serving.way.settings.crm_total_timeout for serving in self._at_work.values()),
            default=self._settings.crm_total_timeout,
        )
        grace = longest + margin
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
            log.warning("destination_left", tenant_id=key[0], destination_id=key[1], error=error)
        except Exception:
            log.exception("destination_left", tenant_id=key[0], destination_id=key[1])
        finally:
            del self._serving[key]

    async def _drain(self, tenant_id: int, destination_id: int) -> bool:
        """Deliver what is due; true: the slice ended before the work did, and others wait for their turn."""
        way = await self._find(tenant_id, destination_id)
        if way is None:
            return False
        route = way.route
        serving = Serving(
            way,
            self._database,
            announce=lambda seconds: self._announce(route, seconds),
            stopping=lambda: self._stopping,
            monotonic=self._monotonic,
            random=self._random,
            new_token=self._new_token,
        )
        async with serving:
            self._at_work[tenant_id, destination_id] = serving
            try:
                while await serving.slice(self._monotonic() + self._settings.delivery_slice):
                    if self._turns.locked():
                        return True
                    # Nobody waits for the turn: on with it, as the destination is set up now.
                    found = await self._find(tenant_id, destination_id)
                    if found is None:
                        return False
                    serving.way = found
            except (TrancheError, asyncpg.PostgresError) as error:
                # Not raised: what is under way shall end.
                log.warning(
                    "destination_left", tenant_id=tenant_id, destination_id=destination_id, error=error
                )
            finally:
                del self._at_work[tenant_id, destination_id]
        return False

    async def _find(self, tenant_id: int, destination_id: int) -> Way | None:
        """How the destination is served now, after what an operator wants of its circuits was done."""
        async with self._database.connection() as connection:
            route = await delivering.read_destination(connection, tenant_id, destination_id)
        if route is None:
            return None
        try:
            way = self._ways.to(route)
        except ValueError as error:
            async with self._database.connection() as connection:
                await delivering.block_destination(
                    connection,
                    tenant_id,
                    destination_id,
                    _UNUSABLE,
                    ErrorCode.DESTINATION_UNAVAILABLE,
                    f"it cannot be used: {error}",
                )
            self._announce(route, _UNUSABLE)
            return None
        if await self._grant_wish(way):
            # The destination may have been changed after it was read, and its circuit closed for what it is now.
            return await self._find(tenant_id, destination_id)
        return way

    async def _grant_wish(self, way: Way) -> bool:
        """Whether there was one."""
        route = way.route
        async with self._database.connection() as connection:
            wish = await circuits.read_wish(connection, route.tenant_id, route.destination_id)
        if wish is None:
            return False
        if way.line is not None:
            shared = wish.circuit == "crm"
            if wish.circuit == "connection":
                await way.line.force(wish.state, 0.0, f"the destination was changed ({wish.by})")
            elif wish.state is CircuitState.CLOSED:
                await way.line.force(wish.state, 0.0, f"closed by hand ({wish.by})", shared=shared)
            elif wish.seconds > 0:
                # A little shorter than the destination is blocked: else the circuit would set its own words for these.
                seconds = max(wish.seconds - 0.1, 0.01)
                await way.line.force(wish.state, seconds, f"opened by hand ({wish.by})", shared=shared)
        async with self._database.connection() as connection:
            if wish.circuit == "crm" and wish.state is CircuitState.CLOSED:
                await circuits.unblock_crm(connection, route.kind, route.base_url)
            await circuits.clear_wish(connection, route.tenant_id, route.destination_id, wish)
        return True

    def _announce(self, route: Route, seconds: float) -> None:
        """Ask for a wake-up when the wait is over; a long one is left to the sweeper."""
        if seconds <= _SHORT_WAIT:
            due = round(self._monotonic() + seconds, 1)
            self._waker.wake(
                route.tenant_id, [route.destination_id], reason=f"due:{due}", delay=seconds + 0.01
            )
