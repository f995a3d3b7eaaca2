"""An outbound rate as the generic cell rate algorithm: one number a destination, the time when its next call is due.

`jobs/lua/pace.lua` is the same rule for all workers together; a test holds the two to one another. Times are whole
microseconds. Source: ITU-T I.371, Annex A (virtual scheduling), without a burst: calls keep their distance.
"""

from __future__ import annotations

import msgspec


class Turn(msgspec.Struct, frozen=True):
    """Whether a call has a turn, and the wait: until the turn, or until it is worth asking again."""

    granted: bool
    wait: int

    @property
    def seconds(self) -> float:
        return self.wait / 1_000_000


def microseconds(seconds: float) -> int:
    return round(seconds * 1_000_000)


def take(due: int, now: int, *, interval: int, patience: int) -> tuple[int, Turn]:
    """Take the next turn, if it comes within `patience`; else nothing is taken."""
    wait = _wait(due, now, interval, patience)
    if wait > patience:
        return due, Turn(False, wait - patience)
    return now + wait + interval, Turn(True, wait)


def give_back(due: int, now: int, *, interval: int, patience: int) -> int:
    """A turn was not used: everybody behind it may come one interval earlier."""
    wait = _wait(due, now, interval, patience)
    return now + max(0, wait - interval)


def _wait(due: int, now: int, interval: int, patience: int) -> int:
    wait = max(0, due - now)
    # No turn is ever given that far ahead: the clock was set back, or the rate was raised.
    return wait if wait <= patience + interval else 0
