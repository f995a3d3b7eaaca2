"""Notifies workers, through arq, that a destination has something due. Best effort: the sweeper finds it anyway."""

import asyncio
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, Final, cast

import msgspec
import structlog
from arq.connections import ArqRedis
from redis.exceptions import RedisError

from app.kit.redis import make_pool
from app.settings import Settings

log = structlog.get_logger()

QUEUE: Final = "tranche:wake"
FUNCTION: Final = "wake"
IMPORT_FUNCTION: Final = "import"
_IMPORT_CALLS: Final = 4
"""Workers called for a large import; any others find it by themselves."""
_TIMEOUT: Final = 0.5
_SILENCE: Final = 1.0
_LIFE: Final = 60.0
"""Seconds after its time that a notification is still useful."""


def encode(value: Any) -> bytes:
    """What arq stores; never pickle, which would run whatever somebody put into Redis."""
    return msgspec.msgpack.encode(value, enc_hook=str)


def decode(data: bytes) -> Any:
    return msgspec.msgpack.decode(data)


def make_redis(settings: Settings, *, timeout: float = 1.0) -> ArqRedis:
    """arq's client with our own connections: its own reading of a URL takes a password as it is escaped, stumbles over
    a `/` at the end, and ignores what is said about TLS. `timeout`: seconds to connect in."""
    redis = cast(ArqRedis, ArqRedis.from_pool(make_pool(settings.redis_url, socket_connect_timeout=timeout)))
    redis.job_serializer, redis.job_deserializer, redis.default_queue_name = encode, decode, QUEUE
    return redis


_Call = tuple[tuple[Any, ...], str]
"""A function of the worker with its arguments, and the name under which it is queued but once."""


_HELD: Final[ContextVar[list[tuple[list[_Call], float]] | None]] = ContextVar("held_notifications", default=None)


class Notifier:
    """Sends notifications without ever making its caller wait for Redis."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._redis: ArqRedis | None = None
        self._silent_until = 0.0
        self._tidy_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    def notify(self, tenant_id: int, destination_ids: Iterable[int], *, reason: str, delay: float = 0.0) -> None:
        """Schedule a notification for each destination; `reason` makes repeated ones for one cause a single one."""
        ids = list(destination_ids)
        if not ids or asyncio.get_running_loop().time() < self._silent_until:
            return
        calls = [((FUNCTION, tenant_id, id_), f"{tenant_id}:{id_}:{reason}") for id_ in ids]
        self._spawn(calls, delay)

    def notify_imports(self, tenant_id: int, job_id: uuid.UUID) -> None:
        """Notify workers that an import is to be processed, or an undo, or a test of a destination of this id."""
        if asyncio.get_running_loop().time() >= self._silent_until:
            self._spawn([((IMPORT_FUNCTION,), f"{tenant_id}:{job_id}:{n}") for n in range(_IMPORT_CALLS)], 0.0)

    @contextmanager
    def held(self) -> Iterator[None]:
        """What is notified within is sent when it has ended well: what is to be found is committed only then."""
        held: list[tuple[list[_Call], float]] = []
        before = _HELD.set(held)
        try:
            yield
        finally:
            _HELD.reset(before)
        for calls, delay in held:
            self._spawn(calls, delay)

    def _spawn(self, calls: list[_Call], delay: float) -> None:
        held = _HELD.get()
        if held is not None:
            held.append((calls, delay))
            return
        task = asyncio.create_task(self._send(calls, delay))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, calls: list[_Call], delay: float) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT):
                if self._redis is None:
                    self._redis = make_redis(self._settings)
                await self._tidy(self._redis)
                for words, name in calls:
                    await self._redis.enqueue_job(
                        *words,
                        _job_id=name,
                        _defer_by=timedelta(seconds=delay) if delay > 0 else None,
                        _expires=timedelta(seconds=delay + _LIFE),
                    )
        except (RedisError, OSError) as error:
            # The sweeper finds the work within its interval; asking a dead Redis on every import helps nobody.
            self._silent_until = asyncio.get_running_loop().time() + _SILENCE
            log.warning("notification_failed", error=error)

    async def _tidy(self, redis: ArqRedis) -> None:
        """Jobs expire by themselves, their places in arq's queue do not: without a worker it would only grow."""
        now = asyncio.get_running_loop().time()
        if now >= self._tidy_at:
            self._tidy_at = now + _LIFE
            await redis.zremrangebyscore(QUEUE, "-inf", (time.time() - 2 * _LIFE) * 1000)

    async def ping(self) -> None:
        """Raises whatever Redis raises."""
        async with asyncio.timeout(_TIMEOUT):
            if self._redis is None:
                self._redis = make_redis(self._settings)
            await self._redis.ping()

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._redis is not None:
            try:
                await self._redis.aclose()
            except (RedisError, OSError):
                self._redis = None
