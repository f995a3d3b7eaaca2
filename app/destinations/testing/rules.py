"""What a test of a destination saw, step by step, and what it comes to."""

from collections.abc import Iterable
from enum import StrEnum

import msgspec


class Verdict(StrEnum):
    """What a test comes to."""

    WORKS = "works"
    FAILS = "fails"
    UNCLEAR = "unclear"
    """Nothing failed, and nothing was shown to work."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a test looked at."""

    name: str
    ok: bool | None
    """null: it shows neither."""
    detail: str
    status: int | None = None
    """The HTTP status that was answered; null: there was no call, or no answer."""
    milliseconds: int = 0


def judge(steps: Iterable[Step]) -> Verdict:
    """One step that failed is enough; one that shows nothing says nothing."""
    seen = {step.ok for step in steps}
    if False in seen:
        return Verdict.FAILS
    return Verdict.WORKS if True in seen else Verdict.UNCLEAR
