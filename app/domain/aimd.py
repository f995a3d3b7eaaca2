"""How many calls at a time a destination bears: additive increase, multiplicative decrease.

A window in calls: every call that went well adds its share of one call a round (1/size, so a full round adds one), and
a sign of overload halves it, once a round. Source: Jacobson, "Congestion Avoidance and Control" (1988); RFC 5681.
Times are seconds of any one clock.
"""

from __future__ import annotations

import math

import msgspec

LEAST = 1.0


class Window(msgspec.Struct, frozen=True):
    """The calls that may be under way. The empty window knows nothing against as many as are allowed."""

    size: float = math.inf
    since: float = -math.inf
    """The last decrease: a call that began before it tells of the time before, and is not heard."""


def lanes(window: Window, most: int) -> int:
    """Calls at a time, at least one."""
    return max(1, math.floor(min(window.size, most)))


def grow(window: Window, most: int, *, began: float) -> Window:
    """A call that began then went well."""
    if began < window.since or window.size >= most:
        return window
    return Window(min(float(most), window.size + 1 / window.size), window.since)


def halve(window: Window, most: int, *, began: float, now: float) -> Window:
    """A call that began then met overload: it was told to wait, or had no answer in time."""
    if began < window.since:
        return window
    return Window(max(LEAST, min(window.size, most) / 2), now)


def restart(now: float) -> Window:
    """The destination was away and comes back: it is not met by all who waited at once."""
    return Window(LEAST, now)
