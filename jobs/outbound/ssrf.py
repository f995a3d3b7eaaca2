"""Protection against SSRF: calls to URLs of tenants, for webhooks and destinations, reach the public internet alone,
unless an operator names a network.

An address is checked when a socket for it is about to be made, after every look-up: neither an address in the URL nor a
name that resolves otherwise a moment later gets past it.
"""

import errno
import ipaddress
import socket
from collections.abc import Sequence
from typing import Final, Self

import aiohttp

from app.vocabulary.addresses import Network, is_named, refusal
from jobs.outbound.dns import make_resolver

_LOOKUPS: Final = 64
"""Names of destinations that are looked up at a time: one that is not answered holds up few others."""
_INWARD: Final = (
    "its host leads to an address that is not on the public internet; if it shall be called, the operator names its "
    "network in TRANCHE_DESTINATION_PRIVATE"
)
_PLAIN: Final = (
    "its base URL begins with http://, which is only for the networks of TRANCHE_DESTINATION_PRIVATE; add "
    "it again with https://, or let the operator name its network"
)


class AddressRefused(OSError):
    """A call was to go where none may go."""


class PublicOnlySocketFactory:
    """Makes sockets for addresses that may be reached; `allowed` networks may, whatever they are."""

    def __init__(self, allowed: Sequence[Network] = (), *, only: bool = False, words: str = "") -> None:
        """`only`: nothing but `allowed`. `words`: the error message, instead of the kind of address."""
        self._allowed = tuple(allowed)
        self._only = only
        self._words = words

    def __call__(
        self, info: tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[object, ...]]
    ) -> socket.socket:
        """What aiohttp calls for each address that it is about to connect to (`socket_factory`).
        Raises `AddressRefused`: it must not be called."""
        family, kind, protocol, _, place = info
        address = ipaddress.ip_address(str(place[0]))
        why = refusal(address, self._allowed)
        if why is None and self._only and not is_named(address, self._allowed):
            why = "is not in a named network"
        if why is not None:
            # Not named: whoever gave the URL reads this, and our names for private addresses are not for them.
            raise AddressRefused(errno.EACCES, self._words or f"the host's address {why}, and is not called")
        return socket.socket(family=family, type=kind, proto=protocol)


def open_session(allowed: Sequence[Network], *, connections: int) -> aiohttp.ClientSession:
    """A session for other people's URLs: guarded, without proxies, cookies or inflated answers."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=connections,
            ttl_dns_cache=30,
            socket_factory=PublicOnlySocketFactory(allowed),
            resolver=make_resolver(2 * connections),
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
    )


class DestinationSessions:
    """The ways out to destinations: with TLS to the public internet and to networks that the operator names, without it
    to these alone.

    They have neither cookies nor proxies: what a CRM hands one tenant must not go out with another's call.
    """

    def __init__(self, allowed: Sequence[Network]) -> None:
        self._secure = _open(PublicOnlySocketFactory(allowed, words=_INWARD))
        self._plain = _open(PublicOnlySocketFactory(allowed, only=True, words=_PLAIN))

    def to(self, base_url: str) -> aiohttp.ClientSession:
        """The session for calls there. Whoever follows no redirects cannot leave it."""
        return self._secure if base_url.startswith("https://") else self._plain

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._secure.close()
        await self._plain.close()


def _open(sockets: PublicOnlySocketFactory) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0, ttl_dns_cache=30, socket_factory=sockets, resolver=make_resolver(_LOOKUPS)
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    )
