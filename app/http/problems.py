"""Errors → RFC 9457 problem details: the only place that knows which status an error has."""

import inspect
import math
from typing import Annotated, Any, Final

import asyncpg
import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException

from app import errors as domain_errors
from app.errors import (
    ClientGone,
    DatabaseUnavailable,
    Invalid,
    MalformedRequest,
    NotFound,
    Overloaded,
    RateLimited,
    TooLarge,
    TrancheError,
)
from app.http import errors
from app.http.request_context import exchange_of

log = structlog.get_logger()

MEDIA_TYPE: Final = "application/problem+json"

SCHEMA_MISSING: Final = (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.UndefinedFunctionError)


class Kind(msgspec.Struct, frozen=True):
    """What all problems of one code share."""

    status: int
    title: str


KINDS: Final = {
    "MALFORMED_REQUEST": Kind(400, "The request cannot be read"),
    "INVALID_HEADER": Kind(400, "The columns of the file cannot be used"),
    "INVALID_PARAMETER": Kind(400, "A parameter has a value that cannot be used"),
    "INVALID_CURSOR": Kind(400, "The cursor does not belong to this list"),
    "IDEMPOTENCY_KEY_MISSING": Kind(400, "The Idempotency-Key header is missing"),
    "IDEMPOTENCY_KEY_INVALID": Kind(400, "The Idempotency-Key header cannot be used"),
    "UNAUTHORIZED": Kind(401, "A valid API key is needed"),
    "FORBIDDEN": Kind(403, "The API key lacks a scope"),
    "TENANT_DISABLED": Kind(403, "The tenant is disabled"),
    "NOT_FOUND": Kind(404, "Not found"),
    "METHOD_NOT_ALLOWED": Kind(405, "The resource does not support this method"),
    "NOT_ACCEPTABLE": Kind(406, "No acceptable representation"),
    "BODY_TIMEOUT": Kind(408, "The body did not arrive in time"),
    "IDEMPOTENCY_KEY_IN_USE": Kind(409, "The first request with this key is still running"),
    "CONFLICT": Kind(409, "Conflict with the current state"),
    "JOB_NOT_CANCELABLE": Kind(409, "There is nothing left to cancel"),
    "JOB_NOT_UNDOABLE": Kind(409, "There is nothing to undo"),
    "JOB_CANCELED": Kind(409, "The job was canceled"),
    "WEBHOOK_ENDPOINT_DISABLED": Kind(409, "The webhook endpoint is disabled"),
    "JOB_NOT_RETRYABLE": Kind(409, "The job is still deciding its items"),
    "NOTHING_TO_RETRY": Kind(409, "There is nothing to send again"),
    "OUTCOMES_EXPIRED": Kind(410, "The outcomes are no longer kept"),
    "RECORD_ERASED": Kind(410, "The record was erased"),
    "REQUEST_TOO_LARGE": Kind(413, "The request is too large"),
    "UNSUPPORTED_MEDIA_TYPE": Kind(415, "The media type is not supported"),
    "UNSUPPORTED_ENCODING": Kind(415, "The content encoding is not supported"),
    "IDEMPOTENCY_KEY_REUSED": Kind(422, "The key was used with another request"),
    "IDEMPOTENCY_KEY_EXPIRED": Kind(422, "The answer of this key is no longer kept"),
    "QUOTA_EXCEEDED": Kind(429, "A limit of this tenant or key is reached"),
    "RATE_LIMIT": Kind(429, "A rate limit is used up"),
    "INTERNAL": Kind(500, "Internal error"),
    "OVERLOADED": Kind(503, "The service is overloaded"),
    "NO_WORKER": Kind(503, "No worker runs"),
    "DATABASE_UNAVAILABLE": Kind(503, "The database cannot be reached"),
    "STORAGE_FULL": Kind(503, "The database has no disk space left"),
    "SECRET_KEY_MISSING": Kind(503, "Credentials cannot be encrypted"),
}
"""By code: the codes are published, so none is ever removed."""

MEANINGS: Final = {
    one.code: inspect.cleandoc(one.__doc__ or "")
    for module in (errors, domain_errors)  # the domain's words, where both have a code
    for one in vars(module).values()
    if isinstance(one, type) and issubclass(one, TrancheError)
}
"""By code: what it means, and what to do."""

