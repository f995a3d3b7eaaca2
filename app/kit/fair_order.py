"""Which tenant is served next: each gets its share by weight, whatever it has waiting.

Start-time fair queueing: every service moves its tenant's tag on by cost ÷ weight, and the lowest tag is next; who was
away begins at the tag that is being served, without credit. Over any time in which two tenants wait, what they got
differs by one service of each at the most. Source: Goyal, Vin, Cheng, "Start-time Fair Queueing" (1996).
"""

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Final

_MOST_TAGS: Final = 4_096

_Entry = tuple[float, int, int]


class FairOrder:
    def __init__(self) -> None:
        self._now = 0.0
        """The tag of the last service."""
        self._tags: dict[int, float] = {}
        self._listed: dict[int, _Entry] = {}
        self._heap: list[_Entry] = []
        """The entries that are listed, and some that no longer are."""
        self._sequence = count()

    def add(self, tenant_id: int) -> None:
        """It wants to be served; whoever has said so keeps its place."""
        if tenant_id not in self._listed:
            self._list(tenant_id)

    def remove(self, tenant_id: int) -> None:
        """It wants nothing more for now."""
        self._listed.pop(tenant_id, None)
        if len(self._heap) > 64 + 2 * len(self._listed):
            self._heap = list(self._listed.values())
            heapify(self._heap)

    def first(self, ready: Callable[[int], bool]) -> int | None:
        """The next of those that may be served now."""
        heap, passed = self._heap, []
        try:
            while heap:
                entry = heap[0]
                if self._listed.get(entry[2]) is not entry:
                    heappop(heap)
                elif ready(entry[2]):
                    return entry[2]
                else:
                    passed.append(heappop(heap))
        finally:
            for entry in passed:
                heappush(heap, entry)
        return None

    def charge(self, tenant_id: int, cost: float, weight: float = 1.0) -> None:
        """It is served, listed or not."""
        self._now = max(self._now, self._tags.get(tenant_id, 0.0))
        self._tags[tenant_id] = self._now + cost / weight
        if tenant_id in self._listed:
            self._list(tenant_id)
        elif len(self._tags) > _MOST_TAGS:
            self._tags = {known: tag for known, tag in self._tags.items() if tag > self._now}

    def _list(self, tenant_id: int) -> None:
        entry = (max(self._now, self._tags.get(tenant_id, 0.0)), next(self._sequence), tenant_id)
        self._listed[tenant_id] = entry
        heappush(self._heap, entry)
