"""How many processes share the rate limits: each renews its place in one sorted set in Redis."""

import asyncio
import uuid
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.limits.limiter import Limiter

KEY: Final = "tranche:limit:processes"
BEAT: Final = 5.0
"""Seconds between two signs of life."""
GONE: Final = 20.0
"""Seconds of silence after which a process is no longer counted."""


async def beat(redis: Redis, process_id: str) -> int:
    """Write a sign of life; returns how many are alive.
    Raises `RedisError`, `OSError`: Redis is away."""
    seconds, _ = await redis.time()
    await redis.zadd(KEY, {process_id: seconds})
    await redis.zremrangebyscore(KEY, 0, seconds - GONE)
    return int(await redis.zcard(KEY))


async def count_processes(limiter: Limiter) -> None:
    """Keep the limiter informed, for ever. While Redis is away, what was seen last counts."""
    assert limiter.redis is not None
    process_id = uuid.uuid4().hex
    while True:
        try:
            async with asyncio.timeout(BEAT):
                limiter.processes = max(1, await beat(limiter.redis, process_id))
        except (RedisError, OSError, TimeoutError):
            pass
        await asyncio.sleep(BEAT)
