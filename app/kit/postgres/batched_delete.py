"""Large removals, a bounded number of rows a statement: no lock is held for long, and no statement takes its time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from app.kit.postgres.database import Connection

STROKE: Final = 1_000
"""Rows of one statement, where its query says nothing else."""
_MOST: Final = 30
"""Statements a call: other work waits behind them."""


async def in_strokes(
    statement: Callable[..., Awaitable[int]],
    connection: Connection,
    *arguments: object,
    stroke: int = STROKE,
) -> int:
    """Run a statement that touches at most `stroke` rows, until it touches fewer or has had its turn; how many."""
    total = 0
    for _ in range(_MOST):
        done = await statement(connection, *arguments)
        total += done
        if done < stroke:
            break
    return total
