"""An event loop whose clock stands still while anything is to be done, and then is at the next timer.

What a test promises about seconds holds on any machine, and takes none of them.
"""

from __future__ import annotations

import asyncio


class SimulatedLoop(asyncio.SelectorEventLoop):
    """For coroutines that wait for timers and for one another; there is no I/O to wait for."""

    _now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:
            self._now = max(self._now, self._scheduled[0].when())
        super()._run_once()  # type: ignore[misc]


class SimulatedTime(asyncio.DefaultEventLoopPolicy):
    """As the fixture `event_loop_policy` of a module."""

    def new_event_loop(self) -> SimulatedLoop:
        return SimulatedLoop()
