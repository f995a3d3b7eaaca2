"""What the answers of all operations share: header fields and problems."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from app.api.openapi.schemas import ref
from app.http import problems

TEXT: Final = {"type": "string"}
_SECONDS: Final = {"type": "integer", "minimum": 1}
HEADERS: Final[dict[str, tuple[str, str, dict[str, Any], bool]]] = {
    "RequestId": ("X-Request-ID", "The request's id: the client's own if it sent a valid one.", TEXT, True),
    "RetryAfter": ("Retry-After", "Seconds after which to retry.", _SECONDS, True),
    "MaybeRetryAfter": (
        "Retry-After",
        "Seconds after which to poll again; absent once the job is finished.",
        _SECONDS,
        False,
    ),
    "Location": ("Location", "The job, or the new resource.", {"type": "string", "format": "uri-reference"}, True),
    "IdempotencyKey": ("Idempotency-Key", "The key, as it was sent.", TEXT, True),
    "MaybeIdempotencyKey": ("Idempotency-Key", "The key of an import, as it was sent.", TEXT, False),
    "IdempotencyReplayed": (
        "Idempotency-Replayed",
        "The first answer of this key, byte for byte.",
        {"type": "string", "const": "true"},
        False,
    ),
    "PreferenceApplied": ("Preference-Applied", "The preferences that were applied (RFC 7240).", TEXT, False),
    "ETag": (
        "ETag",
        "Changes with every change of the job; weak while items are processed, as rates are those of the moment.",
        TEXT,
        True,
    ),
    "Disposition": ("Content-Disposition", "The name of the file, for a CSV (RFC 6266).", TEXT, False),
    "Link": ("Link", 'The next page, as rel="next" (RFC 8288).', TEXT, False),
    "Vary": ("Vary", "Which request fields the answer depends on.", TEXT, False),
    "Buffering": ("X-Accel-Buffering", "Disables buffering by proxies.", TEXT, False),
    "CacheControl": ("Cache-Control", "How long the answer may be kept.", TEXT, False),
    "SecurityPolicy": ("Content-Security-Policy", "What the page may load: nothing.", TEXT, False),
    "Authenticate": ("WWW-Authenticate", "How to authenticate (RFC 6750).", TEXT, True),
    "AcceptEncoding": ("Accept-Encoding", "Supported content codings.", TEXT, False),
    "AcceptPost": ("Accept-Post", "Supported media types.", TEXT, False),
}
"""By component: field, meaning, schema, and whether it is always there."""


def make_headers() -> dict[str, Any]:
    return {
        name: {"description": meaning, "schema": schema} | ({"required": True} if required else {})
        for name, (_, meaning, schema, required) in HEADERS.items()
    }


def refer_to_headers(*names: str) -> dict[str, Any]:
    """The header fields of an answer, by the names of their components."""
    return {HEADERS[name][0]: {"$ref": f"#/components/headers/{name}"} for name in ("RequestId", *names)}


_REQUEST_ID: Final = "0b9f6f2e-5a0d-4c9b-9a53-0c7d1f2f6a11"
_PROBLEM_HEADERS: Final = {
    400: ("MaybeIdempotencyKey",),
    401: ("Authenticate",),
    403: ("Authenticate",),
    408: ("MaybeIdempotencyKey",),
    409: ("MaybeIdempotencyKey", "MaybeRetryAfter"),
    413: ("MaybeIdempotencyKey",),
    415: ("MaybeIdempotencyKey", "AcceptEncoding", "AcceptPost"),
    422: ("MaybeIdempotencyKey",),
    429: ("MaybeIdempotencyKey", "RetryAfter"),
    503: ("MaybeIdempotencyKey", "RetryAfter"),
}
_PROBLEM_TEXTS: Final = {
    400: "The request cannot be read, or a parameter is invalid; nothing happened.",
    401: "There is no API key, or it is unknown, revoked or misspelled.",
    403: "The API key lacks the scope.",
    404: "Not found, or it belongs to another tenant.",
    406: "`Accept` excludes every representation.",
    408: "The body did not arrive in time; nothing happened. Send the same request again.",
    409: "The first request with this key is still running, the name is taken, the job has nothing left to "
    "cancel or to send again, a dead letter cannot be settled, the webhook endpoint is disabled, or the "
    "destination is paused or tested already.",
    410: "The job ended so long ago that the outcomes of its items are no longer kept.",
    413: "The body holds too many bytes (counted after inflation) or too many items; nothing happened.",
    415: "The media type or content coding is not supported.",
    422: "The Idempotency-Key was used with another request, or its answer is no longer kept; nothing happened.",
    429: "A limit of the API key or its tenant is reached; nothing happened. Send the same request again after "
    "the time given.",
    503: "PostgreSQL cannot be reached, the service is overloaded, or no worker runs; nothing that was not "
    "acknowledged happened.",
}


def make_problems() -> dict[str, Any]:
    return {f"Problem{status}": _problem(status) for status in _PROBLEM_TEXTS}


def _problem(status: int) -> dict[str, Any]:
    kinds = {code: kind for code, kind in problems.KINDS.items() if kind.status == status}
    examples = {
        code: {"value": msgspec.to_builtins(problems.describe(code, kind.title + ".", _REQUEST_ID))}
        for code, kind in kinds.items()
    }
    return {
        "description": _PROBLEM_TEXTS[status],
        "headers": refer_to_headers(*_PROBLEM_HEADERS.get(status, ())),
        "content": {problems.MEDIA_TYPE: {"schema": ref("Problem"), "examples": examples}},
    }
