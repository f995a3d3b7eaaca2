"""Protection against SSRF: calls to URLs of tenants, for webhooks and destinations, reach the public internet alone,
unless an operator names a network.

An address is checked when a socket for it is about to be made, after every look-up: neither an address in the URL nor a
name that resolves otherwise a moment later gets past it.
"""

import errno
import ipaddress
import socket
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol, Self
from weakref import WeakSet

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


class Terminable(Protocol):
    def terminate(self) -> None:
        """Close all connections at once."""


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
        self.check(str(place[0]))
        return socket.socket(family=family, type=kind, proto=protocol)

    def check(self, host: str) -> bool:
        """Whether an operator named the network of an address that is about to be called.
        Raises `AddressRefused`: it must not be called."""
        address = ipaddress.ip_address(host.partition("%")[0])
        why = refusal(address, self._allowed)
        named = is_named(address, self._allowed)
        if why is None and self._only and not named:
            why = "is not in a named network"
        if why is not None:
            # Not named: whoever gave the URL reads this, and our names for private addresses are not for them.
            raise AddressRefused(errno.EACCES, self._words or f"the host's address {why}, and is not called")
        return named


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


class Place(NamedTuple):
    """An address that may be called."""

    address: str
    named: bool
    """An operator named its network."""


class GuardedConnector(aiohttp.TCPConnector):
    """Connects to addresses that may be reached, and finds them for those who connect by themselves."""

    def __init__(self, sockets: PublicOnlySocketFactory) -> None:
        self._sockets = sockets
        self._names = make_resolver(_LOOKUPS)
        self._opened: WeakSet[Terminable] = WeakSet()
        super().__init__(limit=0, ttl_dns_cache=30, socket_factory=sockets, resolver=self._names)

    async def find(self, host: str, port: int) -> list[Place]:
        """Where a host is, each address checked: whoever connects to one of these cannot be led elsewhere.
        Raises `AddressRefused`: none of them may be called; `OSError`: it cannot be resolved."""
        found: list[Place] = []
        refused: AddressRefused | None = None
        for answer in await self._names.resolve(host, port, socket.AF_UNSPEC):
            try:
                found.append(Place(answer["host"], self._sockets.check(answer["host"])))
            except AddressRefused as error:
                refused = error
        if not found and refused is not None:
            raise refused
        return found

    def end_with_me(self, opened: Terminable) -> None:
        """What is terminated when this connector is closed, at the latest."""
        self._opened.add(opened)

    async def close(self, *, abort_ssl: bool = False) -> None:
        for each in self._opened:
            each.terminate()
        await super().close(abort_ssl=abort_ssl)


class DestinationSessions:
    """The ways out to destinations: with TLS to the public internet and to networks that the operator names, without it
    to these alone.

    They have neither cookies nor proxies: what a CRM hands one tenant must not go out with another's call. Who speaks
    another protocol than HTTP connects by itself, to what `GuardedConnector.find` finds.
    """

    def __init__(self, allowed: Sequence[Network]) -> None:
        self._secure = _open(PublicOnlySocketFactory(allowed, words=_INWARD))
        self._plain = _open(PublicOnlySocketFactory(allowed, only=True, words=_PLAIN))

    def to(self, base_url: str) -> aiohttp.ClientSession:
        """The session for calls there. Whoever follows no redirects cannot leave it."""
        return self._plain if base_url.startswith("http://") else self._secure

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._secure.close()
        await self._plain.close()


def _open(sockets: PublicOnlySocketFactory) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=GuardedConnector(sockets), cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
    )
