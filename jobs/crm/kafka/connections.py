"""Connections to brokers, each to an address that was checked: those of the base URL, and those that a broker names."""

import asyncio
import errno
import socket
import ssl
import struct
import time
from collections.abc import Awaitable
from typing import Final, TypeVar
from urllib.parse import urlsplit

from app.destinations.base_urls import KAFKA
from jobs.crm.exchange import DISCONNECTED, describe_failure
from jobs.crm.kafka.wire import MalformedError, RefusedError, Wire
from jobs.crm.scram import ScramError
from jobs.outbound.ssrf import AddressRefused, GuardedConnector, Place
from jobs.outbound.tracebacks import drop_tracebacks

PORT: Final = 9092
Server = tuple[str, int]
"""Host and port."""
_PLAIN: Final = (
    "its option tls is false, and connections without TLS are only for the networks of TRANCHE_DESTINATION_PRIVATE; "
    "choose tls=true"
)
_NO_SENSE: Final = "what it answered cannot be read"

T = TypeVar("T")


class Lost(Exception):
    """There is no connection (any more)."""

    def __init__(
        self, detail: str, *, refused: bool = False, misconfigured: bool = False, timed_out: bool = False
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.refused = refused
        """It was not made, because nobody may be sent there."""
        self.misconfigured = misconfigured
        """It would fail again until somebody changes a setting."""
        self.timed_out = timed_out


class Login:
    """How a user shows who they are."""

    def __init__(self, mechanism: str, user: str, password: str) -> None:
        self.mechanism, self.user, self.password = mechanism, user, password


class Dialer:
    """Makes connections. Raises `ValueError`: there are no certificates where there should be."""

    def __init__(
        self, connector: GuardedConnector, *, tls: bool, roots: str | None, login: Login | None, timeout: float
    ) -> None:
        self._connector = connector
        self._context = _context(roots) if tls else None
        self._login = login
        self.timeout = timeout
        """Seconds for a connection, and for an answer that no record waits for."""

    async def connect(self, server: Server) -> Wire:
        """To the first of its addresses that answers. Raises `Lost`."""
        return await ask(self._connect_somewhere(*server), self.timeout)

    async def _connect_somewhere(self, host: str, port: int) -> Wire:
        failure: OSError = OSError(errno.EADDRNOTAVAIL, "it has no address")
        for place in await self._connector.find(host, port):
            try:
                return await self._connect_to(place, host, port)
            except OSError as error:
                failure = error
        raise failure

    async def _connect_to(self, place: Place, host: str, port: int) -> Wire:
        if self._context is None and not place.named:
            raise AddressRefused(errno.EACCES, _PLAIN)
        wire = await self._open(place, host, port)
        try:
            await wire.start()
            if self._login is not None:
                await wire.log_in(self._login.mechanism, self._login.user, self._login.password)
        except BaseException:
            wire.abort()
            raise
        return wire

    async def _open(self, place: Place, host: str, port: int) -> Wire:
        """The certificate is verified for the name, and the connection goes to the address."""
        loop = asyncio.get_running_loop()
        made = socket.socket(socket.AF_INET6 if ":" in place.address else socket.AF_INET)
        try:
            made.setblocking(False)
            await loop.sock_connect(made, (place.address, port))
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            name = host if self._context is not None else None
            reader, writer = await asyncio.open_connection(sock=made, ssl=self._context, server_hostname=name)
        except BaseException:
            made.close()
            raise
        return Wire(reader, writer, encrypted=self._context is not None)


def servers_of(base_url: str) -> list[Server]:
    """Raises `ValueError`: it cannot be used."""
    found = [urlsplit(url) for url in KAFKA.each(base_url)] if KAFKA.matches(base_url) else []
    if not found or not all(each.hostname for each in found):
        raise ValueError("the base URL must be like kafka://host:port, or name several hosts, joined by commas")
    return [(str(each.hostname), each.port or PORT) for each in found]


async def ask(call: Awaitable[T], seconds: float) -> T:
    """What a call gives within the time. Raises `Lost`."""
    started = time.monotonic()
    try:
        async with asyncio.timeout(seconds):
            return await call
    except TimeoutError as error:
        drop_tracebacks(error)
        raise Lost(describe_failure(error, time.monotonic() - started), timed_out=True) from error
    except RefusedError as error:
        raise Lost(str(error), misconfigured=True) from error
    except (MalformedError, ScramError) as error:
        raise Lost(str(error)) from error
    except asyncio.IncompleteReadError as error:
        raise Lost(DISCONNECTED) from error
    except OSError as error:
        drop_tracebacks(error)
        refused, misconfigured = isinstance(error, AddressRefused), isinstance(error, ssl.SSLError)
        raise Lost(describe_failure(error, None), refused=refused, misconfigured=misconfigured) from error
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, struct.error) as error:
        raise Lost(_NO_SENSE) from error


def _context(roots: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if roots is None:
        context.load_default_certs()
        return context
    try:
        context.load_verify_locations(cadata=roots)
    except ssl.SSLError as error:
        words = "options.ssl_root_certificate holds no certificates that can be read (PEM)"
        raise ValueError(words) from error
    return context
