"""How many calls at a time this worker makes to a destination, learnt from how they end.

Additive increase, multiplicative decrease: every call that succeeded adds its share of one call a round (1/size, so a
full round adds one), and a sign of overload halves the limit, once a round. Source: Jacobson, "Congestion Avoidance and
Control" (1988); RFC 5681. The limit of all workers together is kept by the claim in PostgreSQL; this one only ever asks
for less. Times are seconds of any one clock.
"""

import math
import time
from typing import Final

import msgspec

from jobs.breaker.rules import Permits
from jobs.crm.port import CallResult, Health, Timeouts

LEAST: Final = 1.0
UNPROVEN: Final = 2
"""Calls at a time before the first one succeeded: an account that is not set up is not met by all that waits."""
_OVERLOADED: Final = frozenset({429, 503, 504})


class Window(msgspec.Struct, frozen=True):
    """The calls that may be in flight. The empty window knows nothing against as many as are allowed."""

    size: float = math.inf
    since: float = -math.inf
    """The last decrease: a call that began before it says nothing about the time after."""


def calls_allowed(window: Window, most: int) -> int:
    """Calls at a time, at least one."""
    return max(1, math.floor(min(window.size, most)))


def grow(window: Window, most: int, *, began: float) -> Window:
    """A call that began then succeeded."""
    if began < window.since or window.size >= most:
        return window
    return Window(min(float(most), window.size + 1 / window.size), window.since)


def halve(window: Window, most: int, *, began: float, now: float) -> Window:
    """A call that began then met overload: it was asked to wait, or had no answer in time."""
    if began < window.since:
        return window
    return Window(max(LEAST, min(window.size, most) / 2), now)


def restart(now: float) -> Window:
    """The destination was away and comes back: it is not met at once by everybody who waited."""
    return Window(LEAST, now)


class ConcurrencyLimit:
    def __init__(self) -> None:
        self._window = Window()
        self._generations: dict[str, int] = {}
        self._proven = False
        """Whether a call succeeded since this worker knows the destination."""
        self.most = 1
        """What the destination's options or the settings allow."""

    @property
    def calls(self) -> int:
        allowed = calls_allowed(self._window, self.most)
        return allowed if self._proven else min(allowed, UNPROVEN)

    def permitted(self, permits: Permits) -> None:
        """A circuit that changed since the last call is in a new generation: it was open, whether we saw it or not."""
        for permit in permits.permits:
            known = self._generations.get(permit.name, 0)
            if permit.generation > known:
                self._generations[permit.name] = permit.generation
                self.restart()

    def restart(self) -> None:
        self._window = restart(time.monotonic())

    def learn(self, answer: CallResult, began: float, timeouts: Timeouts) -> None:
        """From the end of a call that began then. Other faults say nothing about too many calls at a time."""
        silent = answer.status is None and answer.seconds >= min(timeouts.connect, timeouts.total)
        if answer.pause is not None or silent or answer.status in _OVERLOADED:
            self._window = halve(self._window, self.most, began=began, now=time.monotonic())
        elif answer.health is Health.WELL:
            self._proven = True
            self._window = grow(self._window, self.most, began=began)
