"""Whose turn it is at the connections of one process: tenants one after the other, whatever each of them asks for."""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, Final

from app.errors import Overloaded

SERVICE: Final = 0
"""Acts for nobody in particular: health, and what is read for many at once."""
STRANGERS: Final = -1
"""Acts for whoever is not known yet."""
ACTING: Final[ContextVar[int]] = ContextVar("acting", default=SERVICE)
"""The tenant that the present task works for, or one of the above."""

_RESERVE: Final = 2
"""Turns that one tenant alone leaves free: whoever comes next waits for nobody."""
_STRANGERS_SHARE: Final = 2
_RECENT: Final = 2.0
"""Seconds since another tenant's last turn for which the tenants share."""

_Waiter = asyncio.Future[None]
_held: Final[ContextVar[asyncio.Task[Any] | None]] = ContextVar("held", default=None)


class ConnectionQueue:
    """So many at a time, handed on to the tenants that wait in turn, and within a tenant in order.

    One tenant never has all of them, and while others are there no more than its share, so that what each of these
    does is not slowed down by too many transactions at a time either.
    """

    def __init__(self, count: int, *, share: int, timeout: float) -> None:
        """`share`: the most of one tenant beside others. `timeout`: seconds after which waiting ends."""
        self._free = count
        self._share = max(1, min(share, count))
        self._alone = max(1, count - _RESERVE)
        self._timeout = timeout
        self._active: Counter[int] = Counter()
        self._recent: OrderedDict[int, float] = OrderedDict()
        """When each tenant last took a turn, the longest ago first."""
        self._waiting: OrderedDict[int, deque[_Waiter]] = OrderedDict()
        """The tenant that is served next is first."""

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """A turn of the acting tenant. What the same task does within one has it already.
        Raises `Overloaded`: it did not come in time."""
        task = asyncio.current_task()
        if _held.get() is task:
            yield
            return
        tenant = ACTING.get()
        if self._free and self._active[tenant] < self._limit(tenant):
            self._start(tenant)
        else:
            await self._wait(tenant)
        _held.set(task)
        try:
            yield
        finally:
            _held.set(None)
            self._end(tenant)

    def _limit(self, tenant: int) -> int:
        if tenant == SERVICE:
            return self._alone
        if tenant == STRANGERS:
            return min(_STRANGERS_SHARE, self._alone)
        longest_ago = asyncio.get_running_loop().time() - _RECENT
        while self._recent and next(iter(self._recent.values())) < longest_ago:
            self._recent.popitem(last=False)
        others = len(self._recent) - (tenant in self._recent)
        return min(self._share, self._alone) if others else self._alone

    def _start(self, tenant: int) -> None:
        self._free -= 1
        self._active[tenant] += 1
        if tenant > SERVICE:
            self._recent[tenant] = asyncio.get_running_loop().time()
            self._recent.move_to_end(tenant)

    def _end(self, tenant: int) -> None:
        self._free += 1
        self._active[tenant] -= 1
        if not self._active[tenant]:
            del self._active[tenant]
        while self._free and self._hand_on():
            pass

    async def _wait(self, tenant: int) -> None:
        mine: _Waiter = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(mine)
        try:
            async with asyncio.timeout(self._timeout):
                await mine
        except BaseException as error:
            if mine.done() and not mine.cancelled():
                self._end(tenant)  # it came when nobody was there any more
            else:
                self._forget(tenant, mine)
            if isinstance(error, TimeoutError):
                raise Overloaded(retry_after=1.0) from error
            raise

    def _forget(self, tenant: int, waiter: _Waiter) -> None:
        queue = self._waiting.get(tenant, deque())
        if waiter in queue:
            queue.remove(waiter)
            if not queue:
                del self._waiting[tenant]

    def _hand_on(self) -> bool:
        """The first tenant that may have one more gets it, and is the last from then on; false: there is none."""
        tenant = next((t for t in self._waiting if self._active[t] < self._limit(t)), None)
        if tenant is None:
            return False
        queue = self._waiting[tenant]
        waiter = queue.popleft()
        if queue:
            self._waiting.move_to_end(tenant)
        else:
            del self._waiting[tenant]
        if not waiter.done():
            self._start(tenant)
            waiter.set_result(None)
        return True
