"""How fast requests are refused: whoever is, and tries again at once, must not take the time of all others."""

import asyncio
from typing import Final

RATE: Final = 200.0
"""Refusals a second, of one process, that are sent without delay…"""
_BURST: Final = 50.0
"""…after so many at once."""
LONGEST: Final = 3.0
"""Seconds that one is held back, at the most."""
_MOST: Final = 3_000
"""Held back at a time; beyond that they go out at once, because each holds a connection."""


class Refusals:
    """The refusals of one process, spread over time when they come in floods (as GCRA does it)."""

    def __init__(self) -> None:
        self._next = 0.0
        self._held = 0

    async def wait(self) -> None:
        """Until this one may be sent."""
        now = asyncio.get_running_loop().time()
        due = min(max(self._next, now - _BURST / RATE), now + LONGEST)
        self._next = due + 1 / RATE
        if due <= now or self._held >= _MOST:
            return
        self._held += 1
        try:
            await asyncio.sleep(due - now)
        finally:
            self._held -= 1