PAGE: Final = "/docs/problems"
SHARED_TYPES: Final = {
    429: "https://iana.org/assignments/http-problem-types#quota-exceeded",
    503: "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
}
"""By status, of draft-ietf-httpapi-ratelimit-headers-11."""
_TYPE: Final = msgspec.Meta(examples=[f"{PAGE}#idempotency-key-reused"], extra_json_schema={"format": "uri-reference"})
_CODE: Final = msgspec.Meta(extra_json_schema={"enum": sorted(KINDS)})


class Problem(msgspec.Struct, omit_defaults=True):
    """RFC 9457, with `code` and `request_id`."""

    type: Annotated[str, _TYPE]
    title: str
    status: int
    detail: str
    code: Annotated[str, _CODE]
    request_id: str
    violated_policies: list[str] = msgspec.field(default_factory=list, name="violated-policies")
    """Names of the policies of `RateLimit-Policy` that are used up."""


def answer(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """The problem document for `error`."""
    exchange = exchange_of(request.scope)
    known = recognize(error)
    if known is None:
        log.error("request_failed", exc_info=error, request_id=exchange.request_id)
        known = TrancheError()
    exchange.code = known.code
    status, headers, body = render(known, exchange.request_id, authenticated=exchange.presented)
    if exchange.idempotency_key is not None:
        headers["Idempotency-Key"] = exchange.idempotency_key
    return Response(body, status_code=status, headers=headers, media_type=MEDIA_TYPE)


def render(error: TrancheError, request_id: str, *, authenticated: bool) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body; `authenticated`: the request came with some key, good or bad."""
    code = error.code if error.code in KINDS else TrancheError.code
    kind = KINDS[code]
    violated = error.violated if isinstance(error, RateLimited) else []
    body = msgspec.json.encode(describe(code, error.detail, request_id, violated))
    headers = dict(error.headers) if isinstance(error, errors.ProtocolError) else {}
    if kind.status == 503 or error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after or 1.0)))
    if kind.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="tranche"' + (', error="invalid_token"' if authenticated else "")
    elif kind.status == 403:
        headers["WWW-Authenticate"] = 'Bearer realm="tranche", error="insufficient_scope"'
    return kind.status, headers, body


def anchor(code: str) -> str:
    """Of its paragraph on the page of all problems."""
    return code.lower().replace("_", "-")


def describe(code: str, detail: str, request_id: str, violated: list[str] | None = None) -> Problem:
    kind = KINDS[code]
    return Problem(
        type=SHARED_TYPES.get(kind.status) or f"{PAGE}#{anchor(code)}",
        title=kind.title,
        status=kind.status,
        detail=detail,
        code=code,
        request_id=request_id,
        violated_policies=violated or [],
    )


def recognize(error: Exception) -> TrancheError | None:
    """The same error in the domain's words; `None`: nobody foresaw it."""
    if isinstance(error, TrancheError):
        return error if error.code in KINDS else None
    if isinstance(error, ClientGone):
        return MalformedRequest("The connection was closed before the body was complete.")
    if isinstance(error, HTTPException):
        return _from_framework(error)
    if isinstance(error, SCHEMA_MISSING):
        return DatabaseUnavailable(
            "The database lacks this release's schema; an operator must run: tranche migrate", retry_after=5.0
        )
    if isinstance(error, asyncpg.QueryCanceledError | asyncpg.LockNotAvailableError):
        return Overloaded(retry_after=1.0)
    if isinstance(error, asyncpg.CharacterNotInRepertoireError):
        return Invalid("A text holds the character NUL, which cannot be stored; leave it out.")
    if isinstance(error, asyncpg.TransactionRollbackError):
        return Overloaded(retry_after=1.0)
    if isinstance(error, asyncpg.InsufficientResourcesError | asyncpg.ReadOnlySQLTransactionError):
        log.error("database_refused", error=error)
        return DatabaseUnavailable(retry_after=5.0)
    return None


def _from_framework(error: HTTPException) -> TrancheError | None:
    if error.status_code == 404:
        return NotFound("There is nothing at this address; /docs and /openapi.json list all routes.")
    if error.status_code == 405:
        allow = (error.headers or {}).get("allow", "")
        methods = {m.strip() for m in allow.split(",") if m.strip()}
        if "GET" in methods:
            methods.add("HEAD")
        return errors.MethodNotAllowed(headers={"Allow": ", ".join(sorted(methods))})
    if error.status_code == 413:
        return TooLarge()
    if 400 <= error.status_code < 500:
        return MalformedRequest(error.detail)
    return None
