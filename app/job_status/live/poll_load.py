"""How many ask for one thing, and how often they should: a thousand pollers must not cost the work they wait for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

import msgspec

K = TypeVar("K", bound=Hashable)

MOST: Final = 1_000
"""Things that are watched at a time."""
_SPAN: Final = 1.0
"""Seconds over which asking is counted."""
CROWD: Final = 20.0
"""Times a second from which those who ask are a crowd."""
BEARABLE: Final = 250.0
"""Times a second that one thing should be asked for in one process, at the most."""
LONGEST: Final = 10.0
"""Seconds that nobody is sent away for longer than."""


class _Crowd(msgspec.Struct):
    since: float
    count: int = 0
    rate: float = 0.0
    """Times a second, over the last span."""
    advice: float = 0.0
    """Seconds that those who ask are told to stay away."""


class Crowds(Generic[K]):
    """Counts by key, for as long as somebody asks."""

    def __init__(self) -> None:
        self._crowds: OrderedDict[K, _Crowd] = OrderedDict()

    def note(self, key: K, now: float) -> bool:
        """Somebody asks at `now` (seconds from anywhere); true: one of a crowd."""
        crowd = self._crowds.get(key)
        if crowd is None:
            crowd = self._crowds[key] = _Crowd(now)
            if len(self._crowds) > MOST:
                self._crowds.popitem(last=False)
        self._crowds.move_to_end(key)
        passed = now - crowd.since
        if passed >= _SPAN:
            crowd.rate = crowd.count / passed
            crowd.since, crowd.count = now, 0
            # As many as there are, each coming back after what it was told.
            crowd.advice = min(crowd.rate * max(crowd.advice, 1.0) / BEARABLE, LONGEST)
        crowd.count += 1
        return max(crowd.rate, crowd.count / _SPAN) >= CROWD

    def advise(self, key: K) -> float:
        """Seconds after which those who ask should come again, as far as their number is concerned."""
        crowd = self._crowds.get(key)
        return 0.0 if crowd is None else crowd.advice
