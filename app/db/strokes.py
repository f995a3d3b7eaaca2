"""Large removals, a bounded number of rows a statement: no lock is held for long, and no statement takes its time."""

from __future__ import annotations

from typing import Final

from app.db.pool import Connection

STROKE: Final = 1_000
"""Rows of one statement, where its query says nothing else."""
_MOST: Final = 30
"""Statements a call: other work waits behind them."""


async def in_strokes(connection: Connection, query: str, *arguments: object, stroke: int = STROKE) -> None:
    """Run a query that takes at most `stroke` rows, until it takes fewer or has had its turn."""
    for _ in range(_MOST):
        done = await connection.execute(query, *arguments)  # "DELETE 17"
        if int(done.rpartition(" ")[2]) < stroke:
            return
