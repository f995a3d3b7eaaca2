"""Where an answer to a read comes from: the primary, or, while that is away, a replica, or what was answered lately.

Such an answer says so: `stale` and `age_seconds` in the document, `Warning: 110`, and no ETag. Who may see it is found
out as for any other, by what a replica says of the key, or by what was found out of it lately.
"""

import math
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import asyncpg
import msgspec
from litestar.response.base import ASGIResponse

from app import telemetry
from app.errors import DatabaseUnavailable, NotFound, Overloaded, StorageFull, TrancheError
from app.http.call import Call
from app.http.cursors import link_next
from app.http.headers import CSV, JSON, NDJSON, choose_type
from app.http.principal import Principal
from app.http.problems import SCHEMA_MISSING, recognize
from app.http.reply import Reply
from app.kit.postgres.database import Database
from app.kit.postgres.replica import Replica
from app.kit.snapshots import Kind, Snapshots
from app.telemetry import FallbackRead

Source: TypeAlias = Literal["primary", "offload", "replica", "redis", "memory", "none"]
"""`offload`: a replica that had all that the primary had; `none`: no fallback had an answer."""

WARNING: Final = '110 - "Response is Stale"'
_AGAIN: Final = 5
"""Seconds after which asking again is worth while."""
_MINUTE: Final = 60.0
_REACH: Final = 0.1
"""Seconds that a list waits for a replica, before it goes to the primary."""
_LOG_EVERY: Final = 1.0
_MOST_RECENT: Final = 10_000
_OWN_ALONE: Final = frozenset({"import"})
"""Scopes of a key that sees only what it asked for itself."""
_NOTHING: Final = (
    "The database cannot be reached, and this was not read lately enough to be shown as it was then. Send the request "
    "again."
)

_encode: Final = msgspec.json.Encoder().encode


class _Paged(msgspec.Struct):
    next_cursor: str | None = None


_find_cursor: Final = msgspec.json.Decoder(_Paged).decode


@dataclass(frozen=True, kw_only=True)
class Fallback:
    """How an operation that only reads is answered without the primary."""

    kind: Kind
    kept: bool = True
    """Its answers are kept for then."""
    offload: bool = False
    """A replica answers it also while the primary is there, once it has all that the primary had."""
    long: bool = False
    """It reads for minutes."""


@dataclass(frozen=True, kw_only=True)
class Read:
    """An operation that only reads, in its steps."""

    id: str
    fallback: Fallback
    places: tuple[str, ...]
    """Names of the arguments that are parts of the path."""
    admit: Callable[[Call], Awaitable[Principal | None]]
    recall: Callable[[Call], Awaitable[Principal | None]]
    bind: Callable[[Call], Awaitable[dict[str, Any]]]
    execute: Callable[[Call, dict[str, Any]], Awaitable[Reply[bytes] | ASGIResponse]]


