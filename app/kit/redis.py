"""Connections to Redis, the same for every part: by one reading of the URL, and failing by Redis's own errors alone."""

from collections.abc import Iterable
from typing import Any, Final

from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as ConnectionLost


class _Plain(AbstractConnection):
    """A write while the other side hangs up fails in redis-py (5.3) with an `AttributeError` or a `TypeError`
    of the transport that is gone (its issue 4287), and by uvloop in a `RuntimeError` where it is closed. Nobody who is
    prepared for an absent Redis would catch these."""

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        try:
            await super().send_packed_command(command, check_health)
        except (AttributeError, RuntimeError, TypeError) as error:
            raise ConnectionLost("Connection closed while writing to it") from error


class _Tcp(_Plain, Connection):
    pass


class _Tls(_Plain, SSLConnection):
    pass


class _Unix(_Plain, UnixDomainSocketConnection):
    pass


_CLASSES: Final[dict[Any, type[AbstractConnection]]] = {
    Connection: _Tcp,
    SSLConnection: _Tls,
    UnixDomainSocketConnection: _Unix,
}


def make_pool(url: str, **options: Any) -> ConnectionPool:
    """Connections by `url` (`redis://`, `rediss://` or `unix://`, what it says in its query going before `options`).
    Nothing is tried twice: everyone here has something better to do without Redis. For `Redis.from_pool`."""
    named = dict(parse_url(url))
    kind = _CLASSES[named.pop("connection_class", Connection)]
    return ConnectionPool(kind, **({"retry": Retry(NoBackoff(), 0)} | options | named))
