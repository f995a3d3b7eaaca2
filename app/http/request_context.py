"""One request and its answer: what every layer of the service notes about it."""

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import msgspec
from uuid_utils.compat import uuid7

from app.limits.limiter import Decision
from app.tracing import context
from app.tracing.context import TraceContext

_KEY: Final = "tranche.exchange"
_SANE_ID: Final = re.compile(rb"[A-Za-z0-9._~:/+=@-]{1,128}")


class Exchange(msgspec.Struct):
    """Lives in the ASGI scope for as long as the request does."""

    request_id: str
    started: float
    """By the event loop's clock."""
    path: str
    """As it was sent: still percent-encoded, one character a byte."""
    trace: TraceContext | None
    """The client's, if it has one; then that of this request."""
    bodyless: bool = False
    """The answer's body is not wanted (HEAD)."""
    status: int = 0
    presented: bool = False
    """The client sent some API key."""
    idempotency_key: str | None = None
    """As it was sent, once it is known to be one: every answer echoes it."""
    replayed: bool = False
    """The answer is the one that is stored under the key."""
    tenant_id: int | None = None
    key_id: str = ""
    items: int | None = None
    code: str | None = None
    read: str | None = None
    """The kind of what was read."""
    source: str | None = None
    """Where it came from, see `app.http.reads`."""
    limits: list[Decision] = []
    """What rate limits left to the request."""


def begin(scope: Any, started: float) -> Exchange:
    """Take the client's request id and trace if they are sane ones, else make a request id."""
    given = [value for name, value in scope["headers"] if name == b"x-request-id"]
    taken = given[0] if len(given) == 1 else b""
    request_id = taken.decode() if _SANE_ID.fullmatch(taken) else str(uuid7())
    exchange = Exchange(
        request_id=request_id,
        started=started,
        path=_read_path(scope),
        trace=context.read_fields(scope["headers"]),
        bodyless=scope["method"] == "HEAD",
    )
    scope[_KEY] = exchange
    return exchange


def _read_path(scope: Any) -> str:
    raw: bytes | None = scope.get("raw_path")
    if raw is None:
        return quote(scope["path"], safe="/:@!$&'()*+,;=~")
    return raw.partition(b"?")[0].decode("latin-1")


def exchange_of(scope: Mapping[str, Any]) -> Exchange:
    exchange: Exchange = scope[_KEY]
    return exchange
