"""Which addresses a call to somebody else's URL may go to: the open internet, and what an operator names.

After the IANA special-purpose address registries. `ipaddress.is_global` is not enough: it lets pass what is translated
(NAT64, 6to4), site-local and multicast, and its answers differ between releases of Python.
"""

import re
import unicodedata
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import unquote

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_REFUSED_4: Final = {
    IPv4Network("0.0.0.0/8"): "means this host",
    IPv4Network("10.0.0.0/8"): "is private",
    IPv4Network("100.64.0.0/10"): "is shared by a carrier's customers",
    IPv4Network("127.0.0.0/8"): "is loopback",
    IPv4Network("169.254.0.0/16"): "is link-local",
    IPv4Network("172.16.0.0/12"): "is private",
    IPv4Network("192.0.0.0/24"): "is reserved",
    IPv4Network("192.0.2.0/24"): "is for documentation",
    IPv4Network("192.88.99.0/24"): "is a 6to4 relay",
    IPv4Network("192.168.0.0/16"): "is private",
    IPv4Network("198.18.0.0/15"): "is for benchmarks",
    IPv4Network("198.51.100.0/24"): "is for documentation",
    IPv4Network("203.0.113.0/24"): "is for documentation",
    IPv4Network("224.0.0.0/4"): "is multicast",
    IPv4Network("240.0.0.0/4"): "is reserved",
}
_REFUSED_6: Final = {
    IPv6Network("::1/128"): "is loopback",
    IPv6Network("::ffff:0:0/96"): "is an IPv4 address in disguise",
    IPv6Network("64:ff9b::/96"): "leads to an IPv4 address (NAT64)",
    IPv6Network("64:ff9b:1::/48"): "leads to an IPv4 address (NAT64)",
    IPv6Network("2001::/32"): "leads to an IPv4 address (Teredo)",
    IPv6Network("2001::/23"): "is reserved",
    IPv6Network("2001:db8::/32"): "is for documentation",
    IPv6Network("2002::/16"): "leads to an IPv4 address (6to4)",
    IPv6Network("3fff::/20"): "is for documentation",
    IPv6Network("fc00::/7"): "is private",
    IPv6Network("fe80::/10"): "is link-local",
    IPv6Network("fec0::/10"): "is site-local",
    IPv6Network("ff00::/8"): "is multicast",
}
_GLOBAL_6: Final = IPv6Network("2000::/3")
"""All that was ever given out for use on the internet."""


def parse_networks(text: str) -> tuple[Network, ...]:
    """CIDR networks, separated by commas. Raises `ValueError`: one of them is none, in words for the operator."""
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


def parse_address(host: str) -> Address | None:
    """The address that a host is written as; `None`: it is a name.

    Besides the usual spellings all that resolvers take: IPv4 of one to four numbers, each decimal, octal or hexadecimal
    (inet_aton), digits and dots of other scripts, percent-encoding, a dot at the end, and IPv6 with a zone.
    """
    text = unicodedata.normalize("NFKC", unquote(host)).replace("\u3002", ".").strip("[]").removesuffix(".")
    try:
        return ip_address(text.partition("%")[0])
    except ValueError:
        return _parse_numbers(text)


_NUMBER: Final = re.compile(r"0x(?P<hex>[0-9a-f]+)|0(?P<oct>[0-7]+)|(?P<dec>0|[1-9][0-9]*)", re.IGNORECASE | re.ASCII)
_BASES: Final = {"hex": 16, "oct": 8, "dec": 10}


def _parse_numbers(text: str) -> IPv4Address | None:
    """As inet_aton reads it: the last number fills what the ones before it leave."""
    found = [_NUMBER.fullmatch(part) for part in text.split(".")] if len(text) < 64 else [None]
    if len(found) > 4:
        return None
    numbers = [int(match[kind], _BASES[kind]) for match in found if match and (kind := match.lastgroup)]
    if len(numbers) < len(found):
        return None
    *first, last = numbers
    room = 8 * (4 - len(first))
    if any(number > 255 for number in first) or last >= 1 << room:
        return None
    return IPv4Address(sum(number << (24 - 8 * place) for place, number in enumerate(first)) + last)


def is_named(address: Address, allowed: Iterable[Network]) -> bool:
    """Whether an operator named it; what is in a disguise must be named as such."""
    return any(address in network for network in allowed)


def refusal(address: Address, allowed: Iterable[Network] = ()) -> str | None:
    """Why nobody may be sent there, as the end of a sentence; `None`: it is fine."""
    if is_named(address, allowed):
        return None
    if isinstance(address, IPv4Address):
        return next((why for network, why in _REFUSED_4.items() if address in network), None)
    why = next((why for network, why in _REFUSED_6.items() if address in network), None)
    return why or (None if address in _GLOBAL_6 else "is reserved")
