"""One destination's turn in one worker: claims what is due, a few at a time, and sends each claim by itself.

The claims of a destination go one after the other, over all workers, so one claimer a worker takes as many deliveries
as it has lanes free.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Final

import asyncpg
import structlog

from app.db import delivering, flow
from app.db.delivering import Claim
from app.db.pool import Database
from app.domain.outcomes import ErrorCode
from app.errors import TrancheError
from jobs.breaker.rules import Permits, Rejected
from jobs.deliver import Delivery
from jobs.line import Line
from jobs.recording import give_back, skip
from jobs.way import Way

log = structlog.get_logger()

_GATHER: Final = 0.004
"""Seconds for more lanes to become free, while most are under way: one claim then serves them all."""
_PLACE_WAIT: Final = 0.05
"""Seconds after which a worker that found all places taken by others looks again; doubles each time."""
_PLACE_WAIT_CAP: Final = 1.0


class Serving:
    """Serves one destination until nothing is due, its way is closed, or the slice is over."""

    def __init__(
        self,
        way: Way,
        database: Database,
        *,
        announce: Callable[[float], None],
        stopping: Callable[[], bool],
        monotonic: Callable[[], float],
        random: Callable[[], float],
        new_token: Callable[[], uuid.UUID],
    ) -> None:
        self.way = way
        self._database = database
        self._announce = announce
        self._stopping = stopping
        self._monotonic = monotonic
        self._random = random
        self._new_token = new_token
        self._group: asyncio.TaskGroup
        self._flying = 0
        self._news = asyncio.Event()
        """A delivery ended, or something new was announced."""
        self._closed = False

    async def __aenter__(self) -> Serving:
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        return self

    async def __aexit__(self, *trouble: object) -> None:
        """Waits for what is under way; called off, it calls that off."""
        await self._group.__aexit__(*trouble)  # type: ignore[arg-type]

    def poke(self) -> None:
        """Something new may be due."""
        self._news.set()

    async def slice(self, until: float) -> bool:
        """Claim and send; true: the slice ended before the work did."""
        place_wait = _PLACE_WAIT
        while not self._closed and not self._stopping():
            if self._monotonic() >= until:
                return True
            self._news.clear()
            free = self.way.lanes.count - self._flying
            if free <= 0:
                await self._news.wait()
                continue
            if self._flying > 4 * free:
                await asyncio.sleep(_GATHER)
                free = self.way.lanes.count - self._flying
            if await self._claim_some(free):
                place_wait = _PLACE_WAIT
                continue
            if self._closed:
                break
            if self._flying:
                # What ends may make room, or free a contact that something due waits for.
                await self._news.wait()
            elif await self._lacks_place():
                await asyncio.sleep(place_wait * (0.5 + self._random()))
                place_wait = min(2 * place_wait, _PLACE_WAIT_CAP)
            else:
                break
        return False

    async def _claim_some(self, free: int) -> bool:
        """Claim up to so many deliveries and begin to send them; false: none was to be had."""
        way, line = self.way, self.way.line
        permits: Permits | None = None
        if line is not None:
            admitted = await line.admit()
            if isinstance(admitted, Rejected):
                await self._close(admitted, line)
                return False
            permits = admitted
            if permits.probe or line.rate:
                free = 1  # each of them needs leave of its own, which is not to be had at once
        claims: list[Claim] = []
        leased_until = self._monotonic() + way.settings.delivery_lease
        token = self._new_token()
        try:
            async with self._database.connection() as connection:
                claims = await delivering.claim_deliveries(
                    connection,
                    way.route.tenant_id,
                    way.route.destination_id,
                    token=token,
                    lease=way.settings.delivery_lease,
                    concurrency=way.settings.delivery_concurrency,
                    limit=max(1, free),
                )
        except (TrancheError, asyncpg.PostgresError):
            self._group.create_task(self._give_back(way, token, leased_until))
            raise
        finally:
            if line is not None and permits is not None and (not claims or claims[0].removed):
                await line.release(permits)
                permits = None
        for claim in claims:
            self._flying += 1
            self._group.create_task(self._send(way, claim, leased_until, permits))
            permits = None
        return bool(claims)

    async def _give_back(self, way: Way, token: uuid.UUID, until: float) -> None:
        try:
            await give_back(
                self._database,
                way.route.tenant_id,
                way.route.destination_id,
                token,
                until=until,
                monotonic=self._monotonic,
            )
        except Exception:
            log.exception("claim_not_given_back", destination_id=way.route.destination_id)

    async def _send(self, way: Way, claim: Claim, leased_until: float, permits: Permits | None) -> None:
        try:
            if way.line is None or claim.removed:
                await skip(self._database, claim)
                return
            delivery = Delivery(
                claim,
                way.line,
                self._database,
                way.settings,
                lanes=way.lanes,
                monotonic=self._monotonic,
                random=self._random,
                shape=way.shape,
                leased_until=leased_until,
                permits=permits,
            )
            recorded = await delivery.run()
            if delivery.blocked_for is not None:
                self._closed = True
                self._announce(delivery.blocked_for)
            elif recorded is not None and recorded.wait is not None:
                self._announce(recorded.wait)
        except (TrancheError, asyncpg.PostgresError) as error:
            # Its trouble is its own: in a group it would call off what the others are sending.
            self._leave(error)
        except Exception:
            self._closed = True
            log.exception("lane_left", delivery_id=claim.delivery_id)
        finally:
            self._flying -= 1
            self._news.set()

    def _leave(self, error: Exception) -> None:
        """PostgreSQL is in trouble: the sweeper comes back to the destination."""
        self._closed = True
        log.warning(
            "lane_left",
            tenant_id=self.way.route.tenant_id,
            destination_id=self.way.route.destination_id,
            error=error,
        )

    async def _close(self, refused: Rejected, line: Line) -> None:
        self._closed = True
        await self.block(refused.retry_after, refused.code, line.explain(refused))

    async def block(self, seconds: float, code: ErrorCode, detail: str) -> None:
        """Nothing of this destination is due for so long."""
        route = self.way.route
        async with self._database.connection() as connection:
            await delivering.block_destination(
                connection, route.tenant_id, route.destination_id, seconds, code, detail
            )
        self._announce(seconds)

    async def _lacks_place(self) -> bool:
        route = self.way.route
        async with self._database.connection() as connection:
            return await flow.lacks_place(
                connection, route.tenant_id, route.destination_id, self.way.settings.delivery_concurrency
            )
