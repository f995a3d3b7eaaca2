"""Places for work that is in progress, handed on to the tenants that wait by their weight."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from app.kit.fair_order import FairOrder
from jobs.scheduling.fair_queue import TenantShare


class Places:
    def __init__(self, count: int, share_of: Callable[[int], TenantShare]) -> None:
        self._free = count
        self._share_of = share_of
        self._order = FairOrder()
        self._in_progress: Counter[int] = Counter()
        self._waiting: dict[int, deque[asyncio.Future[None]]] = {}

    def wanted(self, tenant_id: int) -> bool:
        """Somebody waits who could have the place of this tenant."""
        return tenant_id in self._waiting or bool(self._waiting and not self._free)

    @asynccontextmanager
    async def take(self, tenant_id: int) -> AsyncIterator[None]:
        """A place, once the tenant is next and has fewer than its cap."""
        await self._wait(tenant_id)
        try:
            yield
        finally:
            self._end(tenant_id)

    async def _wait(self, tenant_id: int) -> None:
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant_id, deque()).append(mine)
        self._order.add(tenant_id)
        self._hand_on()
        try:
            await mine
        except asyncio.CancelledError:
            if mine.cancelled():
                self._remove(tenant_id, mine)
            else:
                self._end(tenant_id)
            raise

    def _end(self, tenant_id: int) -> None:
        self._free += 1
        self._in_progress[tenant_id] -= 1
        if not self._in_progress[tenant_id]:
            del self._in_progress[tenant_id]
        self._hand_on()

    def _hand_on(self) -> None:
        while self._free and (tenant_id := self._find_next()) is not None:
            first = self._waiting[tenant_id][0]
            self._remove(tenant_id, first)
            if not first.done():
                self._free -= 1
                self._in_progress[tenant_id] += 1
                self._order.charge(tenant_id, 1.0, self._share_of(tenant_id).weight)
                first.set_result(None)

    def _find_next(self) -> int | None:
        return self._order.first(self._may_start)

    def _may_start(self, tenant_id: int) -> bool:
        cap = self._share_of(tenant_id).cap
        return cap is None or self._in_progress[tenant_id] < cap

    def _remove(self, tenant_id: int, waiter: "asyncio.Future[None]") -> None:
        queue = self._waiting.get(tenant_id)
        if queue is not None and waiter in queue:
            queue.remove(waiter)
            if not queue:
                del self._waiting[tenant_id]
                self._order.remove(tenant_id)
