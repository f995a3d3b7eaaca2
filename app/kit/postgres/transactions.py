"""Transactions that meet others, and are tried again."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import asyncpg
import structlog
from asyncpg.transaction import Transaction

from app.kit.postgres.database import Connection

T = TypeVar("T")

log = structlog.get_logger()

COLLIDED: Final = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
"""PostgreSQL chose this transaction to give way: nothing happened, and the same may go well at once."""
HELD: Final = (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError)
"""Somebody else holds a row for long: nothing happened, and the same may go well later."""
_TRIES: Final = 3


def one_moment(connection: Connection) -> Transaction:
    """A transaction that reads as of one moment; within another one, as much as that sees."""
    if connection.is_in_transaction():
        return connection.transaction()
    return connection.transaction(isolation="repeatable_read", readonly=True)


async def retried(
    transaction: Callable[[], Awaitable[T]], *, on: tuple[type[asyncpg.PostgresError], ...] = COLLIDED
) -> T:
    """Run what opens a transaction, and again where it ends in one of the errors `on`; the third one is raised."""
    for attempt in range(1, _TRIES):
        try:
            return await transaction()
        except on as error:
            log.info("transaction_again", attempt=attempt, error=type(error).__name__)
    return await transaction()
