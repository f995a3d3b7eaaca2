"""Small bodies of JSON: what is asked about one thing. (Imports are read by `app.http.bodies` as they arrive.)"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec
from litestar import Request

from app.errors import Invalid, MalformedRequest
from app.http import headers
from app.http.bodies import read_body
from app.http.exchange import exchange_of
from app.http.headers import Fields
from app.http.services import Services

LIMIT: Final = 65_536
"""Bytes."""

T = TypeVar("T")


async def read_json(
    request: Request[Any, Any, Any],
    services: Services,
    kind: type[T],
    *,
    remedy: str,
    what: str = "The request",
    absent: T | None = None,
) -> T:
    """The body as `kind`; without one `absent`, where that is given. `remedy` is for whoever sends too much.

    Raises:
        TooLarge, RequestTimeout and others: as `open_body` does.
        UnsupportedMediaType: it is not said to be JSON.
        MalformedRequest: it is no JSON.
        Invalid: a field is missing, unknown or cannot be used.
    """
    fields = Fields(request.scope["headers"])
    if absent is None:
        headers.require_json(fields)
    exchange = exchange_of(request.scope)
    with services.intake.place(exchange.tenant_id or 0, exchange.key_id) as place:
        place.hold(LIMIT)
        body = await read_body(
            request.receive,
            fields,
            limit=LIMIT,
            seconds=services.settings.body_timeout,
            remedy=remedy,
            hold=place.hold_window,
        )
    if absent is not None:
        if not body:
            return absent
        headers.require_json(fields)
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise Invalid(f"{what} cannot be used: {error}.") from error
    except (ValueError, RecursionError) as error:
        raise MalformedRequest("The body is not valid JSON.") from error
