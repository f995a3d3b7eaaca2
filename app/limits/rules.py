"""The rule of rate limits, pure: a token bucket that is kept as the time until it is full (the generic cell rate
algorithm: ITU-T I.371, Annex A, virtual scheduling). `gcra.lua` is the same rule; a test compares the two.

Times are whole microseconds. A token lasts `window / quota` of them, which is exact: what is no whole microsecond is
kept in parts of `quota`.
"""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from app.vocabulary.rate_limits import Limit

MICROSECONDS: Final = 1_000_000
SHARE: Final = 10
"""One of so many parts of a bucket is to be free before a file draws on it, so that requests find something too."""

Mode = Literal["part", "whole", "debt", "refund"]
"""Take what is there; all or nothing; all, going into debt, as soon as a share is there; give tokens back."""


class Level(msgspec.Struct, frozen=True):
    """How far from full a bucket was: `micros` and `part / quota` microseconds, `at` a time in microseconds."""

    at: int = 0
    micros: int = 0
    part: int = 0


FULL: Final = Level()


def cost(tokens: int, limit: Limit) -> tuple[int, int]:
    """The time in which so many tokens come back: microseconds, and parts of one."""
    whole, rest = divmod(limit.window_seconds * MICROSECONDS, limit.quota)
    carried, part = divmod(tokens * rest, limit.quota)
    return tokens * whole + carried, part


def at(level: Level, now: int) -> Level:
    """The same bucket later. If the clock was set back, no time has passed."""
    left = level.micros - max(0, now - level.at)
    return Level(now, left, level.part) if left >= 0 else Level(now)


def add(level: Level, tokens: int, limit: Limit) -> Level:
    """After so many tokens were taken; negative: given back."""
    micros, part = cost(abs(tokens), limit)
    sign = 1 if tokens > 0 else -1
    carried, part = divmod(level.part + sign * part, limit.quota)
    micros = level.micros + sign * micros + carried
    return Level(level.at, micros, part) if micros >= 0 else Level(level.at)


def free(level: Level, limit: Limit) -> int:
    """Tokens that are there; 0 in debt."""
    window = limit.window_seconds * MICROSECONDS
    return max(0, ((window - level.micros) * limit.quota - level.part) // window)


def share(limit: Limit, wanted: int) -> int:
    """Tokens that are to be there before so many are taken going into debt."""
    return min(wanted, max(1, limit.quota // SHARE))


def decide(levels: Sequence[Level], limits: Sequence[Limit], wanted: int, mode: Mode) -> tuple[int, list[Level]]:
    """How many tokens are taken of every bucket, and what is left; the levels are all of one time."""
    taken = wanted
    if mode == "refund":
        taken = -wanted
    elif mode == "debt":
        for level, limit in zip(levels, limits, strict=True):
            if free(level, limit) < share(limit, wanted):
                taken = 0
    else:
        taken = min(wanted, *(free(level, limit) for level, limit in zip(levels, limits, strict=True)))
        if mode == "whole" and taken < wanted:
            taken = 0
    return abs(taken), [add(level, taken, limit) for level, limit in zip(levels, limits, strict=True)]


def wait(level: Level, limit: Limit, tokens: int) -> int:
    """Microseconds until so many tokens are there, taken in turn where the bucket holds fewer."""
    micros, part = cost(tokens, limit)
    ahead = level.micros + micros - limit.window_seconds * MICROSECONDS
    return max(0, ahead + (level.part + part + limit.quota - 1) // limit.quota)
