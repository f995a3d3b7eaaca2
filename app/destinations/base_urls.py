"""Which base URL a destination may have: one on the public internet, with TLS, or one that the operator names.

A name is looked up only when a call is made, and the address that it resolves to is held to the same rules then
(`jobs.outbound.ssrf`): what is refused here is what would never be called.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec

from app.vocabulary.addresses import Address, Network, is_named, parse_address, refusal

MAX_URL: Final = 2_000
SETTING: Final = "TRANCHE_DESTINATION_PRIVATE"
_HOST: Final = r"[^\s/?#@\\\x00-\x1f]+"
_LOOPBACK: Final = ("127.0.0.1", "::1")
_METADATA: Final = ("169.254.169.254",)
_NAMES: Final = {
    "localhost": _LOOPBACK,
    "localhost.localdomain": _LOOPBACK,
    "ip6-localhost": _LOOPBACK,
    "ip6-loopback": _LOOPBACK,
    "instance-data": _METADATA,
    "metadata": _METADATA,
    "metadata.google.internal": _METADATA,
}
"""Names whose address is known without asking anybody."""


class UrlForm(msgspec.Struct, frozen=True):
    """How the base URLs of a kind of destination are written."""

    schemes: tuple[str, ...]
    path: str
    """A pattern of what follows host and port."""
    example: str
    words: str = ""
    """What else to say of a URL that is not one, as a sentence."""
    several: bool = False
    """It may name several hosts, joined by commas."""

    def each(self, url: str) -> list[str]:
        """A URL for each of its hosts."""
        scheme, _, rest = url.partition("://")
        return [f"{scheme}://{host}" for host in rest.rstrip("/").split(",")] if self.several else [url]

    def matches(self, url: str) -> bool:
        return re.fullmatch(rf"({'|'.join(self.schemes)})://{_HOST}{self.path}", url) is not None


HTTP: Final = UrlForm(("https", "http"), r"(/[^\s?#\\\x00-\x1f]*)?", "https://api.example.com")
OBJECT_STORE: Final = UrlForm(HTTP.schemes, HTTP.path, "https://s3.eu-central-1.amazonaws.com")
POSTGRESQL: Final = UrlForm(
    ("postgresql",),
    r"/[^\s/?#\\\x00-\x1f]+/?",
    "postgresql://db.example.com:5432/sales",
    "User and password are credentials, and sslmode is an option.",
)
KAFKA: Final = UrlForm(
    ("kafka",),
    "/?",
    "kafka://b-1.example.com:9092,b-2.example.com:9092",
    "It names bootstrap servers; user and password are credentials, and tls is an option.",
    several=True,
)


def base_url_fault(url: str, private: Iterable[Network], form: UrlForm = HTTP) -> str | None:
    """Why a destination of a kind cannot be there, as sentences; `None`: it can. `private`: networks that the operator
    names."""
    if len(url) > MAX_URL:
        return f"The base URL is longer than {MAX_URL} characters."
    hosts = [_host_of(each) for each in form.each(url)] if form.matches(url) else []
    if not hosts or None in hosts:
        # Not repeated where it may hold a password: a URL is shown to whoever may read, and appears in logs.
        shown = "A URL with a user or password" if "@" in url else repr(url)
        return f"{shown} is not a base URL, such as {form.example}." + (f" {form.words}" if form.words else "")
    named = tuple(private)
    for host in filter(None, hosts):
        reasons = [refusal(address, named) for address in _addresses_of(host)]
        if reasons and all(reasons):
            return (
                f"{host} {reasons[0]}; a destination is on the public internet, unless its network is in {SETTING}, "
                "which the operator sets."
            )
    if url.startswith("http://"):
        addresses = _addresses_of(hosts[0] or "")
        inside = any(is_named(address, named) for address in addresses) if addresses else bool(named)
        if not inside:
            return (
                "The base URL must begin with https://, because the token and the records could otherwise be read "
                f"in transit; http:// is for hosts in the networks of {SETTING}, which the operator sets."
            )
    return None


def _addresses_of(host: str) -> list[Address]:
    """Of a host that is an address, or a name with known ones; empty for any other name."""
    address = parse_address(host)
    if address is not None:
        return [address]
    name = unicodedata.normalize("NFKC", unquote(host)).casefold().rstrip(".")
    name = "localhost" if name.endswith(".localhost") else name
    return [found for text in _NAMES.get(name, ()) if (found := parse_address(text)) is not None]


def _host_of(url: str) -> str | None:
    """The host to call; an IPv6 address without its bracket, `a..b` and port 99999 are none."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        labels = host.removesuffix(".").split(".")
        usable = bool(host) and parts.port != 0 and (":" in host or all(0 < len(x) < 64 for x in labels))
    except ValueError:
        return None
    return host if usable else None
