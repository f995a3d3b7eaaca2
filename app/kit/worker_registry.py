"""Which workers are there, and which secret keys they have: one small hash in Redis that each of them renews.

It is asked where somebody wants to know why nothing moves. Redis away, nothing is known, and nothing is said.
"""

import asyncio
from collections.abc import Awaitable
from contextvars import Context
from datetime import UTC, datetime
from typing import Final, cast

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.kit.encryption import Vault

KEY: Final = "tranche:workers"
BEAT: Final = 5.0
"""Seconds between two signs of life."""
GONE: Final = 20.0
"""Seconds of silence after which a worker is taken for dead."""
FORGOTTEN: Final = 86_400.0
"""Seconds for which it is remembered when there was one."""
_RECENT: Final = 1.0
"""Seconds for which what was read is good enough."""
_OLD: Final = 10.0
"""Seconds from which what was read is waited for anew rather than shown while it is read again."""
_TIMEOUT: Final = 1.0
_START: Final = "start one with: tranche worker"
_STRANGE: Final = "no worker can decrypt its credentials: they were encrypted with another TRANCHE_SECRET_KEY"


class _Sign(msgspec.Struct, frozen=True):
    """What a worker writes: when, by the clock of Redis, and the ids of its secret keys."""

    at: float
    keys: list[str]
    stopped: bool = False


_decode: Final = msgspec.json.Decoder(_Sign).decode


async def beat(redis: Redis, worker_id: str, key_ids: list[str], *, stopped: bool = False) -> None:
    """Write a sign of life, and forget workers that have been gone for long.
    Raises `RedisError`, `OSError`: Redis is away."""
    at = await _now(redis)
    sign = msgspec.json.encode(_Sign(at, key_ids, stopped)).decode()
    await cast(Awaitable[int], redis.hset(KEY, worker_id, sign))
    for other, last in (await _read(redis)).items():
        if at - last.at > FORGOTTEN:
            await cast(Awaitable[int], redis.hdel(KEY, other))


async def _now(redis: Redis) -> float:
    seconds, microseconds = await redis.time()
    return float(seconds) + float(microseconds) / 1e6


async def _read(redis: Redis) -> dict[str, _Sign]:
    found = {}
    for name, text in (await cast(Awaitable[dict[bytes, bytes]], redis.hgetall(KEY))).items():
        try:
            found[name.decode()] = _decode(text)
        except msgspec.MsgspecError:
            continue  # of another release
    return found


class Workers(msgspec.Struct, frozen=True):
    """The workers that live, by the ids of their secret keys, and when the last one was seen."""

    alive: list[list[str]]
    last_seen: float | None

    def why_nobody(self, sealed: bytes | None = None) -> str | None:
        """Why no worker can serve a destination whose credentials are `sealed` so; `None`: some worker can."""
        if not self.alive:
            return f"{_absence(self.last_seen)}; {_START}"
        wanted = None if sealed is None else Vault.key_of(sealed)
        if wanted is None or any(wanted in keys for keys in self.alive):
            return None
        return _STRANGE

    def lack(self, key_id: str | None) -> int:
        """How many of them cannot decrypt what is encrypted under this key."""
        return 0 if key_id is None else sum(key_id not in keys for keys in self.alive)


def _absence(last_seen: float | None) -> str:
    if last_seen is None:
        return "no worker has been seen yet"
    return f"no worker has been seen since {datetime.fromtimestamp(last_seen, UTC):%Y-%m-%d %H:%M:%S} UTC"


class WorkerWatch:
    """Asks Redis at most once a second, however many ask here."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._read_at: float | None = None
        self._known: Workers | None = None
        self._reading: asyncio.Task[None] | None = None

    async def look(self) -> Workers | None:
        """`None`: Redis is away, so nobody knows."""
        return await self._find(_RECENT)

    async def glance(self) -> Workers | None:
        """As `look`, for polls: what was known a moment ago, so that a slow Redis delays none of them."""
        return await self._find(_OLD)

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _find(self, tolerable: float) -> Workers | None:
        now = asyncio.get_running_loop().time()
        age = float("inf") if self._read_at is None else now - self._read_at
        if age < _RECENT:
            return self._known
        if self._reading is None or self._reading.done():
            # For all who ask: in nobody's name.
            self._reading = asyncio.create_task(self._read(), context=Context())
        if age >= tolerable:
            await asyncio.shield(self._reading)
        return self._known

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT):
                self._known = await read(self._redis)
        except (RedisError, OSError, TimeoutError):
            self._known = None
        self._read_at = asyncio.get_running_loop().time()


async def read(redis: Redis) -> Workers:
    """Raises `RedisError`, `OSError`: Redis is away."""
    now, signs = await _now(redis), await _read(redis)
    alive = [sign.keys for sign in signs.values() if now - sign.at <= GONE and not sign.stopped]
    return Workers(alive, max((sign.at for sign in signs.values()), default=None))
