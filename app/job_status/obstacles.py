"""What keeps items from moving at a destination, and for how long."""

import math
from typing import Final

import msgspec

PAUSED: Final = "the destination is paused; an administrator resumes it"


class Obstacle(msgspec.Struct, frozen=True):
    """What a destination waits for; `blocked_for`: seconds from now."""

    paused: bool
    blocked_code: str | None
    blocked_detail: str | None
    blocked_for: float | None


class Blockage(msgspec.Struct, frozen=True):
    """Why an open item does not move, and for how many seconds (`None`: until an operator acts)."""

    code: str | None
    detail: str
    seconds: int | None

    def describe(self, before: str | None) -> str:
        """With the last failure of the item, because it explains why the circuit is open."""
        return self.detail if before in (None, "", self.detail) else f"{self.detail}; the last attempt: {before}"


def explain_wait(at: Obstacle) -> Blockage | None:
    """`None` if nothing blocks this destination."""
    if at.paused:
        return Blockage(None, PAUSED, None)
    if at.blocked_for and at.blocked_code:
        return Blockage(at.blocked_code, at.blocked_detail or "", math.ceil(at.blocked_for))
    return None
