"""The service's description of itself: `/openapi.json`, `/openapi.yaml` and `/docs`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from litestar import Request, get
from litestar.response.base import ASGIResponse

from app.http import openapi
from app.http.page import render_page
from app.http.services import respond, services_of
from app.settings import Settings

_CACHE: Final = {"Cache-Control": "public, max-age=300"}
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@get("/openapi.json")
async def openapi_json(request: Request[Any, Any, Any]) -> ASGIResponse:
    return respond(openapi.as_json(services_of(request).settings), headers=_CACHE)


@get("/openapi.yaml")
async def openapi_yaml(request: Request[Any, Any, Any]) -> ASGIResponse:
    body = openapi.as_yaml(services_of(request).settings)
    return respond(body, headers=_CACHE, media_type="application/yaml")


@get("/docs")
async def docs(request: Request[Any, Any, Any]) -> ASGIResponse:
    page = _page(services_of(request).settings)
    return respond(page, headers=_CACHE | {"Content-Security-Policy": _POLICY}, media_type="text/html")


@lru_cache(maxsize=4)
def _page(settings: Settings) -> bytes:
    return render_page(openapi.make_document(settings)).encode()
