"""The service's description of itself: `/openapi.json`, `/openapi.yaml` and `/docs`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import msgspec
from litestar import Request, get
from litestar.response.base import ASGIResponse

from app.http import headers, openapi
from app.http.headers import Fields
from app.http.page import render_page
from app.http.services import respond, services_of
from app.settings import Settings

_YAML: Final = "application/yaml"
_VARIES: Final = {"Cache-Control": "no-cache", "Vary": "Accept"}
_CACHE: Final = {"Cache-Control": "public, max-age=300"}
_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


@get("/")
async def root(request: Request[Any, Any, Any]) -> ASGIResponse:
    """A browser is sent to the page; a program is shown where things are."""
    fields = Fields(request.scope["headers"])
    if headers.choose_type(fields, (headers.JSON, "text/html")) == "text/html":
        return respond(b"", 302, headers=_VARIES | {"Location": "/docs"}, media_type="text/html")
    return respond(msgspec.json.encode(openapi.make_pointers()), headers=_VARIES)


@get("/favicon.ico", include_in_schema=False)
async def favicon(request: Request[Any, Any, Any]) -> ASGIResponse:
    """There is no icon; a browser that knows does not ask for it with every page."""
    return respond(b"", 204, headers={"Cache-Control": "public, max-age=86400"})


@get("/openapi.json")
async def openapi_json(request: Request[Any, Any, Any]) -> ASGIResponse:
    headers.choose_type(Fields(request.scope["headers"]))
    return respond(openapi.as_json(services_of(request).settings), headers=_CACHE)


@get("/openapi.yaml")
async def openapi_yaml(request: Request[Any, Any, Any]) -> ASGIResponse:
    headers.choose_type(Fields(request.scope["headers"]), (_YAML,))
    body = openapi.as_yaml(services_of(request).settings)
    return respond(body, headers=_CACHE, media_type=_YAML)


@get("/docs")
async def docs(request: Request[Any, Any, Any]) -> ASGIResponse:
    headers.choose_type(Fields(request.scope["headers"]), ("text/html",))
    page = _page(services_of(request).settings)
    return respond(page, headers=_CACHE | {"Content-Security-Policy": _POLICY}, media_type="text/html")


@lru_cache(maxsize=4)
def _page(settings: Settings) -> bytes:
    return render_page(openapi.make_document(settings)).encode()
