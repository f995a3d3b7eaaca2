"""The guard at the door: calls to URLs that tenants gave us reach the public internet and nothing else.

An address is checked when a socket for it is about to be made, after every look-up: neither an address in the URL nor a
name that stands for something else a moment later gets past it.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Sequence

import aiohttp

from app.domain.addresses import Network, refusal
from jobs.lookups import make_resolver


class Refused(OSError):
    """A call was to go where none may go."""


class Guard:
    """Makes sockets for addresses that may be reached; `allowed` networks may, whatever they are."""

    def __init__(self, allowed: Sequence[Network] = ()) -> None:
        self._allowed = tuple(allowed)

    def __call__(
        self, info: tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[object, ...]]
    ) -> socket.socket:
        """What aiohttp calls for each address that it is about to connect to (`socket_factory`).

        Raises:
            Refused: nobody may be sent there.
        """
        family, kind, protocol, _, place = info
        why = refusal(ipaddress.ip_address(str(place[0])), self._allowed)
        if why is not None:
            # Not named: whoever gave the URL reads this, and our names for private addresses are not for them.
            raise Refused(errno.EACCES, f"the host's address {why}, and is not called")
        return socket.socket(family=family, type=kind, proto=protocol)


def open_session(allowed: Sequence[Network], *, connections: int) -> aiohttp.ClientSession:
    """A session for other people's URLs: guarded, without proxies, cookies or inflated answers."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=connections,
            ttl_dns_cache=30,
            socket_factory=Guard(allowed),
            resolver=make_resolver(2 * connections),
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
    )
