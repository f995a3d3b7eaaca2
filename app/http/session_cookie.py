"""The cookie that a signed-in page is known by (RFC 6265bis), in place of an `Authorization` that it need not have.

A browser sends it by itself, so no other page may profit: it is SameSite=Strict, and a request that could change
something counts only with a header field that pages of other origins cannot send. It becomes an ordinary bearer before
anything looks at the request.
"""

from typing import Any, Final

NAME: Final = "__Host-tranche"
"""With this prefix, browsers take it only over TLS (or on the same machine), for this host alone and the whole site."""
HEADER: Final = "Tranche-Console"
_SAFE: Final = frozenset({"GET", "HEAD"})


def write(secret: str, seconds: float) -> str:
    """As `Set-Cookie` has it; none for an empty one of no seconds."""
    return f"{NAME}={secret}; Path=/; Max-Age={seconds:.0f}; Secure; HttpOnly; SameSite=Strict"


def to_bearer(scope: Any) -> None:
    """Give a request that has the cookie, and no `Authorization`, the bearer that the cookie holds."""
    found: list[bytes] = []
    guarded = scope["method"] not in _SAFE
    for name, value in scope["headers"]:
        if name == b"authorization":
            return
        if name == b"cookie":
            found += [part.strip() for part in value.split(b";")]
        elif name == _HEADER:
            guarded = False
    secrets = [part[len(_PREFIX) :] for part in found if part.startswith(_PREFIX)]
    if len(secrets) == 1 and not guarded:
        scope["headers"] = [*scope["headers"], (b"authorization", b"Bearer " + secrets[0])]


_PREFIX: Final = NAME.encode() + b"="
_HEADER: Final = HEADER.lower().encode()
