"""How many calls at a time this worker makes to each destination, learnt from how they end (`app.domain.aimd`).

The most that all workers together have under way is kept by the claim in PostgreSQL; a window only ever asks for less,
and for less still where contacts are so large that many calls at a time would fill this worker's memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from app.domain import aimd
from app.domain.aimd import Window
from jobs.breaker.rules import Permits
from jobs.crm.port import Crm, Health, ReadBack, Reply, Timeouts

UNPROVEN: Final = 2
"""Calls at a time before the first one went well: an account that is not set up is not met by all that waits."""
MEMORY_BUDGET: Final = 64_000_000
"""Bytes of contacts that one worker loads for calls at a time, shared equally by the destinations that it calls."""
_MOST_KEPT: Final = 4_096
_OVERLOADED: Final = frozenset({429, 503, 504})


class Lanes:
    """One destination's window and adapter. They outlive the slices of time in which a worker serves the
    destination."""

    def __init__(self, monotonic: Callable[[], float], holding: set[Lanes]) -> None:
        """`holding`: the limits of this worker that have memory reserved; updated here."""
        self._monotonic = monotonic
        self._holding = holding
        self._reserved = 0
        self._largest = 1
        """Bytes of the largest delivery of late."""
        self._window = Window()
        self._generations: dict[str, int] = {}
        self.most = 1
        """What the destination's options or the settings allow."""
        self.trouble = ""
        """What the last call met that counted against a circuit, maybe in the CRM's words."""
        self.cause = ""
        """The same in our own."""
        self._adapter: tuple[object, Crm] | None = None
        self._proven = False
        """Whether a call went well since this worker knows the destination."""

    def adapter(self, made_of: object, make: Callable[[], Crm]) -> Crm:
        """The one of the slice before if it has learnt something, unless it is to be made of something else now.

        Raises:
            Exception: whatever `make` does.
        """
        if self._adapter is not None and self._adapter[0] == made_of:
            return self._adapter[1]
        crm = make()
        self._adapter = (made_of, crm) if crm.learns else None
        return crm

    @property
    def count(self) -> int:
        lanes = min(aimd.lanes(self._window, self.most), max(1, self._share // self._largest))
        return lanes if self._proven else min(lanes, UNPROVEN)

    @property
    def _share(self) -> int:
        return MEMORY_BUDGET // (len(self._holding) + (self not in self._holding))

    def reserve(self, size: int) -> bool:
        """Whether a delivery of so many bytes may be loaded now; a single one always may. If so, `release` it."""
        self._largest = max(size, self._largest * 9 // 10, 1)
        if self._reserved and self._reserved + size > self._share:
            return False
        self._reserved += size
        self._holding.add(self)
        return True

    def release(self, size: int) -> None:
        """A delivery with reserved memory has ended."""
        self._reserved -= size
        if not self._reserved:
            self._holding.discard(self)

    def admitted(self, permits: Permits) -> None:
        """A circuit that changed since the last call is in a new generation: it was open, whether we saw it or not."""
        for permit in permits.permits:
            known = self._generations.get(permit.name, 0)
            if permit.generation > known:
                self._generations[permit.name] = permit.generation
                self.restart()

    def restart(self) -> None:
        self._window = aimd.restart(self._monotonic())

    def learn(self, answer: Reply | ReadBack, began: float, timeouts: Timeouts) -> None:
        """How a call ended that began then. Other faults say nothing about too many calls at a time."""
        silent = answer.status is None and answer.seconds >= min(timeouts.connect, timeouts.total)
        if answer.pause is not None or silent or answer.status in _OVERLOADED:
            self._window = aimd.halve(self._window, self.most, began=began, now=self._monotonic())
        elif answer.health is Health.WELL:
            self._proven = True
            self._window = aimd.grow(self._window, self.most, began=began)


class Windows:
    """The windows of the destinations that this worker has served of late."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lanes: OrderedDict[tuple[int, int], Lanes] = OrderedDict()
        self._holding: set[Lanes] = set()

    def of(self, tenant_id: int, destination_id: int) -> Lanes:
        key = (tenant_id, destination_id)
        found = self._lanes.get(key)
        if found is None:
            found = self._lanes[key] = Lanes(self._monotonic, self._holding)
            if len(self._lanes) > _MOST_KEPT:
                self._lanes.popitem(last=False)
        self._lanes.move_to_end(key)
        return found
