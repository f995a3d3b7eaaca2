"""Large removals, a bounded number of rows a statement: no lock is held for long, and no statement takes its time."""

from collections.abc import Awaitable, Callable
from typing import Final

from app.kit.postgres.database import Connection

BATCH: Final = 1_000
"""Rows of one statement, where its query says nothing else."""
_MOST: Final = 30
"""Statements a call: other work waits behind them."""


async def in_batches(
    statement: Callable[..., Awaitable[int]], connection: Connection, *arguments: object, batch_size: int = BATCH
) -> int:
    """Run a statement of at most `batch_size` rows until it touches fewer, at most `_MOST` times; how many rows."""
    total = 0
    for _ in range(_MOST):
        done = await statement(connection, *arguments)
        total += done
        if done < batch_size:
            break
    return total
