"""The yardstick: the same rows, upserted over one asyncpg connection by the bare statement of `make bench`."""

from __future__ import annotations

import time

import asyncpg

from tests.bench.__main__ import BARE, BATCH, TABLE, columns
from tests.bench.large import files


async def prepare(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(TABLE)
    await connection.close()


async def rate(url: str, count: int, seed: int) -> float:
    """Rows a second into the emptied table. Making the dictionaries is not counted, making columns of them is."""
    connection = await asyncpg.connect(url, statement_cache_size=256)
    try:
        await connection.execute("TRUNCATE bare")
        await connection.execute("CHECKPOINT")
        spent = 0.0
        for batch in files.batches(count, seed, BATCH):
            started = time.perf_counter()
            await connection.execute(BARE, *columns(batch))
            spent += time.perf_counter() - started
        await connection.execute("TRUNCATE bare")
        return count / spent
    finally:
        await connection.close()
