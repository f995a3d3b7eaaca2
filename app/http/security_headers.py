"""Header fields that every answer carries for the safety of browsers and caches between."""

from collections.abc import Iterable
from typing import Final

_ALWAYS: Final[list[tuple[bytes, bytes]]] = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"server", b"tranche"),  # granian names itself where nobody else does
]
_DEFAULTS: Final[dict[bytes, bytes]] = {
    # What needs a key is one tenant's business; handlers of public documents and of what has an ETag say otherwise.
    b"cache-control": b"private, no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
}
_TLS: Final = [(b"strict-transport-security", b"max-age=31536000")]
"""A year. Not for subdomains: whose they are is not known here."""


def shield(fields: Iterable[tuple[bytes, bytes]], scheme: str) -> list[tuple[bytes, bytes]]:
    """The fields of an answer with those that are missing; `scheme` is that of the connection itself: behind a proxy
    that ends TLS it is `http`, and HSTS is the proxy's to say."""
    given = list(fields)
    names = {name for name, _ in given}
    given += _ALWAYS
    given += [(name, value) for name, value in _DEFAULTS.items() if name not in names]
    return given + _TLS if scheme == "https" else given
