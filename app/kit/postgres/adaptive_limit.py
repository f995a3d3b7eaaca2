"""How many transactions at a time are good for PostgreSQL and for this process, learnt from how long they take.

As TCP Vegas does it: the time that a transaction takes is compared with the shortest average of late. If it is longer,
that share of the limit waits somewhere instead of being worked on. Little of that: the limit grows. More: it shrinks.
Times are compared with those of transactions of about the same size. Source: Brakmo, Peterson, "TCP Vegas" (1995).
Times are seconds of any one clock.
"""

import math
from typing import Final

_TOLERANCE: Final = 1.3
"""An average that is longer by this factor is taken for noise."""
_FEW: Final = 1.0
_MANY: Final = 2.0
"""Transactions that wait: with fewer the limit grows, with more it shrinks."""
_ROUND: Final = 16
_ROUND_SECONDS: Final = 0.1
"""Transactions, and time, between two changes of the limit."""
_AVERAGED: Final = 64
_PROVEN: Final = 32
"""Transactions of a size before their average counts."""
_OUTLIER: Final = 4.0
"""Times the average that one transaction counts for at the most."""
_WINDOW: Final = 30.0
"""Seconds for which the shortest average is remembered. In a rush it is taken at the lowest limit, where nothing waits:
else a queue that lasts would be taken for the normal case."""


class _Size:
    """Transactions of about the same size."""

    __slots__ = ("average", "count", "shortest")

    def __init__(self) -> None:
        self.average = 0.0
        self.shortest = math.inf
        self.count = 0

    def note(self, seconds: float) -> float | None:
        """How many times the shortest average the present one is; None: too few are known."""
        self.count += 1
        if self.count > _PROVEN:
            seconds = min(seconds, _OUTLIER * self.average)
        self.average += (seconds - self.average) / min(self.count, _AVERAGED)
        if self.count < _PROVEN:
            return None
        self.shortest = min(self.shortest, self.average)
        return self.average / self.shortest if self.shortest else 1.0


class AdaptiveLimit:
    def __init__(self, least: int, most: int, first: int) -> None:
        """`first`: the limit until more is known."""
        self._least = least
        self._most = most
        self._limit = float(max(least, min(first, most)))
        self._sizes: dict[int, _Size] = {}
        self._measured = -math.inf
        """When the shortest averages were begun."""
        self._resume: float | None = None
        """The limit to go on with once they are known."""
        self._began = 0.0
        """Of the round; likewise what follows."""
        self._active = self._count = 0
        self._sum = 0.0

    @property
    def limit(self) -> int:
        return int(self._limit)

    def note(self, seconds: float, size: int, active: int, now: float) -> None:
        """A transaction of `size` bytes ended well after `seconds`; `active`: how many were in progress, with it."""
        if now - seconds < self._measured:
            return  # it was slowed down by more of them than there are now
        factor = self._sizes.setdefault(size.bit_length(), _Size()).note(seconds)
        self._active = max(self._active, active)
        if factor is None:
            return
        self._count += 1
        self._sum += factor
        if self._count < _ROUND or now - self._began < _ROUND_SECONDS:
            return
        rush = self._active >= self.limit
        if self._resume is not None:
            self._limit, self._resume = self._resume, None
        elif rush and now - self._measured >= _WINDOW:
            self._sizes.clear()
            self._measured = now
            self._limit, self._resume = float(self._least), self._limit
        else:
            self._adapt(self._sum / self._count, rush)
        self._began = now
        self._active = self._count = 0
        self._sum = 0.0

    def _adapt(self, factor: float, rush: bool) -> None:
        waiting = self._limit * (1 - _TOLERANCE / max(factor, _TOLERANCE))
        if waiting > _MANY:
            self._limit = max(self._least, self._limit - max(1.0, waiting / 2))
        elif waiting < _FEW and rush:
            self._limit = min(self._most, self._limit + 1)


class ServiceRate:
    """Units of work that are done in a second while others wait, averaged over about one second."""

    _PERIOD: Final = 0.2
    _ENOUGH: Final = 8
    """Pieces of work, without which a period lasts longer: many who come at once are not yet a standstill."""
    _LONGEST: Final = 1.0

    def __init__(self) -> None:
        self._rate: float | None = None
        self._since: float | None = None
        self._done = 0.0
        self._count = 0

    def note(self, units: float, now: float, *, waiting: bool) -> None:
        """So much was done since the last call, or nothing; `waiting`: something waits now."""
        self._done += units
        self._count += units > 0
        seconds = 0.0 if self._since is None else now - self._since
        if seconds >= self._LONGEST or (seconds >= self._PERIOD and self._count >= self._ENOUGH):
            found, known = self._done / seconds, self._rate
            if known is None:
                self._rate = found or None
            else:
                self._rate = found + (known - found) * math.exp(-seconds)
            self._since = None
        if not waiting:
            self._since = None
        elif self._since is None:
            self._since, self._done, self._count = now, 0.0, 0

    def seconds(self, units: float) -> float:
        """How long so much takes; 0: unknown."""
        return 0.0 if self._rate is None else units / self._rate
