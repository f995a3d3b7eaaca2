"""One request on its way to its handler."""

from typing import Any

from litestar import Request

from app.http.dependencies import resources_of
from app.http.headers import JSON, Fields
from app.http.principal import Principal
from app.http.request_context import exchange_of


class Call:
    """One request, as far as it was read."""

    __slots__ = ("arguments", "exchange", "fields", "media_type", "principal", "request", "resources")

    def __init__(self, request: Request[Any, Any, Any]) -> None:
        self.request = request
        self.fields = Fields(request.scope["headers"])
        self.exchange = exchange_of(request.scope)
        self.resources = resources_of(request)
        self.principal: Principal | None = None
        self.media_type = JSON
        self.arguments: dict[str, Any] | None = None
        """Of its handler, once they are known."""
