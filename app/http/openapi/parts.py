"""What operations are made of: header fields, problems, parameters, answers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from app.http import problems
from app.http.headers import JSON
from app.http.openapi import examples
from app.http.openapi.schemas import ref


def _header(description: str, schema: dict[str, Any], *, required: bool = False) -> dict[str, Any]:
    return {"description": description, "schema": schema} | ({"required": True} if required else {})


TEXT: Final = {"type": "string"}
_SECONDS: Final = {"type": "integer", "minimum": 1}
HEADERS: Final = {
    "RequestId": _header("The request's id: the client's own if it sent a sane one.", TEXT, required=True),
    "RetryAfter": _header("Seconds after which to ask again.", _SECONDS, required=True),
    "MaybeRetryAfter": _header(
        "Seconds after which to ask again; absent once the job is finished.", _SECONDS
    ),
    "Location": _header(
        "The job, or the new resource.", {"type": "string", "format": "uri-reference"}, required=True
    ),
    "IdempotencyKey": _header("The key, as it was sent.", TEXT, required=True),
    "MaybeIdempotencyKey": _header("The key of an import, as it was sent.", TEXT),
    "IdempotencyReplayed": _header(
        "The first answer of this key, byte for byte.", {"type": "string", "const": "true"}
    ),
    "PreferenceApplied": _header("What of `Prefer` was heeded (RFC 7240).", TEXT),
    "ETag": _header(
        "Changes with every change of the job; weak while items are processed, as rates are those of the moment.",
        TEXT,
        required=True,
    ),
    "Disposition": _header("The name of the file, for a CSV (RFC 6266).", TEXT),
    "Link": _header('The next page, as rel="next" (RFC 8288).', TEXT),
    "Vary": _header("Which request fields the answer depends on.", TEXT),
    "Buffering": _header("Tells proxies not to gather events.", TEXT),
    "CacheControl": _header("How long the answer may be kept.", TEXT),
    "SecurityPolicy": _header("What the page may load: nothing.", TEXT),
    "Authenticate": _header("How to authenticate (RFC 6750).", TEXT, required=True),
    "AcceptEncoding": _header("Content codings that are taken.", TEXT),
    "AcceptPost": _header("Media types that are taken.", TEXT),
}
REQUEST_ID: Final = {"X-Request-ID": {"$ref": "#/components/headers/RequestId"}}


def headers(**names: str) -> dict[str, Any]:
    """Header fields by the names of their components; `_` in a field name stands for `-`."""
    return REQUEST_ID | {
        field.replace("_", "-"): {"$ref": f"#/components/headers/{name}"} for field, name in names.items()
    }


_ECHO: Final = headers(Idempotency_Key="MaybeIdempotencyKey")
_PROBLEM_HEADERS: Final = {
    400: _ECHO,
    401: headers(WWW_Authenticate="Authenticate"),
    403: headers(WWW_Authenticate="Authenticate"),
    408: _ECHO,
    409: _ECHO | headers(Retry_After="MaybeRetryAfter"),
    413: _ECHO,
    415: _ECHO | headers(Accept_Encoding="AcceptEncoding", Accept_Post="AcceptPost"),
    422: _ECHO,
    429: _ECHO | headers(Retry_After="RetryAfter"),
    503: _ECHO | headers(Retry_After="RetryAfter"),
}
_PROBLEM_TEXTS: Final = {
    400: "The request cannot be read, or a parameter cannot be used; nothing happened.",
    401: "There is no API key, or it is unknown, revoked or misspelled.",
    403: "The API key lacks the scope.",
    404: "Not found, or it belongs to another tenant.",
    406: "`Accept` excludes every representation.",
    408: "The body did not arrive in time; nothing happened. Send the same request again.",
    409: "The first request with this key is still running, the name is taken, the job has nothing left to cancel or "
    "to send again, a letter is in no doubt that could be settled, the webhook endpoint is disabled, "
    "or the destination is paused or tested already.",
    410: "The job ended so long ago that the outcomes of its items are no longer kept.",
    413: "The body holds too many bytes (counted after inflation) or too many items; nothing happened.",
    415: "The media type or content coding is not taken.",
    422: "The Idempotency-Key was used with another request, or its answer is no longer kept; nothing happened.",
    429: "The API key or its tenant has as much under way as it may have; nothing happened. Send the same request "
    "again after the time given.",
    503: "PostgreSQL cannot be reached, too much is going on, or no worker runs; nothing that was not acknowledged "
    "happened.",
}


def _problem(status: int) -> dict[str, Any]:
    kinds = {code: kind for code, kind in problems.KINDS.items() if kind.status == status}
    return {
        "description": _PROBLEM_TEXTS[status],
        "headers": _PROBLEM_HEADERS.get(status, REQUEST_ID),
        "content": {
            problems.MEDIA_TYPE: {
                "schema": ref("Problem"),
                "examples": {
                    code: {"value": examples.problem(status, code, kind.title, kind.title + ".")}
                    for code, kind in kinds.items()
                },
            }
        },
    }


PROBLEMS: Final = {f"Problem{status}": _problem(status) for status in _PROBLEM_TEXTS}


def problems_of(*statuses: int) -> dict[str, Any]:
    return {str(status): {"$ref": f"#/components/responses/Problem{status}"} for status in statuses}


def answer_of(
    description: str, schema: Any, example: Any, headers: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "description": description,
        "headers": headers or REQUEST_ID,
        "content": {JSON: {"schema": schema, "example": example}},
    }


def query(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def field(name: str, description: str, schema: dict[str, Any], *, required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": required, "description": description, "schema": schema}


def path(name: str, description: str, schema: dict[str, Any], example: str | int) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": schema,
        "example": example,
    }


def operation(
    tag: str,
    operation_id: str,
    summary: str,
    description: str,
    responses: dict[str, Any],
    parameters: Iterable[dict[str, Any]] = (),
    **more: Any,
) -> dict[str, Any]:
    return {
        "tags": [tag],
        "operationId": operation_id,
        "summary": summary,
        "description": description,
        **({"parameters": list(parameters)} if parameters else {}),
        **more,
        "responses": responses,
    }


READING: Final = (400, 401, 403, 406, 503)
"""The problems that every reading operation shares."""
