"""Whose turn it is at the connections of one process: tenants by their weight, whatever each of them asks for.

Imports have a lane of their own. What they may not use is left for everything else, so that jobs, health and cancel
answer while imports wait; and the other way round.
"""

import asyncio
import math
import random
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, Final, NamedTuple

from app import telemetry
from app.errors import ClientGone, Overloaded
from app.kit.fair_order import FairOrder
from app.kit.postgres.adaptive_limit import AdaptiveLimit, ServiceRate


class Actor(NamedTuple):
    """Whom a task works for."""

    tenant_id: int
    weight: float = 1.0
    """Of the tenant beside others that wait as well."""


SERVICE: Final = Actor(0)
"""Acts for nobody in particular: health, and what is read for many at once."""
STRANGERS: Final = Actor(-1)
"""Acts for whoever is not known yet."""
ACTING: Final[ContextVar[Actor]] = ContextVar("acting", default=SERVICE)
"""Whom the present task works for."""

_RESERVE: Final = 2
"""Turns that one tenant alone leaves free, and imports for all else: whoever comes next waits for nobody."""
_STRANGERS_SHARE: Final = 2
_RECENT: Final = 2.0
"""Seconds since another tenant's last turn for which the tenants share."""
_LEAST_COST: Final = 1_024
"""Bytes that the smallest import counts for."""
_FIXED_WORK: Final = 16_384
"""A transaction takes time for what is in it, and as much more as for so many bytes."""
_LONG_LAG: Final = 0.05
"""Part of the time that an import may wait. An import goes through the event loop some ten times: once what is ready
there takes this long, those who arrive keep those who are being accepted from coming to an end."""
_EARLY: Final = 0.8
"""Part of the time that an import may wait, from which on others are refused on arrival."""
_STUCK_AFTER: Final = 0.25
"""Seconds after which an import of a tenant that has none in progress does not wait for its turn any more: those before
it may all be waiting for a lock, and nobody knows when one of them ends."""
_NEVER_SHED: Final = 8
"""Imports that wait, which are too few to say that the queue is too long."""

_held: Final[ContextVar[asyncio.Task[Any] | None]] = ContextVar("held", default=None)


class _Waiter:
    __slots__ = ("actor", "future", "load", "queued", "rescue", "size")

    def __init__(self, actor: Actor, size: int) -> None:
        self.actor = actor
        self.size = size
        self.load = max(size, _LEAST_COST) / actor.weight
        self.queued = False
        self.rescue: asyncio.TimerHandle | None = None
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class _Slots:
    """Turns of one kind, and who waits for them. One tenant never has all of them, and while others are there no more
    than its share."""

    def __init__(self, most: int, alone: int, share: int) -> None:
        self.most = most
        """Turns at a time; whoever has none yet may exceed it a little, up to `alone`."""
        self._alone = alone
        self._share = share
        self.active = 0
        self.waiting: dict[int, deque[_Waiter]] = {}
        self.loads: dict[int, float] = {}
        """Bytes that each tenant has waiting, by its weight."""
        self._of: Counter[int] = Counter()
        self._recent: OrderedDict[int, float] = OrderedDict()
        """When each tenant last took a turn, the longest ago first."""
        self._order = FairOrder()

    def may_start(self, tenant_id: int) -> bool:
        has = self._of[tenant_id]
        most = self.most if has else max(self.most, min(self.most + _RESERVE, self._alone))
        return self.active < most and has < self._limit(tenant_id)

    def _limit(self, tenant_id: int) -> int:
        if tenant_id == SERVICE.tenant_id:
            return self._alone
        if tenant_id == STRANGERS.tenant_id:
            return min(_STRANGERS_SHARE, self._alone)
        longest_ago = asyncio.get_running_loop().time() - _RECENT
        while self._recent and next(iter(self._recent.values())) < longest_ago:
            self._recent.popitem(last=False)
        others = len(self._recent) - (tenant_id in self._recent)
        return self._share if others else self._alone

    def start(self, actor: Actor, size: int) -> None:
        tenant_id = actor.tenant_id
        self.active += 1
        self._of[tenant_id] += 1
        self._order.charge(tenant_id, max(size, _LEAST_COST), actor.weight)
        if tenant_id > SERVICE.tenant_id:
            self._recent[tenant_id] = asyncio.get_running_loop().time()
            self._recent.move_to_end(tenant_id)

    def end(self, tenant_id: int) -> None:
        self.active -= 1
        self._of[tenant_id] -= 1
        if not self._of[tenant_id]:
            del self._of[tenant_id]

    def push(self, waiter: _Waiter) -> None:
        tenant_id = waiter.actor.tenant_id
        waiter.queued = True
        self.waiting.setdefault(tenant_id, deque()).append(waiter)
        self.loads[tenant_id] = self.loads.get(tenant_id, 0.0) + waiter.load
        self._order.add(tenant_id)

    def remove(self, waiter: _Waiter) -> bool:
        """False: it does not wait here any more."""
        if not waiter.queued:
            return False
        waiter.queued = False
        tenant_id = waiter.actor.tenant_id
        queue = self.waiting[tenant_id]
        if queue[-1] is waiter:
            queue.pop()
        else:
            queue.remove(waiter)
        self.loads[tenant_id] -= waiter.load
        if not queue:
            del self.waiting[tenant_id], self.loads[tenant_id]
            self._order.remove(tenant_id)
        return True

    def is_first(self, waiter: _Waiter) -> bool:
        """Its tenant has nothing in progress, and it may start."""
        tenant_id = waiter.actor.tenant_id
        return not self._of[tenant_id] and self.waiting[tenant_id][0] is waiter and self.may_start(tenant_id)

    def next(self) -> _Waiter | None:
        """The first one of the tenant that is next among those that may have one more."""
        if self.active < self.most:
            tenant_id = self._order.first(self.may_start)
        else:  # for the one that is next there may be one more, but not for others in its place
            tenant_id = self._order.first(lambda _: True)
            if tenant_id is None or not self.may_start(tenant_id):
                return None
        return None if tenant_id is None else self.waiting[tenant_id][0]


