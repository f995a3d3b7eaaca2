"""How many ask for one thing, and how often they should: a thousand pollers must not cost the work they wait for."""

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

import msgspec
from cachetools import LRUCache

K = TypeVar("K", bound=Hashable)

MOST: Final = 1_000
"""Things that are watched at a time."""
_SPAN: Final = 1.0
"""Seconds over which asking is counted."""
MANY: Final = 20.0
"""Times a second from which many ask."""
BEARABLE: Final = 250.0
"""Times a second that one thing should be asked for in one process, at the most."""
LONGEST: Final = 10.0
"""Seconds that nobody is sent away for longer than."""


class _PollLoad(msgspec.Struct):
    since: float
    count: int = 0
    rate: float = 0.0
    """Times a second, over the last span."""
    advice: float = 0.0
    """Seconds that those who ask should wait."""


class PollLoads(Generic[K]):
    """Counts by key, for as long as somebody asks."""

    def __init__(self) -> None:
        self._loads: LRUCache[K, _PollLoad] = LRUCache(MOST)

    def note(self, key: K, now: float) -> bool:
        """Somebody asks at `now` (seconds from anywhere); true: one of many."""
        load = self._loads.get(key)
        if load is None:
            load = self._loads[key] = _PollLoad(now)
        passed = now - load.since
        if passed >= _SPAN:
            load.rate = load.count / passed
            load.since, load.count = now, 0
            # As many as there are, each coming back after the wait it was given.
            load.advice = min(load.rate * max(load.advice, 1.0) / BEARABLE, LONGEST)
        load.count += 1
        return max(load.rate, load.count / _SPAN) >= MANY

    def advise(self, key: K) -> float:
        """Seconds after which those who ask should come again, as far as their number is concerned."""
        load = self._loads.get(key)
        return 0.0 if load is None else load.advice
