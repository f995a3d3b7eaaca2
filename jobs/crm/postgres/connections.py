"""The connections of one destination, each to an address that was checked, and transactions on them.

The question that matters after a failure is whether COMMIT was sent: before, PostgreSQL rolls back whatever it did;
after, nobody knows.
"""

import asyncio
import errno
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Final, Literal, TypeVar
from urllib.parse import unquote, urlsplit

from jobs.crm.exchange import DISCONNECTED, describe_failure
from jobs.crm.postgres.wire import (
    MAX_ANSWER_BYTES,
    TLS_REQUEST,
    MalformedError,
    Row,
    ServerError,
    UnsupportedError,
    Wire,
)
from jobs.outbound.idle import IdlePool
from jobs.outbound.ssrf import AddressRefused, GuardedConnector, Place

Mode = Literal["disable", "prefer", "require", "verify-ca", "verify-full"]
_PORT: Final = 5432
_PLAIN: Final = (
    "its sslmode allows connections without TLS, which are only for the networks of TRANCHE_DESTINATION_PRIVATE; "
    "choose require, or better verify-full"
)
_NO_TLS: Final = "the server does not offer TLS, which the option sslmode asks for"
_NO_SENSE: Final = "what it answered cannot be read"
_UNSUPPORTED: Final = "its way of authentication is not supported: let it ask for scram-sha-256"

T = TypeVar("T")


class _NoTls(Exception):
    pass


class Lost(Exception):
    """There is no connection (any more)."""

    def __init__(self, detail: str, *, refused: bool = False, misconfigured: bool = False) -> None:
        super().__init__(detail)
        self.detail = detail
        self.refused = refused
        """It was not made, because nobody may be sent there."""
        self.misconfigured = misconfigured
        """It would fail again until somebody changes a setting."""


