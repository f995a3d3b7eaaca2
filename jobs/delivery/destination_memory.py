"""What a worker remembers of the destinations that it served lately; it outlives the clients that are made for them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from jobs.delivery.concurrency_limit import ConcurrencyLimit

_MOST_KEPT: Final = 4_096


class DestinationMemory:
    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.limit = ConcurrencyLimit(monotonic)
        self.last_failure = ""
        """What the last call met that counted against a circuit, maybe in the CRM's words."""
        self.failure_reason = ""
        """The same in our own."""


class DestinationMemories:
    """By tenant and destination, the most recently used."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._kept: OrderedDict[tuple[int, int], DestinationMemory] = OrderedDict()

    def of(self, tenant_id: int, destination_id: int) -> DestinationMemory:
        key = (tenant_id, destination_id)
        found = self._kept.get(key)
        if found is None:
            found = self._kept[key] = DestinationMemory(self._monotonic)
            if len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return found