class Reads:
    """One in a process."""

    def __init__(self, database: Database, replica: Replica | None, snapshots: Snapshots) -> None:
        self._primary = database
        self._replica = replica
        self._snapshots = snapshots
        self._recent: deque[tuple[float, Source]] = deque(maxlen=_MOST_RECENT)
        self._logged: dict[Source, float] = {}

    async def serve(self, call: Call, read: Read) -> Reply[bytes] | ASGIResponse:
        """Raises what the operation raises; where nothing can be read, `DatabaseUnavailable` or `Overloaded`."""
        began = time.time()
        try:
            answer, source = await self._read(call, read)
        except Exception as error:
            if not _is_unavailable(error):
                if isinstance(error, NotFound) and read.fallback.kept and call.arguments is not None:
                    self._keep(call, read, b"", began)
                raise
            return await self._fall_back(call, read, error)
        _note(call, read, source)
        if read.fallback.kept and not isinstance(answer, ASGIResponse) and call.media_type == JSON and answer.value:
            self._keep(call, read, answer.value, began)
        return answer

    def count_recent(self) -> Mapping[Source, int]:
        """Reads of the last minute that were answered from fallbacks, by source."""
        since = time.monotonic() - _MINUTE
        return Counter(source for at, source in self._recent if at > since)

    async def _read(self, call: Call, read: Read) -> tuple[Reply[bytes] | ASGIResponse, Source]:
        replica = self._replica
        if read.fallback.offload and replica is not None and replica.is_close(long=read.fallback.long):
            answer = await self._offload(call, read, replica)
            if answer is not None:
                return answer, "offload"
        watch = self._primary.availability
        try:
            return await watch.run(lambda: _run(call, read)), "primary"
        except DatabaseUnavailable:
            if not await watch.check():
                raise
        # A connection was lost, not the server.
        return await watch.run(lambda: _run(call, read)), "primary"

    async def _offload(self, call: Call, read: Read, replica: Replica) -> Reply[bytes] | ASGIResponse | None:
        """What the replica answers as the primary would have when the request came; `None`: it cannot."""

        async def ask_primary() -> int:
            call.principal = await read.admit(call)
            return await replica.read_primary()

        async def ask_replica() -> Reply[bytes] | ASGIResponse | None:
            if not await replica.reaches(position, within=_REACH):
                return None
            with replica.divert():
                return await _execute(call, read)

        try:
            position = await self._primary.availability.run(ask_primary)
            return await replica.availability.run(ask_replica)
        except (TrancheError, asyncpg.PostgresError) as error:
            if _is_unavailable(error):
                return None
            raise

    async def _fall_back(self, call: Call, read: Read, error: Exception) -> Reply[bytes] | ASGIResponse:
        try:
            answer, source = await self._find(call, read)
        except Exception as failed:
            if _is_unavailable(failed):
                self._report(call, read, "none")
            raise
        if answer is None:
            self._report(call, read, "none")
            if isinstance(error, DatabaseUnavailable):
                raise DatabaseUnavailable(_NOTHING, retry_after=_AGAIN) from error
            raise error
        self._report(call, read, source)
        return answer

    async def _find(self, call: Call, read: Read) -> tuple[Reply[bytes] | ASGIResponse | None, Source]:
        replica = self._replica
        if replica is not None and not replica.availability.away:
            try:
                with replica.divert():
                    answer = await replica.availability.run(lambda: _recall(call, read))
                return _mark(call, answer, replica.age), "replica"
            except NotFound:
                pass  # or it has not come there yet
            except (TrancheError, asyncpg.PostgresError) as error:
                if not _is_unavailable(error):
                    raise
                await replica.availability.check()
        if not read.fallback.kept:
            return None, "none"
        if call.principal is None:
            call.principal = await read.recall(call)
        if call.arguments is None:
            call.arguments = await read.bind(call)
        # Where an operation chooses by itself, only its JSON was kept.
        if call.principal is None or choose_type(call.fields, (JSON, NDJSON, CSV)) != JSON:
            return None, "none"
        found = await self._snapshots.find(call.principal.tenant_id, read.fallback.kind, _name(call, read))
        if found is None:
            return None, "none"
        snapshot, source = found
        return _mark(call, snapshot.body, time.time() - snapshot.at), source

    def _keep(self, call: Call, read: Read, body: bytes, at: float) -> None:
        if call.principal is not None:
            self._snapshots.keep(call.principal.tenant_id, read.fallback.kind, _name(call, read), body, at)

    def _report(self, call: Call, read: Read, source: Source) -> None:
        _note(call, read, source)
        now = time.monotonic()
        self._recent.append((now, source))
        if now - self._logged.get(source, -math.inf) >= _LOG_EVERY:
            self._logged[source] = now
            telemetry.emit(FallbackRead(kind=read.fallback.kind, source=source, recent=self.count_recent()[source]))


async def _run(call: Call, read: Read) -> Reply[bytes] | ASGIResponse:
    call.principal = await read.admit(call)
    return await _execute(call, read)


async def _recall(call: Call, read: Read) -> Reply[bytes] | ASGIResponse:
    if call.principal is None:
        call.principal = await read.recall(call)
    return await _execute(call, read)


async def _execute(call: Call, read: Read) -> Reply[bytes] | ASGIResponse:
    call.arguments = await read.bind(call)
    return await read.execute(call, call.arguments)


def _is_unavailable(error: Exception) -> bool:
    """Whether PostgreSQL could not answer in time, rather than refused."""
    if isinstance(error, SCHEMA_MISSING):
        return False
    return isinstance(recognize(error), DatabaseUnavailable | Overloaded | StorageFull)


def _name(call: Call, read: Read) -> bytes:
    """Of an answer, among those of its tenant. A key that does not see all has its own: it is shown what it saw."""
    assert call.principal is not None
    assert call.arguments is not None
    own = call.principal.key_id if call.principal.scopes == _OWN_ALONE else ""
    places = [call.arguments[name] for name in read.places]
    return _encode((own, read.id, places, call.arguments.get("query")))


def _note(call: Call, read: Read, source: Source) -> None:
    call.exchange.read, call.exchange.source = read.fallback.kind, source


def _mark(call: Call, answer: bytes | Reply[bytes] | ASGIResponse, age: float) -> Reply[bytes] | ASGIResponse:
    """The answer, saying that it is stale."""
    if isinstance(answer, ASGIResponse):
        answer.headers["warning"] = WARNING
        answer.headers["cache-control"] = "no-store"
        return answer
    body = answer if isinstance(answer, bytes) else answer.value
    kept = {} if isinstance(answer, bytes) else answer.headers or {}
    headers = {name: value for name, value in kept.items() if name not in ("ETag", "Cache-Control")}
    headers |= {"Warning": WARNING, "Cache-Control": "no-store", "Retry-After": str(_AGAIN)}
    headers |= link_next(call.request.scope, _find_cursor(body).next_cursor)
    # Every document has members of its own.
    return Reply(body[:-1] + f',"stale":true,"age_seconds":{math.ceil(max(0.0, age))}}}'.encode(), headers=headers)