class Session:
    """A connection. Its methods raise `ServerError` for what PostgreSQL says, and `Lost` for all else."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.encrypted = wire.encrypted
        self.server = wire.server
        """Its version, such as `18.1`."""
        self.committing = False
        """COMMIT was sent, and not answered."""

    async def execute(self, script: str) -> None:
        await _ask(self._wire.execute(script))

    async def fetch(self, query: str, *arguments: str) -> list[Row]:
        return await _ask(self._wire.fetch(query, *arguments))

    async def commit(self) -> None:
        self.committing = True
        tag = await _ask(self._wire.execute("COMMIT"))
        if tag not in ("COMMIT", "ROLLBACK"):
            raise Lost(_NO_SENSE)
        self.committing = False
        if tag == "ROLLBACK":
            raise Lost("the transaction was rolled back")

    def begin_call(self) -> None:
        self._wire.left = MAX_ANSWER_BYTES

    @property
    def closed(self) -> bool:
        return self._wire.closed

    def close(self) -> None:
        self._wire.close()

    def abort(self) -> None:
        """Whatever it does now is rolled back."""
        self._wire.abort()


class Connections:
    """As many as there are calls at a time; those that are idle are closed after a while. A server that cannot be
    reached costs its own calls time, and nobody else's. Raises `ValueError`: the base URL cannot be used."""

    def __init__(
        self,
        connector: GuardedConnector,
        base_url: str,
        *,
        user: str,
        password: str,
        mode: Mode | None,
        roots: str | None,
        timeout: float,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme != "postgresql" or not parts.hostname or not parts.path.strip("/"):
            raise ValueError("the base URL must be like postgresql://host:port/database")
        self._connector = connector
        self._host = parts.hostname
        self._port = parts.port or _PORT
        self._database = unquote(parts.path.strip("/"))
        self._user, self._password = user, password
        self._mode, self._roots = mode, roots
        self._timeout = timeout
        self._contexts: dict[tuple[bool, bool], ssl.SSLContext] = {}
        self._idle: IdlePool[Session] = IdlePool()
        if roots is not None:
            self._context("verify-full")
        connector.end_with_me(self)

    @asynccontextmanager
    async def transaction(self, begin: str) -> AsyncIterator[Session]:
        """A session on which `begin` was executed; the block commits.

        Raises:
            Lost: there is no connection, or it was lost.
            ServerError: PostgreSQL lets nobody in, or `begin` failed.
        """
        session = await self._begin(begin)
        try:
            yield session
        except BaseException:
            session.abort()
            raise
        self._idle.keep(session)

    def terminate(self) -> None:
        """Close those that are idle at once."""
        self._idle.terminate()

    async def _begin(self, begin: str) -> Session:
        while (kept := self._idle.take()) is not None:
            try:
                kept.begin_call()
                async with asyncio.timeout(self._timeout):
                    await kept.execute(begin)
                return kept
            except (Lost, ServerError, TimeoutError):
                kept.abort()  # it ended while nobody looked: the server was restarted, or a firewall forgot it
            except BaseException:
                kept.abort()
                raise
        session = await self._connect()
        try:
            await session.execute(begin)
        except BaseException:
            session.abort()
            raise
        return session

    async def _connect(self) -> Session:
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout):
                return await _ask(self._connect_somewhere())
        except TimeoutError as error:
            raise _lost(error, time.monotonic() - started) from error

    async def _connect_somewhere(self) -> Session:
        """To the first of its addresses that answers."""
        failure: OSError = OSError(errno.EADDRNOTAVAIL, "it has no address")
        for place in await self._connector.find(self._host, self._port):
            try:
                return await self._connect_to(place)
            except OSError as error:
                failure = error
        raise failure

    async def _connect_to(self, place: Place) -> Session:
        mode = self._mode or ("prefer" if place.named else "verify-full")
        if mode in ("disable", "prefer") and not place.named:
            raise AddressRefused(errno.EACCES, _PLAIN)
        wire = await self._open(place, mode)
        try:
            await wire.start(self._user, self._password, self._database)
        except BaseException:
            wire.abort()
            raise
        return Session(wire)

    async def _open(self, place: Place, mode: Mode) -> Wire:
        loop = asyncio.get_running_loop()
        made = socket.socket(socket.AF_INET6 if ":" in place.address else socket.AF_INET)
        try:
            made.setblocking(False)
            await loop.sock_connect(made, (place.address, self._port))
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            encrypted = mode != "disable" and await _offers_tls(made)
            if not encrypted and mode not in ("disable", "prefer"):
                raise _NoTls
            context = self._context(mode) if encrypted else None
            host = self._host if encrypted else None
            reader, writer = await asyncio.open_connection(sock=made, ssl=context, server_hostname=host)
        except BaseException:
            made.close()
            raise
        return Wire(reader, writer, encrypted=encrypted)

    def _context(self, mode: Mode) -> ssl.SSLContext:
        """Raises `ValueError`: there are no certificates where there should be."""
        verify = mode in ("verify-ca", "verify-full") or (mode == "require" and self._roots is not None)
        key = (verify, mode == "verify-full")
        if key not in self._contexts:
            context = self._contexts[key] = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = all(key)
            context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
            if verify and self._roots is None:
                context.load_default_certs()
            elif verify:
                try:
                    context.load_verify_locations(cadata=self._roots)
                except ssl.SSLError as error:
                    words = "options.ssl_root_certificate holds no certificates that can be read (PEM)"
                    raise ValueError(words) from error
        return self._contexts[key]


async def _offers_tls(made: socket.socket) -> bool:
    """Exactly one byte is read: what is said before TLS must not count as said within it (CVE-2021-23222)."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(made, TLS_REQUEST)
    answer = await loop.sock_recv(made, 1)
    if answer not in (b"S", b"N"):
        raise MalformedError(_NO_SENSE) if answer else ConnectionResetError
    return answer == b"S"


async def _ask(call: Awaitable[T]) -> T:
    try:
        return await call
    except ServerError:
        raise
    except _NoTls as error:
        raise Lost(_NO_TLS, misconfigured=True) from error
    except UnsupportedError as error:
        raise Lost(_UNSUPPORTED, misconfigured=True) from error
    except MalformedError as error:
        raise Lost(str(error)) from error
    except asyncio.IncompleteReadError as error:
        raise Lost(DISCONNECTED) from error
    except OSError as error:
        raise _lost(error, None) from error
    except (ValueError, KeyError, IndexError, struct.error) as error:
        raise Lost(_NO_SENSE) from error


def _lost(error: Exception, seconds: float | None) -> Lost:
    detail = describe_failure(error, seconds)
    return Lost(detail, refused=isinstance(error, AddressRefused), misconfigured=isinstance(error, ssl.SSLError))
