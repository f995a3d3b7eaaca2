"""The address that a request comes from, as far as that can be believed."""

import re
from collections.abc import Iterator
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Any, Final

from app.vocabulary.addresses import Address, is_named, parse_networks

_PREFIX: Final = 64
"""Bits of an IPv6 address that one customer of a provider has at least."""
_FOR: Final = re.compile(r'(?:^|;)\s*for="?([^";]*)"?', re.IGNORECASE)


class ClientAddresses:
    def __init__(self, trusted: str, header: str) -> None:
        """`trusted`: networks of proxies, separated by commas; `header`: where they say for whom they ask."""
        self._trusted = parse_networks(trusted)
        self._header = header.lower().encode()

    def find(self, scope: Any) -> str | None:
        """The address, of IPv6 its network of 64 bits; `None`: there is none, as on a Unix socket.

        Of a trusted proxy, the one that it names; where that is a trusted proxy too, the one that this names.
        """
        peer = scope.get("client")
        found = _parse(peer[0]) if peer else None
        if found is not None and is_named(found, self._trusted):
            for text in self._named(scope):
                named = _parse(text)
                if named is None:
                    break  # nobody before it can be believed
                found = named
                if not is_named(found, self._trusted):
                    break
        if isinstance(found, IPv6Address):
            return str(IPv6Network((found, _PREFIX), strict=False))
        return None if found is None else str(found)

    def _named(self, scope: Any) -> Iterator[str]:
        """Addresses that the proxies name, the nearest first."""
        lines = [value.decode("latin-1") for name, value in scope["headers"] if name == self._header]
        for element in reversed(",".join(lines).split(",")):
            if self._header == b"forwarded":
                named = _FOR.search(element.strip())
                yield named[1] if named else ""
            else:
                yield element


def _parse(text: str) -> Address | None:
    """With or without a port, and brackets around IPv6."""
    text = text.strip()
    bracketed = re.fullmatch(r"\[(.*)\](?::\d+)?", text)
    if bracketed:
        text = bracketed[1]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (isinstance(found, IPv6Address) and found.ipv4_mapped) or found