class ImportSlot:
    """What an import has while it is accepted."""

    __slots__ = ("accepted",)

    def __init__(self) -> None:
        self.accepted = False
        """Set when the import went through all phases: only then its time is compared with that of others."""


class ConnectionQueue:
    """So many at a time, handed on to the tenants that wait by their weights (imports: by bytes), and within a tenant
    in order."""

    def __init__(self, count: int, *, share: int, timeout: float) -> None:
        """`share`: the most of one tenant beside others. `timeout`: seconds after which waiting ends."""
        alone = max(1, count - _RESERVE)
        share = max(1, min(share, alone))
        self._free = count
        self._timeout = timeout
        self._others = _Slots(count, alone, share)
        # Their number is adapted: a share besides would let those with large batches have more bytes than others.
        self._adaptive = AdaptiveLimit(max(1, count // 2), max(1, alone - 1), count // 2)
        self._imports = _Slots(self._adaptive.limit, alone, alone)
        self._rate = ServiceRate()
        self._lag = 0.0
        self.shed = 0
        """Imports that were not served."""
        self._waiting = 0
        self._work = 0
        """Of the imports that wait, in units of `_rate`."""

    @property
    def import_limit(self) -> int:
        """Imports that are accepted at a time."""
        return self._imports.most

    @property
    def waiting_imports(self) -> int:
        return self._waiting

    def note_lag(self, seconds: float) -> None:
        """By so much the event loop was late now; to be said twice a second."""
        self._lag = max(seconds, self._lag / 2)

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """A turn of whom the task works for. What the same task does within one has it already.
        Raises `Overloaded`: it did not come in time."""
        task = asyncio.current_task()
        if _held.get() is task:
            yield
            return
        slots, actor = self._others, ACTING.get()
        if self._free and slots.may_start(actor.tenant_id):
            self._start(slots, actor, 0)
        else:
            await self._wait(slots, _Waiter(actor, 0), math.inf, None)
        _held.set(task)
        try:
            yield
        finally:
            _held.set(None)
            self._end(slots, actor.tenant_id)

    @asynccontextmanager
    async def take_import(
        self, size: int, *, until: float = math.inf, gone: Callable[[], Awaitable[Any]] | None = None
    ) -> AsyncIterator[ImportSlot]:
        """A turn for an import with a body of so many bytes.

        `until`: when, by the loop's clock, nobody waits for its answer any more; `gone` returns once the client is
        gone.

        Raises:
            Overloaded: it cannot be served in time, or too many wait and its tenant has the most of them.
            ClientGone: the client went away while it waited.
        """
        slots, actor, clock = self._imports, ACTING.get(), asyncio.get_running_loop().time
        if self._free and not self._waiting and slots.may_start(actor.tenant_id):
            self._start(slots, actor, size)
        else:
            await self._wait(slots, _Waiter(actor, size), until, gone)
        task = asyncio.current_task()
        _held.set(task)
        slot, began, active = ImportSlot(), clock(), slots.active
        try:
            yield slot
        finally:
            _held.set(None)
            now = clock()
            if slot.accepted:
                self._adaptive.note(now - began, size, max(active, slots.active), now)
                slots.most = self._adaptive.limit
            self._rate.note(size + _FIXED_WORK, now, waiting=bool(self._waiting))
            self._end(slots, actor.tenant_id)

    def refuse(self, actor: Actor, size: int) -> Overloaded | None:
        """Why an import that comes now would not be served in time; None: as far as is known, it would."""
        lags = self._lag > self._timeout * _LONG_LAG and self._waiting >= _NEVER_SHED
        # A little earlier than those that wait are refused: what is refused only then has cost a query and a body.
        if not lags and not self._excess(size + _FIXED_WORK, _EARLY):
            return None
        loads = self._imports.loads
        load = loads.get(actor.tenant_id, 0.0) + size / actor.weight
        if max(loads.values(), default=0.0) > load:
            return None  # one of theirs is refused
        return self._refusal("arrival", actor)

    def _excess(self, more: int = 0, part: float = 1.0) -> bool:
        return self._waiting >= _NEVER_SHED and self._rate.seconds(self._work + more) > self._timeout * part

    def _refusal(self, reason: str, actor: Actor) -> Overloaded:
        self.shed += 1
        telemetry.emit(telemetry.RequestShed(reason=reason, tenant_id=actor.tenant_id))
        seconds = max(1.0, min(self._rate.seconds(self._work), 60.0))
        # Not all at once: those who are refused now come again within as much time once more.
        return Overloaded(retry_after=seconds * (1 + random.random()))  # noqa: S311 - jitter, not a secret

    def _start(self, slots: _Slots, actor: Actor, size: int) -> None:
        self._free -= 1
        slots.start(actor, size)

    def _end(self, slots: _Slots, tenant_id: int) -> None:
        self._free += 1
        slots.end(tenant_id)
        self._hand_on()

    def _hand_on(self) -> None:
        while self._free and (found := self._find_next()):
            self._admit(*found)

    def _admit(self, slots: _Slots, waiter: _Waiter) -> None:
        self._forget(slots, waiter)
        if not waiter.future.done():
            self._start(slots, waiter.actor, waiter.size)
            waiter.future.set_result(None)

    def _find_next(self) -> tuple[_Slots, _Waiter] | None:
        """Imports have to wait for all else, but are never kept out by it."""
        few = self._imports.active < _RESERVE
        for slots in (self._imports, self._others) if few else (self._others, self._imports):
            if slots.waiting and (waiter := slots.next()):
                return slots, waiter
        return None

    async def _wait(
        self, slots: _Slots, waiter: _Waiter, until: float, gone: Callable[[], Awaitable[Any]] | None
    ) -> None:
        loop = asyncio.get_running_loop()
        slots.push(waiter)
        if slots is self._imports:
            self._waiting += 1
            self._work += waiter.size + _FIXED_WORK
            self._rate.note(0, loop.time(), waiting=True)
            self._hand_on()
            self._shed()
            self._watch_over(waiter)
        limit = min(loop.time() + self._timeout, until)
        timer = loop.call_at(limit, self._expire, slots, waiter)
        watch = None if gone is None or waiter.future.done() else asyncio.ensure_future(gone())
        if watch is not None:
            watch.add_done_callback(lambda watch: self._leave(slots, waiter, watch))
        try:
            await waiter.future
        except asyncio.CancelledError:
            if not self._forget(slots, waiter) and not waiter.future.cancelled() and not waiter.future.exception():
                self._end(slots, waiter.actor.tenant_id)  # it came when nobody was there any more
            raise
        finally:
            timer.cancel()
            if waiter.rescue is not None:
                waiter.rescue.cancel()
            if watch is not None:
                watch.cancel()

    def _watch_over(self, waiter: _Waiter) -> None:
        waiter.rescue = asyncio.get_running_loop().call_later(_STUCK_AFTER, self._rescue, waiter)

    def _rescue(self, waiter: _Waiter) -> None:
        """One import of a tenant that has none in progress, as long as few are begun like this."""
        if not waiter.queued:
            return
        if self._free and self._imports.is_first(waiter):
            self._admit(self._imports, waiter)
        else:
            self._watch_over(waiter)

    def _shed(self) -> None:
        """Refuse the newest of the longest queue until the rest can be served in time."""
        while self._excess():
            longest = max(self._imports.loads, key=self._imports.loads.__getitem__)
            self._fail(self._imports, self._imports.waiting[longest][-1], "newest")

    def _expire(self, slots: _Slots, waiter: _Waiter) -> None:
        self._fail(slots, waiter, "deadline")

    def _leave(self, slots: _Slots, waiter: _Waiter, watch: "asyncio.Future[Any]") -> None:
        if not watch.cancelled() and self._forget(slots, waiter) and not waiter.future.done():
            telemetry.emit(telemetry.RequestShed(reason="client_gone", tenant_id=waiter.actor.tenant_id))
            waiter.future.set_exception(ClientGone())

    def _fail(self, slots: _Slots, waiter: _Waiter, reason: str) -> None:
        if self._forget(slots, waiter) and not waiter.future.done():
            waiter.future.set_exception(self._refusal(reason, waiter.actor))

    def _forget(self, slots: _Slots, waiter: _Waiter) -> bool:
        if not slots.remove(waiter):
            return False
        if slots is self._imports:
            self._waiting -= 1
            self._work -= waiter.size + _FIXED_WORK
        return True
