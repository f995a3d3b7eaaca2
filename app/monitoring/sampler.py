"""Samples a process: how late its event loop is, and how many connections it holds."""

import asyncio
from typing import Final

from app.kit.postgres.database import Database
from app.telemetry import ProcessSampled, emit

_INTERVAL: Final = 0.5
"""Seconds."""


async def sample(database: Database) -> None:
    """Runs until it is canceled."""
    loop = asyncio.get_running_loop()
    acquired, waited = 0, 0.0
    while True:
        due = loop.time() + _INTERVAL
        await asyncio.sleep(_INTERVAL)
        before, acquired = acquired, database.acquired
        waited_before, waited = waited, database.waited
        emit(
            ProcessSampled(
                lag=max(0.0, loop.time() - due),
                connections=database.in_use,
                acquired=acquired - before,
                waited=waited - waited_before,
            )
        )
