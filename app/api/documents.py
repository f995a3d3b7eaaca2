"""The service's description of itself: `/v1/version`, `/openapi.json`, `/openapi.yaml`, `/docs` and
`/docs/problems`."""

from functools import partial
from typing import Any, Final

import msgspec
from litestar import Request, get
from litestar.response.base import ASGIResponse

from app.api.openapi.document import Documents
from app.api.openapi.page import render_problems
from app.auth.authorization import FOLLOWING, identify
from app.console import api as console
from app.http import problems
from app.http.headers import JSON
from app.http.operation import EVERYBODY, Access, Answer, Call, Reply, operation, respond
from app.http.principal import Principal
from app.kit.postgres.database import Database
from app.release import read_version as read_release
from app.resource_types.catalog import Catalog
from app.settings import Settings

_operation: Final = partial(operation, "GET", tag="documents", any_query=True)
_YAML: Final = "application/yaml"
_HTML: Final = "text/html"
_PROBLEMS: Final = render_problems().encode()
_KEPT: Final = "public, max-age=300"
_ASK: Final = "no-cache"
_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Release(msgspec.Struct):
    """The release of Tranche that answers."""

    version: str


@operation("GET", "/v1/version", tag="health", access=FOLLOWING, answers=Answer("The release of Tranche."))
async def read_version() -> Release:
    """Which release answers."""
    return Release(read_release())


def _document(media_type: str, schema_type: str) -> Answer:
    return Answer(
        "The document.", headers=("SecurityPolicy",), cache=_KEPT, content={media_type: {"type": schema_type}}
    )


@_operation(
    "/",
    access=EVERYBODY,
    offers=(JSON, _HTML),
    answers=(
        Answer(
            "Where the documentation, this document and the health check are.",
            headers=("Vary",),
            cache=_ASK,
            content={JSON: {"type": "object", "additionalProperties": {"type": "string"}}},
        ),
        Answer("To the console, or the documentation.", 302, headers=("Vary", "Location"), cache=_ASK),
    ),
)
async def read_root(media_type: str, settings: Settings) -> Reply[Any]:
    """Links.

    A browser (`Accept: text/html`) is sent to `/console`, or to `/docs` where there is none (`TRANCHE_CONSOLE`).
    """
    if media_type == _HTML:
        place = console.PATH if settings.console else "/docs"
        return Reply(b"", 302, {"Vary": "Accept", "Location": place, "Content-Type": _HTML})
    pointers = {
        "name": "Tranche",
        "version": read_release(),
        "documentation": "/docs",
        **({"console": console.PATH} if settings.console else {}),
        "openapi": "/openapi.json",
        "health": "/health",
    }
    return Reply(pointers, headers={"Vary": "Accept"})


@get("/favicon.ico", include_in_schema=False)
async def favicon(request: Request[Any, Any, Any]) -> ASGIResponse:
    """There is no icon; a browser that knows does not ask for it with every page."""
    return respond(b"", 204, headers={"Cache-Control": "public, max-age=86400"})


class _OptionalKey(Access):
    """Everybody; a key shows its tenant's types, and a wrong one is refused."""

    security = ({}, {"apiKey": []})
    errors = (401, 503)

    async def admit(self, call: Call) -> Principal | None:
        """
        Raises:
            Unauthorized: the key is no good.
        """
        return await identify(call)


@_operation(
    "/openapi.json",
    access=_OptionalKey(),
    answers=Answer(
        "The document.", headers=("SecurityPolicy", "Vary"), cache=_KEPT, content={JSON: {"type": "object"}}
    ),
)
async def read_openapi_json(
    documents: Documents, principal: Principal | None, catalog: Catalog, database: Database
) -> Reply[Any]:
    """This document as JSON.

    With a key also the paths and shapes of the types of records that its tenant has declared.
    """
    if principal is None:
        return Reply(documents.as_json(), headers={"Vary": "Authorization"})
    async with database.connection() as connection:
        types = await catalog.all(connection, principal.tenant_id)
    private = {"Vary": "Authorization", "Cache-Control": "private, no-cache"}
    return Reply(documents.as_json(types.values()), headers=private)


@_operation("/openapi.yaml", access=EVERYBODY, offers=(_YAML,), answers=_document(_YAML, "object"))
async def read_openapi_yaml(documents: Documents) -> ASGIResponse:
    """This document as YAML.

    The same for everybody.
    """
    return respond(documents.as_yaml(), headers={"Cache-Control": _KEPT}, media_type=_YAML)


@_operation("/docs", access=EVERYBODY, offers=(_HTML,), answers=_document(_HTML, "string"))
async def read_docs(documents: Documents) -> ASGIResponse:
    """This document as a page.

    The same for everybody.
    """
    headers = {"Cache-Control": _KEPT, "Content-Security-Policy": _POLICY}
    return respond(documents.as_page(), headers=headers, media_type=_HTML)


@_operation(problems.PAGE, access=EVERYBODY, offers=(_HTML,), answers=_document(_HTML, "string"))
async def read_problems() -> ASGIResponse:
    """What each problem means.

    The page to which the `type` of a problem leads: for each `code` its meaning, and what to do.
    """
    return respond(_PROBLEMS, headers={"Cache-Control": _KEPT, "Content-Security-Policy": _POLICY}, media_type=_HTML)
