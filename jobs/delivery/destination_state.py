"""What a worker remembers of the destinations that it served lately; it outlives the clients that are made for them."""

from collections.abc import Callable
from typing import Final

from cachetools import LRUCache

from jobs.crm.port import Authorizer, Crm
from jobs.delivery.limits.concurrency_limit import ConcurrencyLimit
from jobs.delivery.limits.memory_budget import MemoryShare

_MOST_KEPT: Final = 4_096


class DestinationState:
    def __init__(self, holding: set[MemoryShare]) -> None:
        self.limit = ConcurrencyLimit()
        self.memory = MemoryShare(holding)
        self.last_failure = ""
        """What the last call met that counted against a circuit, maybe in the CRM's words."""
        self.failure_reason = ""
        """The same in our own."""
        self._adapters: dict[int, tuple[object, Crm]] = {}
        """By type of record."""
        self._authorizer: tuple[object, Authorizer] | None = None

    def adapter(self, type_id: int, made_of: object, make: Callable[[], Crm]) -> Crm:
        """The adapter of the time slice before if it learns, unless it is to be made of something else now.
        Raises `Exception`: whatever `make` raises."""
        known = self._adapters.get(type_id)
        if known is not None and known[0] == made_of:
            return known[1]
        crm = make()
        self._adapters.pop(type_id, None)
        if crm.learns:
            self._adapters[type_id] = (made_of, crm)
        return crm

    def authorizer(self, made_of: object, make: Callable[[], Authorizer]) -> Authorizer:
        """That of the time slice before, unless it is to be made of something else now."""
        if self._authorizer is None or self._authorizer[0] != made_of:
            self._authorizer = made_of, make()
        return self._authorizer[1]

    @property
    def calls(self) -> int:
        """Calls that this worker makes at a time."""
        return min(self.limit.calls, self.memory.deliveries)


class DestinationStates:
    """By tenant and destination, the most recently used."""

    def __init__(self) -> None:
        self._holding: set[MemoryShare] = set()
        self._kept: LRUCache[tuple[int, int], DestinationState] = LRUCache(_MOST_KEPT)

    def of(self, tenant_id: int, destination_id: int) -> DestinationState:
        key = (tenant_id, destination_id)
        found = self._kept.get(key)
        if found is None:
            found = self._kept[key] = DestinationState(self._holding)
        return found
