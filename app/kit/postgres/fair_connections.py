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
_PATROL: Final = 0.1
"""Seconds between two looks at those who wait."""
_NEVER_SHED: Final = 8
"""Imports that wait, which are too few to say that the queue is too long."""
_LONG_QUEUE: Final = 256
"""Imports of one process that may wait when the queue does not end. A burst may be longer; a longer queue that lasts
serves nobody sooner, and what it holds in memory makes each import slower (`tests.bench.overload`: 320 a second with
1,400 in the queue, 470 with 250)."""
_LASTS: Final = 1.0
"""Seconds after which a queue that was never empty is no burst any more."""

_held: Final[ContextVar[asyncio.Task[Any] | None]] = ContextVar("held", default=None)
_arrival: Final[ContextVar["Arrival | None"]] = ContextVar("arrival", default=None)
Gone = Callable[[], Awaitable[Any]]


class _Waiter:
    __slots__ = ("actor", "future", "gone", "load", "queued", "since", "size", "watch")

    def __init__(self, actor: Actor, size: int, gone: Gone | None = None) -> None:
        self.actor = actor
        self.size = size
        self.load = _load(actor, size)
        self.queued = False
        self.gone = gone
        self.watch: asyncio.Future[Any] | None = None
        """For the client to go away, once it waits for long."""
        loop = asyncio.get_running_loop()
        self.since = loop.time()
        self.future: asyncio.Future[None] = loop.create_future()


def _load(actor: Actor, size: int) -> float:
    return max(size, _LEAST_COST) / actor.weight


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


