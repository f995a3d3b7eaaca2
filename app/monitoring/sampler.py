"""Samples a process: how late its event loop is, how many connections it holds, and how it accepts imports."""

import asyncio
from typing import Final

from app.kit.postgres.database import Database
from app.kit.postgres.fair_connections import ConnectionQueue
from app.telemetry import ImportsShed, ProcessSampled, QueueSampled, RequestShed, emit

_INTERVAL: Final = 0.5
"""Seconds."""
_SAY: Final = 10.0
"""Seconds between two lines of the log about overload."""


async def sample(database: Database, connection_queue: ConnectionQueue | None = None) -> None:
    """Runs until it is canceled."""
    loop = asyncio.get_running_loop()
    acquired, waited = 0, 0.0
    refused, shed, say = 0, 0, 0.0
    while True:
        due = loop.time() + _INTERVAL
        await asyncio.sleep(_INTERVAL)
        lag = max(0.0, loop.time() - due)
        before, acquired = acquired, database.acquired
        waited_before, waited = waited, database.waited
        emit(
            ProcessSampled(
                lag=lag, connections=database.in_use, acquired=acquired - before, waited=waited - waited_before
            )
        )
        if connection_queue is None:
            continue
        connection_queue.note_lag(lag)
        limit, waiting = connection_queue.import_limit, connection_queue.waiting_imports
        emit(QueueSampled(limit=limit, waiting=waiting))
        if connection_queue.refused > refused:
            emit(RequestShed(reason="arrival", count=connection_queue.refused - refused))
            refused = connection_queue.refused
        if connection_queue.shed > shed and due >= say:
            emit(ImportsShed(count=connection_queue.shed - shed, waiting=waiting, limit=limit))
            shed, say = connection_queue.shed, due + _SAY
