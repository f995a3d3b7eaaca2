"""One request and its answer: what every layer of the service notes about it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from uuid_utils.compat import uuid7

_KEY: Final = "tranche.exchange"
_SANE_ID: Final = re.compile(rb"[A-Za-z0-9._~:/+=@-]{1,128}")


class Exchange(msgspec.Struct):
    """Lives in the ASGI scope for as long as the request does."""

    request_id: str
    started: float
    """By the event loop's clock."""
    status: int = 0
    presented: bool = False
    """The client sent some API key."""
    tenant_id: int | None = None
    items: int | None = None
    code: str | None = None


def begin(scope: Any, started: float) -> Exchange:
    """Take the client's request id if it is a sane one, else make one."""
    given = [value for name, value in scope["headers"] if name == b"x-request-id"]
    taken = given[0] if len(given) == 1 else b""
    request_id = taken.decode() if _SANE_ID.fullmatch(taken) else str(uuid7())
    exchange = Exchange(request_id=request_id, started=started)
    scope[_KEY] = exchange
    return exchange


def exchange_of(scope: Mapping[str, Any]) -> Exchange:
    exchange: Exchange = scope[_KEY]
    return exchange
