"""What was read lately, kept for the time in which PostgreSQL is away: in this process, and in Redis for all of them.

Keeping is best effort and delays nobody: an answer is put in memory at once, and written to Redis later, so many a
second at the most. Redis holds names as keyed hashes and contents encrypted under keys derived from TRANCHE_SECRET_KEY,
bound to tenant, kind and name; without that key there is memory alone.
"""

import asyncio
import math
import struct
import time
from collections import OrderedDict
from collections.abc import Awaitable, Mapping, Sequence
from importlib.resources import files
from itertools import islice
from typing import Final, Literal, TypeAlias, cast

import msgspec
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.kit.compression import pack, unpack
from app.kit.encryption import BulkCipher
from app.settings import Settings

log = structlog.get_logger()

Kind: TypeAlias = Literal["job", "item", "record", "destination", "key"]
Place: TypeAlias = Literal["redis", "memory"]

PERSONAL: Final[tuple[Kind, ...]] = ("record", "item")
"""Kinds that may show a record."""

_PREFIX: Final = "tranche:snapshots"
_VOID: Final = f"{_PREFIX}:void"
"""Unix times until which snapshots are void, by scope."""
_MOST_BYTES: Final = 512_000
"""Largest snapshot, before it is compressed."""
_OVERHEAD: Final = 300
"""Bytes that a small one takes in memory beside its contents."""
_UNCHANGED: Final = 10.0
"""Seconds after which one that did not change is written to Redis again, for its age."""
_TICK: Final = 0.25
_PER_TICK: Final = 25
"""Most that are written to Redis at a time: a hundred a second of one process."""
_MOST_WAITING: Final = 1_000
_LEARN: Final = 2.0
"""Seconds between two looks at what became void."""
_TIMEOUT: Final = 0.5
_PAUSE: Final = 2.0
"""Seconds for which Redis is left alone after it failed."""
_MARGIN: Final = 2.0
"""Seconds by which clocks may differ."""
_FORGOTTEN: Final = 86_400.0
"""Seconds after which nothing can be as old as what was made void; settings above it are as good as it."""

_STORE: Final = files(__package__).joinpath("snapshots.lua").read_text("utf-8")
_TIME: Final = struct.Struct(">d")

_Name = tuple[int, Kind, bytes]
_ERRORS: Final = (RedisError, OSError, TimeoutError)


class Snapshot(msgspec.Struct):
    body: bytes
    """Empty: there was nothing of this name."""
    at: float
    """Unix time of reading it."""
    written_at: float = 0.0
    """…as Redis has it."""


