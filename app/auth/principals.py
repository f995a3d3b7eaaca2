"""Who holds which key, as this process learned from the database."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import Context
from datetime import UTC, datetime
from typing import Final

import asyncpg
import msgspec
import structlog
from cachetools import LRUCache, TTLCache

from app.auth import service, tokens
from app.auth.tokens import Token
from app.errors import DatabaseUnavailable, TrancheError, Unauthorized
from app.http.principal import Principal
from app.http.singleflight import SingleFlight
from app.kit.postgres.database import Database
from app.kit.postgres.fair_connections import ACTING, STRANGERS, Actor
from app.kit.postgres.replica import Replica
from app.kit.snapshots import Snapshots, tenant_scopes

log = structlog.get_logger()

RECENT: Final = 1.0
"""Seconds for which a poller's key is taken as it last was."""
REFUSED: Final = 5.0
"""Seconds for which a key that was no good is refused without a query. No secret is presented before it is made, so a
new key works at once; one that becomes good again, as when its tenant is enabled, does so after this."""
WATCH: Final = 1.0
"""Seconds between two looks at the keys of those who wait or follow."""
MOST: Final = 1_000
MOST_REFUSED: Final = 10_000

_Key = tuple[int, str]

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Principal).decode


class Principals:
    """Keys that were good a moment ago, and keys that were not, by their digest."""

    def __init__(self, database: Database, snapshots: Snapshots, replica: Replica | None = None) -> None:
        self._database = database
        self._replica = replica
        self._snapshots = snapshots
        self._known: LRUCache[bytes, tuple[float, Principal]] = LRUCache(MOST)
        self._refused: TTLCache[bytes, None] = TTLCache(MOST_REFUSED, REFUSED)
        self._looking: SingleFlight[bytes, Principal | None] = SingleFlight()
        self._watched: dict[_Key, set[asyncio.Timeout]] = {}
        self._watching: asyncio.Task[None] | None = None

    def may_be_good(self, secret: str) -> bool:
        """Whether asking the database is worth while: it has the shape of a key, and was not refused a moment ago."""
        return tokens.parse(secret) is not None and _digest(secret) not in self._refused

    def knows(self, secret: str) -> bool:
        """Whether this was a good key when it was last looked at."""
        return _digest(secret) in self._known

    def last_known(self, secret: str) -> Principal | None:
        """Who held this key when it was last looked up, however long ago: no ground to let anybody in."""
        return self._known.get(_digest(secret), (0.0, None))[1]

    async def find(self, secret: str, *, recent: bool) -> Principal | None:
        """Who holds this key; `None`: nobody. `recent`: an answer of the last second is good enough."""
        token = tokens.parse(secret)
        if token is None:
            return None
        digest = _digest(secret)
        if digest in self._refused:
            return None
        until, known = self._known.get(digest, (0.0, None))
        # Keys that nobody has seen yet wait among themselves: any number of forged ones keeps no holder of a key out.
        ACTING.set(STRANGERS if known is None else Actor(known.tenant_id, known.weight))
        if not recent:
            return await self._learn(secret, digest)
        left = until - asyncio.get_running_loop().time()
        if known is not None and left > 0:
            if left < RECENT / 2:
                # Call for ahead of time, once for all: else all who come just then would wait.
                self._looking.start(digest, lambda: self._learn(secret, digest))
            return known
        return await self._looking.share(digest, lambda: self._learn(secret, digest))

    async def recall(self, secret: str) -> Principal | None:
        """As `find` while the primary is away, for those who read stale answers: by a replica, if that is where the
        present task reads from, else by when the key was last good. A key that was revoked since is none of these.

        Raises:
            DatabaseUnavailable: it cannot be found out.
            Unauthorized, TenantDisabled: see `app.auth.service.authenticate`.
        """
        token = tokens.parse(secret)
        digest = _digest(secret)
        if token is None or digest in self._refused:
            return None
        if self._database.diverted and self._replica is not None:
            ACTING.set(STRANGERS)
            async with self._database.connection() as connection:
                principal = await service.authenticate(connection, secret)
            if principal is not None and await self._ended_at(token, principal) < self._replica.as_of:
                return principal
            raise DatabaseUnavailable(retry_after=5.0)  # it may be new, or changed where the replica has not come yet
        scope = key_scope(token.tenant_id, token.key_id)
        found = await self._snapshots.find(token.tenant_id, "key", digest, scope=scope)
        if found is None:
            raise DatabaseUnavailable(retry_after=5.0)
        principal = _decode(found[0].body)
        if token.session and await self._ended_at(token, principal) >= found[0].at:
            raise DatabaseUnavailable(retry_after=5.0)  # its key may be revoked
        if principal.expires_at is not None and principal.expires_at <= datetime.now(UTC):
            raise Unauthorized("This API key has expired.")
        return principal

    @asynccontextmanager
    async def heed(self, principal: Principal) -> AsyncIterator[None]:
        """Let what runs within end when the key is revoked meanwhile, two seconds after it at the latest.

        Raises:
            Unauthorized: it was.
        """
        key = (principal.tenant_id, principal.key_id)
        try:
            async with asyncio.timeout(None) as scope:
                self._watched.setdefault(key, set()).add(scope)
                if self._watching is None or self._watching.done():
                    # For all who wait: in nobody's name.
                    self._watching = asyncio.create_task(self._watch(), context=Context())
                try:
                    yield
                finally:
                    scopes = self._watched.get(key, set())
                    scopes.discard(scope)
                    if not scopes:
                        self._watched.pop(key, None)
        except TimeoutError as error:
            if scope.expired():
                raise Unauthorized("This API key was revoked.") from error
            raise

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self._looking.close()

    async def _ended_at(self, token: Token, principal: Principal) -> float:
        """Unix time until which the key, or the session and its key, may have been ended or changed."""
        return await self._snapshots.voided_at(
            *_scopes(token.tenant_id, token.key_id), key_scope(token.tenant_id, principal.key_id)
        )

    async def _learn(self, secret: str, digest: bytes) -> Principal | None:
        asked, began = asyncio.get_running_loop().time(), time.time()
        async with self._database.connection() as connection:
            principal = await service.authenticate(connection, secret)
        if principal is None:
            self._known.pop(digest, None)
            self._refused[digest] = None
            if (token := tokens.parse(secret)) is not None:
                self._snapshots.keep(token.tenant_id, "key", digest, b"", began)
        else:
            self._known[digest] = (asked + RECENT, principal)
            self._snapshots.keep(principal.tenant_id, "key", digest, _encode(principal), began)
        return principal

    async def _watch(self) -> None:
        while self._watched:
            await asyncio.sleep(WATCH)
            watched = list(self._watched)
            if not watched:
                return
            try:
                async with self._database.connection() as connection:
                    good = await service.find_good_keys(connection, watched)
            except (TrancheError, asyncpg.PostgresError) as error:
                log.debug("watch_failed", error=str(error))
                continue
            now = asyncio.get_running_loop().time()
            for key in watched:
                if key not in good:
                    for scope in list(self._watched.get(key, ())):
                        if not scope.expired():
                            scope.reschedule(now)


def key_scope(tenant_id: int, key_id: str) -> str:
    """What is void once the key is changed, see `app.kit.snapshots`."""
    return f"{tenant_id}:key:{key_id}"


def _scopes(tenant_id: int, key_id: str) -> list[str]:
    return [*tenant_scopes(tenant_id, "key"), key_scope(tenant_id, key_id)]


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
