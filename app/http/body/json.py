"""Small bodies of JSON: what is asked about one thing. (Imports are read by `app.http.body.reader` as they arrive.)"""

from typing import Any, Final

import msgspec
from litestar import Request

from app.errors import Invalid, MalformedRequest
from app.http import headers
from app.http.body.limits import Intake
from app.http.body.reader import read_body
from app.http.dependencies import Resources
from app.http.headers import Fields
from app.http.request_context import exchange_of
from app.settings import Settings

LIMIT: Final = 65_536
"""Bytes."""


async def read_json(
    request: Request[Any, Any, Any],
    resources: Resources,
    fields: Fields,
    kind: type[Any],
    *,
    optional: bool,
    limit: int = LIMIT,
) -> Any:
    """The body as `kind`; None where it is `optional` and there is none.

    Raises:
        TooLarge, RequestTimeout and others: as `open_body` does.
        UnsupportedMediaType: it is not said to be JSON.
        MalformedRequest: it is no JSON.
        Invalid: a field is missing, unknown or cannot be used.
    """
    if not optional:
        headers.require_json(fields)
    exchange = exchange_of(request.scope)
    with resources[Intake].place(exchange.tenant_id or 0, exchange.key_id) as place:
        place.hold(limit)
        body = await read_body(
            request.receive,
            fields,
            limit=limit,
            seconds=resources[Settings].body_timeout,
            remedy="Send what this operation takes, and nothing else.",
            hold=place.hold_window,
        )
    if optional:
        if not body:
            return None
        headers.require_json(fields)
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise Invalid(f"The request cannot be used: {error}.") from error
    except (ValueError, RecursionError) as error:
        raise MalformedRequest("The body is not valid JSON.") from error