class Snapshots:
    """Those of one process. Kept from `open` to `close`."""

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self._redis = redis
        self._most_bytes = settings.stale_memory
        self._most_redis = settings.stale_redis
        self._seconds = min(settings.stale_seconds, _FORGOTTEN)
        self._key_seconds = min(settings.stale_key_seconds, self._seconds)
        self._kept: OrderedDict[_Name, Snapshot] = OrderedDict()
        """The longest unused first."""
        self._bytes = 0
        self._waiting: dict[_Name, None] = {}
        """To be written to Redis."""
        self._void: dict[str, float] = {}
        self._paused_until = 0.0
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._store = redis.register_script(_STORE)
        try:
            self._cipher: BulkCipher | None = BulkCipher(settings.secret_key, "snapshots")
        except ValueError:
            self._cipher = None  # nothing is encrypted here, so nothing goes to Redis

    def open(self) -> None:
        if self._cipher is not None and self._seconds:
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        self._closed = True  # a client of Redis may lose a cancellation
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def keep(self, tenant_id: int, kind: Kind, name: bytes, body: bytes, at: float) -> None:
        """`at`: Unix time before which it was not read; an empty `body`: there is nothing of this name any more."""
        if not self._seconds or len(body) > _MOST_BYTES:
            return
        key = (tenant_id, kind, name)
        kept = self._kept.get(key)
        if kept is None:
            if not body:
                return
            kept = self._kept[key] = Snapshot(body, at)
            self._bytes += len(body) + len(name) + _OVERHEAD
        else:
            self._kept.move_to_end(key)
            if kept.body != body:
                self._bytes += len(body) - len(kept.body)
                kept.body, kept.written_at = body, 0.0
            kept.at = at
        if at - kept.written_at > _UNCHANGED and len(self._waiting) < _MOST_WAITING and self._cipher is not None:
            self._waiting[key] = None
        while self._bytes > self._most_bytes:
            (_, _, other), dropped = self._kept.popitem(last=False)
            self._bytes -= len(dropped.body) + len(other) + _OVERHEAD

    async def find(
        self, tenant_id: int, kind: Kind, name: bytes, *, scope: str | None = None
    ) -> tuple[Snapshot, Place] | None:
        """The newest there is, unless it is too old, and where it is from. `scope`: one more that it is void with, see
        `void`."""
        scopes = [_scope(tenant_id, kind), *([] if scope is None else [scope])]
        found = self._kept.get((tenant_id, kind, name))
        place: Place = "memory"
        elsewhere = await self._find_in_redis(tenant_id, kind, name, scopes)
        if elsewhere is not None and (found is None or elsewhere.at >= found.at):
            found, place = elsewhere, "redis"
        oldest = time.time() - (self._key_seconds if kind == "key" else self._seconds)
        if found is None or not found.body or found.at < oldest or self._is_void(found, scopes):
            return None
        return found, place

    async def voided_at(self, *scopes: str) -> float:
        """Unix time until which something of these scopes is void, as far as it is known."""
        await self._ask(scopes)
        return max(self._void.get(scope, 0.0) for scope in scopes)

    async def void(self, *scopes: str) -> None:
        """As the function, and in this process even if Redis is away, which is only logged."""
        self._learn(dict.fromkeys(scopes, time.time() + _MARGIN))
        try:
            async with asyncio.timeout(_TIMEOUT):
                await void(self._redis, *scopes)
        except _ERRORS as error:
            log.warning("snapshots_not_voided", error=error)

    async def _ask(self, scopes: Sequence[str], values: str | None = None, field: bytes = b"") -> bytes | None:
        """The field of a hash in Redis, and what of these scopes is void, once for both."""
        if self._cipher is None or time.monotonic() < self._paused_until:
            return None
        try:
            async with asyncio.timeout(_TIMEOUT):
                pipeline = self._redis.pipeline(transaction=False)
                pipeline.hmget(_VOID, list(scopes))
                if values is not None:
                    pipeline.hget(values, cast(str, field))
                times, *found = await pipeline.execute()
        except _ERRORS:
            self._paused_until = time.monotonic() + _PAUSE
            return None
        self._learn({scope: float(at) for scope, at in zip(scopes, times, strict=True) if at is not None})
        return found[0] if found else None

    async def _find_in_redis(self, tenant_id: int, kind: Kind, name: bytes, scopes: list[str]) -> Snapshot | None:
        if self._cipher is None:
            return None
        sealed = await self._ask(scopes, _values(tenant_id, kind), self._cipher.hash(name))
        opened = None if sealed is None else self._cipher.open(sealed, _context(tenant_id, kind, name))
        if opened is None:
            return None
        (at,) = _TIME.unpack_from(opened)
        packed = opened[_TIME.size :]
        return Snapshot(unpack(packed) if packed else b"", at, at)

    def _is_void(self, found: Snapshot, scopes: list[str]) -> bool:
        return any(found.at <= self._void.get(scope, 0.0) for scope in scopes)

    def _learn(self, void: Mapping[str, float]) -> None:
        news = {scope: at for scope, at in void.items() if at > self._void.get(scope, 0.0)}
        if not news:
            return
        self._void |= news
        for key in [key for key, kept in self._kept.items() if kept.at <= news.get(_scope(key[0], key[1]), 0.0)]:
            dropped = self._kept.pop(key)
            self._bytes -= len(dropped.body) + len(key[2]) + _OVERHEAD

    async def _run(self) -> None:
        learn_at = 0.0
        while not self._closed:
            await asyncio.sleep(_TICK)
            now = time.monotonic()
            if now < self._paused_until:
                continue
            try:
                if self._waiting:
                    await self._write()
                if now >= learn_at:
                    learn_at = now + _LEARN
                    void = await cast(Awaitable[dict[bytes, bytes]], self._redis.hgetall(_VOID))
                    self._learn({scope.decode(): float(at) for scope, at in void.items()})
            except _ERRORS:
                self._paused_until = time.monotonic() + _PAUSE
            except Exception as error:
                log.warning("snapshots_not_written", error=error)

    async def _write(self) -> None:
        assert self._cipher is not None
        groups: dict[tuple[int, Kind], list[bytes | str]] = {}
        for key in list(islice(self._waiting, _PER_TICK)):
            del self._waiting[key]
            kept = self._kept.get(key)
            if kept is None:
                continue
            kept.written_at = kept.at
            tenant_id, kind, name = key
            contents = _TIME.pack(kept.at) + (pack(kept.body) if kept.body else b"")
            sealed = self._cipher.seal(contents, _context(tenant_id, kind, name))
            groups.setdefault((tenant_id, kind), []).extend([self._cipher.hash(name), repr(kept.at), sealed])
        oldest, expiry = repr(time.time() - self._seconds), math.ceil(self._seconds)
        for (tenant_id, kind), entries in groups.items():
            values = _values(tenant_id, kind)
            limits: list[bytes | str | float] = [_scope(tenant_id, kind), oldest, expiry, self._most_redis]
            await self._store([values, f"{values}:times", _VOID], [*limits, *entries])


async def void(redis: Redis, *scopes: str) -> None:
    """No snapshot of these scopes that was read until now is shown any more, by any process; those of a kind are
    removed. Other processes learn of it within seconds.

    A scope is one of `tenant_scopes`, or any name by which `find` asks.

    Raises:
        RedisError, OSError: Redis is away.
    """
    now = time.time()
    known = await cast(Awaitable[dict[bytes, bytes]], redis.hgetall(_VOID))
    pipeline = redis.pipeline()
    for scope in scopes:
        pipeline.hset(_VOID, scope, repr(now + _MARGIN))
        pipeline.unlink(f"{_PREFIX}:{scope}", f"{_PREFIX}:{scope}:times")
    if old := [scope.decode() for scope, at in known.items() if float(at) < now - _FORGOTTEN]:
        pipeline.hdel(_VOID, *old)
    await pipeline.execute()


async def forget(redis: Redis, tenant_id: int) -> None:
    """Remove whatever may show a record of the tenant, as records are erased; after the erasure is committed.

    That is every snapshot of its records and of items of its jobs: a record may be on any page of a list.

    Raises:
        RedisError, OSError: Redis is away; call it again once it is back.
    """
    await void(redis, *tenant_scopes(tenant_id, *PERSONAL))


def tenant_scopes(tenant_id: int, *kinds: Kind) -> list[str]:
    """All snapshots of these kinds."""
    return [_scope(tenant_id, kind) for kind in kinds]


def _scope(tenant_id: int, kind: Kind) -> str:
    return f"{tenant_id}:{kind}"


def _values(tenant_id: int, kind: Kind) -> str:
    return f"{_PREFIX}:{tenant_id}:{kind}"


def _context(tenant_id: int, kind: Kind, name: bytes) -> bytes:
    return f"{tenant_id}\0{kind}\0".encode() + name
