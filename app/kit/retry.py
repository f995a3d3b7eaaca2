"""When to try again: full-jitter exponential backoff within bounded attempts and a total time budget.

Source of the jitter: AWS Architecture Blog, "Exponential Backoff And Jitter": a wait is random between 0 and
`min(cap, base * 2 ** attempt)`. Times are seconds; randomness comes in as `rng() -> [0, 1)`.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Self

import msgspec

_MOST_DOUBLINGS = 63  # beyond it every envelope is long at its cap, and a float would overflow in the end


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of trying. Fields bear the names of the settings `delivery_*`; times in seconds."""

    attempts: int = 8
    budget: float = 86_400.0
    backoff_base: float = 1.0
    backoff_cap: float = 300.0

    @classmethod
    def from_settings(cls, settings: object) -> Self:
        """The `delivery_*` settings of any record that has them (the domain knows no settings class)."""
        return cls(**{name: getattr(settings, f"delivery_{name}") for name in cls.__struct_fields__})


class GiveUpReason(StrEnum):
    ATTEMPTS = "attempts"
    """The last allowed attempt failed."""
    BUDGET = "budget"
    """The next attempt would begin after the time budget."""


class TryAgain(msgspec.Struct, frozen=True):
    """Try again `delay` seconds from now."""

    delay: float


class GiveUp(msgspec.Struct, frozen=True):
    reason: GiveUpReason


def envelope(attempt: int, policy: RetryPolicy) -> float:
    """The longest backoff, in seconds, after `attempt` attempts (1 = the first one just failed)."""
    doublings = min(max(attempt, 1) - 1, _MOST_DOUBLINGS)
    return min(policy.backoff_cap, policy.backoff_base * 2.0**doublings)


def next_delay(attempt: int, policy: RetryPolicy, rng: Callable[[], float], floor: float = 0.0) -> float:
    """Seconds to wait after `attempt` attempts: random up to the envelope, never less than `floor`.

    `floor` is what the destination asked for (`Retry-After`, RFC 9110 section 10.2.3); it alone may exceed
    the cap.
    """
    return max(floor, rng() * envelope(attempt, policy))


def decide(
    attempt: int, first_at: float, now: float, policy: RetryPolicy, rng: Callable[[], float], floor: float = 0.0
) -> TryAgain | GiveUp:
    """What follows on `attempt` failed attempts (1 or more), the clock having started at `first_at`.

    A backoff that overshoots the budget is cut to its end, so the time is used up by one last attempt; a
    `floor` beyond it is not, because asking earlier than the destination said would be refused anyway.
    """
    if attempt >= policy.attempts:
        return GiveUp(GiveUpReason.ATTEMPTS)
    left = policy.budget - max(0.0, now - first_at)
    if left <= 0 or floor > left:
        return GiveUp(GiveUpReason.BUDGET)
    return TryAgain(min(next_delay(attempt, policy, rng, floor), left))