class Arrival:
    """An import on its way from the first look at it to the queue: until then it counts as if it waited there, or all
    that come before the first of them waits would be let in."""

    __slots__ = ("_queue", "actor", "size")

    def __init__(self, queue: "ConnectionQueue", actor: Actor, size: int) -> None:
        self.actor = actor
        self.size = size
        self._queue: ConnectionQueue | None = queue

    def end(self) -> None:
        """It waits now, or never will."""
        if self._queue is not None:
            self._queue.forget_arrival(self)
            self._queue = None


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
        self.refused = 0
        """Those of them that were refused on arrival."""
        self._waiting = 0
        self._lasts = math.inf
        """When the queue lasts, unless it was empty before."""
        self._work = 0
        """Of the imports that wait, in units of `_rate`."""
        self._arriving: Counter[int] = Counter()
        """Imports of each tenant that will wait; likewise what follows."""
        self._arriving_loads: dict[int, float] = {}
        self._arriving_work = 0
        self._patrol: asyncio.TimerHandle | None = None

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
            await self._wait(slots, _Waiter(actor, 0), math.inf)
        _held.set(task)
        try:
            yield
        finally:
            _held.set(None)
            self._end(slots, actor.tenant_id)

    @asynccontextmanager
    async def take_import(
        self, size: int, *, until: float = math.inf, gone: Gone | None = None
    ) -> AsyncIterator[ImportSlot]:
        """A turn for an import with a body of so many bytes.

        `until`: when, by the loop's clock, nobody waits for its answer any more; `gone` returns once the client is
        gone.

        Raises:
            Overloaded: it cannot be served in time, or too many wait and its tenant has the most of them.
            ClientGone: the client went away while it waited.
        """
        slots, actor, clock = self._imports, ACTING.get(), asyncio.get_running_loop().time
        if arrival := _arrival.get():
            arrival.end()
        if self._free and not self._waiting and slots.may_start(actor.tenant_id):
            self._start(slots, actor, size)
        else:
            await self._wait(slots, _Waiter(actor, size, gone), until)
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

    def arrive(self, actor: Actor, size: int) -> "Arrival | Overloaded":
        """An import comes with a body of so many bytes. `Overloaded`: as far as is known, it would not be served in
        time. Whoever has the arrival ends it."""
        if self._is_full(size) and self._has_most(actor, size):
            self.refused += 1
            return self._refusal()
        arrival = Arrival(self, actor, size)
        tenant_id = actor.tenant_id
        self._arriving[tenant_id] += 1
        self._arriving_loads[tenant_id] = self._arriving_loads.get(tenant_id, 0.0) + _load(actor, size)
        self._arriving_work += size + _FIXED_WORK
        _arrival.set(arrival)
        return arrival

    def forget_arrival(self, arrival: Arrival) -> None:
        tenant_id = arrival.actor.tenant_id
        self._arriving[tenant_id] -= 1
        self._arriving_loads[tenant_id] -= _load(arrival.actor, arrival.size)
        self._arriving_work -= arrival.size + _FIXED_WORK
        if not self._arriving[tenant_id]:
            del self._arriving[tenant_id], self._arriving_loads[tenant_id]

    def _is_full(self, size: int) -> bool:
        if self._waiting + self._arriving.total() < _NEVER_SHED:
            return False
        if self._lag > self._timeout * _LONG_LAG:
            return True
        if self._waiting >= _LONG_QUEUE and asyncio.get_running_loop().time() > self._lasts:
            return True
        # A little earlier than those that wait are refused: what is refused only then has cost a query and a body.
        work = self._work + self._arriving_work + size + _FIXED_WORK
        return self._rate.seconds(work) > self._timeout * _EARLY

    def _has_most(self, actor: Actor, size: int) -> bool:
        """No other tenant has more bytes here; else one of theirs is refused."""
        waiting, arriving = self._imports.loads, self._arriving_loads

        def load(tenant_id: int) -> float:
            return waiting.get(tenant_id, 0.0) + arriving.get(tenant_id, 0.0)

        own = load(actor.tenant_id) + size / actor.weight
        return max(map(load, {*waiting, *arriving}), default=0.0) <= own

    def _excess(self) -> bool:
        return self._waiting >= _NEVER_SHED and self._rate.seconds(self._work) > self._timeout

    def _refusal(self) -> Overloaded:
        self.shed += 1
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

    async def _wait(self, slots: _Slots, waiter: _Waiter, until: float) -> None:
        loop = asyncio.get_running_loop()
        slots.push(waiter)
        if slots is self._imports:
            if not self._waiting:
                self._lasts = waiter.since + _LASTS
            self._waiting += 1
            self._work += waiter.size + _FIXED_WORK
            self._rate.note(0, waiter.since, waiting=True)
            self._hand_on()
            self._shed()
            self._watch()
        timer = loop.call_at(min(waiter.since + self._timeout, until), self._expire, slots, waiter)
        try:
            await waiter.future
        except asyncio.CancelledError:
            if not self._forget(slots, waiter) and not waiter.future.cancelled() and not waiter.future.exception():
                self._end(slots, waiter.actor.tenant_id)  # it came when nobody was there any more
            raise
        finally:
            timer.cancel()
            if waiter.watch is not None:
                waiter.watch.cancel()

    def _watch(self) -> None:
        """Look after those who wait, for as long as somebody does."""
        if self._patrol is None and self._waiting:
            self._patrol = asyncio.get_running_loop().call_later(_PATROL, self._look)

    def _look(self) -> None:
        self._patrol = None
        slots, before = self._imports, asyncio.get_running_loop().time() - _STUCK_AFTER
        for queue in list(slots.waiting.values()):
            first = queue[0]
            if first.since > before:
                continue
            for waiter in queue:
                if waiter.since > before:
                    break
                if waiter.watch is None and waiter.gone is not None:
                    self._watch_client(waiter, waiter.gone)
            if self._free and slots.is_first(first):
                self._admit(slots, first)
        self._watch()

    def _watch_client(self, waiter: _Waiter, gone: Gone) -> None:
        waiter.watch = asyncio.ensure_future(gone())
        waiter.watch.add_done_callback(lambda watch: self._leave(self._imports, waiter, watch))

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
            telemetry.emit(telemetry.RequestShed(reason=reason, tenant_id=waiter.actor.tenant_id))
            waiter.future.set_exception(self._refusal())

    def _forget(self, slots: _Slots, waiter: _Waiter) -> bool:
        if not slots.remove(waiter):
            return False
        if slots is self._imports:
            self._waiting -= 1
            self._work -= waiter.size + _FIXED_WORK
        return True
