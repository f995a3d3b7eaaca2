"""Operations by hand: parameters, every status with its headers, and when to expect it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from app.domain.outcomes import EffectState, ErrorCode, ItemStatus
from app.http import jobs, problems
from app.http.headers import JSON, NDJSON
from app.http.openapi import examples
from app.http.openapi.schemas import ref
from app.settings import Settings

TAGS: Final = [
    {"name": "contacts", "description": "Send contacts, and see where each stands."},
    {"name": "jobs", "description": "What became of what was sent."},
    {"name": "destinations", "description": "Where contacts are synced."},
    {"name": "health", "description": "What works and what does not; open to everybody."},
    {"name": "documents", "description": "This description; open to everybody."},
]


def _header(description: str, schema: dict[str, Any], *, required: bool = False) -> dict[str, Any]:
    return {"description": description, "schema": schema} | ({"required": True} if required else {})


_TEXT: Final = {"type": "string"}
_SECONDS: Final = {"type": "integer", "minimum": 1}
HEADERS: Final = {
    "RequestId": _header("The request's id: the client's own if it sent a sane one.", _TEXT, required=True),
    "RetryAfter": _header("Seconds after which to ask again.", _SECONDS, required=True),
    "MaybeRetryAfter": _header(
        "Seconds after which to ask again; absent once the job is finished.", _SECONDS
    ),
    "Location": _header(
        "The job, or the new resource.", {"type": "string", "format": "uri-reference"}, required=True
    ),
    "IdempotencyKey": _header("The key, as it was sent.", _TEXT, required=True),
    "MaybeIdempotencyKey": _header("The key of an import, as it was sent.", _TEXT),
    "IdempotencyReplayed": _header(
        "The first answer of this key, byte for byte.", {"type": "string", "const": "true"}
    ),
    "PreferenceApplied": _header("What of `Prefer` was heeded (RFC 7240).", _TEXT),
    "ETag": _header("Changes with every change of the job.", _TEXT, required=True),
    "Link": _header('The next page, as rel="next" (RFC 8288).', _TEXT),
    "Vary": _header("Which request fields the answer depends on.", _TEXT),
    "CacheControl": _header("How long the answer may be kept.", _TEXT),
    "Authenticate": _header("How to authenticate (RFC 6750).", _TEXT, required=True),
    "AcceptEncoding": _header("Content codings that are taken.", _TEXT),
    "AcceptPost": _header("Media types that are taken.", _TEXT),
}
_REQUEST_ID: Final = {"X-Request-ID": {"$ref": "#/components/headers/RequestId"}}


def _headers(**names: str) -> dict[str, Any]:
    """Header fields by the names of their components; `_` in a field name stands for `-`."""
    return _REQUEST_ID | {
        field.replace("_", "-"): {"$ref": f"#/components/headers/{name}"} for field, name in names.items()
    }


_ECHO: Final = _headers(Idempotency_Key="MaybeIdempotencyKey")
_PROBLEM_HEADERS: Final = {
    400: _ECHO,
    401: _headers(WWW_Authenticate="Authenticate"),
    403: _headers(WWW_Authenticate="Authenticate"),
    409: _ECHO | _headers(Retry_After="MaybeRetryAfter"),
    413: _ECHO,
    415: _ECHO | _headers(Accept_Encoding="AcceptEncoding", Accept_Post="AcceptPost"),
    422: _ECHO,
    503: _ECHO | _headers(Retry_After="RetryAfter"),
}
_PROBLEM_TEXTS: Final = {
    400: "The request cannot be read, or a parameter cannot be used; nothing happened.",
    401: "There is no API key, or it is unknown, revoked or misspelled.",
    403: "The API key lacks the scope.",
    404: "There is no such thing, or it belongs to another tenant.",
    406: "`Accept` excludes every representation.",
    409: "The first request with this key is still running, or the name is taken.",
    413: "The body holds too many bytes (counted after inflation) or too many items; nothing happened.",
    415: "The media type or content coding is not taken.",
    422: "The Idempotency-Key was used with another request, or its answer is no longer kept; nothing happened.",
    503: "PostgreSQL cannot be reached or too much is going on; nothing that was not acknowledged happened.",
}


def _problem(status: int) -> dict[str, Any]:
    kinds = {code: kind for code, kind in problems.KINDS.items() if kind.status == status}
    return {
        "description": _PROBLEM_TEXTS[status],
        "headers": _PROBLEM_HEADERS.get(status, _REQUEST_ID),
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


def _problems(*statuses: int) -> dict[str, Any]:
    return {str(status): {"$ref": f"#/components/responses/Problem{status}"} for status in statuses}


def _answer(
    description: str, schema: Any, example: Any, headers: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "description": description,
        "headers": headers or _REQUEST_ID,
        "content": {JSON: {"schema": schema, "example": example}},
    }


def _query(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _field(name: str, description: str, schema: dict[str, Any], *, required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": required, "description": description, "schema": schema}


def _path(name: str, description: str, schema: dict[str, Any], example: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": schema,
        "example": example,
    }


def _operation(
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


_FLAG: Final = {"type": "boolean", "default": False}
_JOB_ID: Final = _path("job_id", "The job.", {"type": "string", "format": "uuid"}, examples.JOB_ID)
_DESTINATION: Final = _path("name", "The destination.", {"type": "string", "minLength": 1}, "hubspot")
_CURSOR: Final = _query("cursor", "`next_cursor` of the page before; without it, the first page.", _TEXT)
_LIMIT: Final = _query(
    "limit",
    "Most entries of one page.",
    {"type": "integer", "minimum": 1, "maximum": jobs.MOST, "default": jobs.PAGE},
)
_READ: Final = (400, 401, 403, 406, 503)


def make_paths(settings: Settings) -> dict[str, Any]:
    wait = _field(
        "Prefer",
        f"`wait=N` holds the answer back until all effects are settled or N seconds passed (at most "
        f"{settings.max_wait:g}); `return=minimal` lists only items that are not `ok`. RFC 7240.",
        _TEXT,
    )
    return {
        "/v1/contacts:bulk": {"post": _import(settings, wait)},
        "/v1/contacts/{contact_id}": {"get": _contact()},
        "/v1/jobs": {"get": _jobs()},
        "/v1/jobs/{job_id}": {"get": _job(wait)},
        "/v1/jobs/{job_id}/items": {"get": _items()},
        "/v1/idempotency-keys/{key}": {"get": _key()},
        **_destinations(),
        **_health(),
        **_documents(),
    }


def _import(settings: Settings, wait: dict[str, Any]) -> dict[str, Any]:
    body = {
        "type": "object",
        "required": ["items"],
        "additionalProperties": False,
        "properties": {
            "items": {
                "type": "array",
                "maxItems": settings.max_sync_items,
                "items": ref("Item"),
                "description": "Each stands for itself: an item that breaks its schema fails alone.",
            }
        },
    }
    return _operation(
        "contacts",
        "importContacts",
        "Import a batch of contacts",
        f"Up to {settings.max_sync_items} items or {settings.max_sync_bytes} bytes (inflated) are decided in one "
        "transaction and answered item by item. Sent again under its Idempotency-Key, the same request gets the same "
        f"bytes for {settings.idempotency_retention / 3600:g} hours and does nothing twice. Needs the scope `import`.",
        {
            "207": _answer(
                "Every item is decided, also when all are ok or all failed.",
                ref("ImportAnswer"),
                examples.ANSWER,
                _headers(
                    Location="Location",
                    Idempotency_Key="IdempotencyKey",
                    Idempotency_Replayed="IdempotencyReplayed",
                    Preference_Applied="PreferenceApplied",
                ),
            ),
            **_problems(400, 401, 403, 406, 409, 413, 415, 422, 503),
        },
        [
            _field(
                "Idempotency-Key",
                "Names this request, so that sending it twice does its work once; bare, or quoted as in RFC 8941.",
                {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!#-~]([ -~]*[!-~])?$"},
                required=True,
            ),
            wait,
            _field("Content-Encoding", "How the body is compressed.", {"enum": ["gzip", "zstd", "identity"]}),
            _query("atomic", "All or nothing: one failing item fails all.", _FLAG),
            _query("dry_run", "Tell what would happen, and do none of it.", _FLAG),
            _query(
                "on_duplicate",
                "Differing items with one id: all of them fail, or the last one counts.",
                {"type": "string", "enum": ["fail", "last_wins"], "default": "fail"},
            ),
        ],
        requestBody={
            "required": True,
            "content": {JSON: {"schema": body, "example": examples.REQUEST}},
        },
    )


def _contact() -> dict[str, Any]:
    return _operation(
        "contacts",
        "readContact",
        "A contact and where it has arrived",
        "As it stands now, with the state of this version at every destination. Needs the scope `read`.",
        {
            "200": _answer(
                "The contact.", ref("Contact"), examples.CONTACT, _headers(Cache_Control="CacheControl")
            ),
            **_problems(404, *_READ),
        },
        [
            _path(
                "contact_id",
                "The business key; percent-encode it, slashes too.",
                {"type": "string", "minLength": 1, "maxLength": 255},
                "c1",
            )
        ],
    )


def _jobs() -> dict[str, Any]:
    return _operation(
        "jobs",
        "listJobs",
        "Jobs, newest first",
        "Needs the scope `read` or `import`.",
        {
            "200": _answer(
                "A page of jobs.",
                ref("JobList"),
                {
                    "jobs": [{k: v for k, v in examples.JOB.items() if k != "failures"}],
                    "next_cursor": None,
                },
                _headers(Link="Link"),
            ),
            **_problems(*_READ),
        },
        [_LIMIT, _CURSOR],
    )


def _job(wait: dict[str, Any]) -> dict[str, Any]:
    fields = _headers(
        ETag="ETag",
        Retry_After="MaybeRetryAfter",
        Preference_Applied="PreferenceApplied",
        Cache_Control="CacheControl",
    )
    return _operation(
        "jobs",
        "readJob",
        "Where a job stands",
        "`Retry-After` tells when asking again is worth while. With `Prefer: wait=N` the answer comes once the job is "
        "finished (or, with `If-None-Match`, once it changed). Needs the scope `read` or `import`.",
        {
            "200": _answer("The job.", ref("Job"), examples.JOB, fields),
            "304": {"description": "Nothing changed since the ETag in `If-None-Match`.", "headers": fields},
            **_problems(404, *_READ),
        },
        [_JOB_ID, wait, _field("If-None-Match", "ETags that the client has already.", _TEXT)],
    )


def _items() -> dict[str, Any]:
    words = list(dict.fromkeys([*ItemStatus, *EffectState]))
    answer = _answer(
        "A page of items. A filtered one may hold fewer than `limit`, even none, and still have a next one.",
        ref("ItemList"),
        examples.ITEMS,
        _headers(Link="Link", Vary="Vary"),
    )
    answer["content"][NDJSON] = {
        "schema": {
            "type": "string",
            "description": "One `JobItem` a line; the `Link` header names the next page.",
        }
    }
    return _operation(
        "jobs",
        "listItems",
        "The items of a job with their outcome everywhere",
        "In request order. An item that waits says for what and how long. Needs the scope `read` or `import`.",
        {"200": answer, **_problems(404, *_READ)},
        [
            _JOB_ID,
            _query(
                "status",
                "Only items of this status: here (`ok`, `failed`, `retry`) or, with `destination`, the state there.",
                {"type": "string", "enum": [str(word) for word in words]},
            ),
            _query("destination", "Look at this destination; `db` is the outcome here.", _TEXT),
            _query(
                "error_code",
                "Only items with this code, here or at a destination.",
                {"type": "string", "examples": [str(ErrorCode.INVALID_EMAIL)]},
            ),
            _LIMIT,
            _CURSOR,
        ],
    )


def _key() -> dict[str, Any]:
    return _operation(
        "jobs",
        "readIdempotencyKey",
        "What became of a request",
        "For clients that lost an answer. Needs the scope `read` or `import`.",
        {
            "200": _answer(
                "The state of the key.", ref("KeyState"), examples.KEY, _headers(Cache_Control="CacheControl")
            ),
            **_problems(404, *_READ),
        },
        [_path("key", "The key, percent-encoded.", {"type": "string", "minLength": 1}, "batch-2026-01-15")],
    )


def _destinations() -> dict[str, Any]:
    one = _answer("The destination.", ref("Destination"), examples.DESTINATION)

    def change(operation_id: str, summary: str, description: str) -> dict[str, Any]:
        return {
            "post": _operation(
                "destinations",
                operation_id,
                summary,
                description + " Needs the scope `admin`.",
                {"200": one, **_problems(404, *_READ)},
                [_DESTINATION],
            )
        }

    return {
        "/v1/destinations": {
            "get": _operation(
                "destinations",
                "listDestinations",
                "The tenant's destinations",
                "Credentials are never shown. Needs the scope `read` or `admin`.",
                {
                    "200": _answer(
                        "All of them, by name.",
                        ref("DestinationList"),
                        {"destinations": [examples.DESTINATION]},
                    ),
                    **_problems(*_READ),
                },
            ),
            "post": _operation(
                "destinations",
                "addDestination",
                "Add a destination",
                "Contacts that change from now on are synced to it. Needs the scope `admin`.",
                {
                    "201": _answer(
                        "It is there.",
                        ref("Destination"),
                        examples.DESTINATION,
                        _headers(Location="Location"),
                    ),
                    **_problems(400, 401, 403, 406, 409, 413, 415, 503),
                },
                requestBody={
                    "required": True,
                    "content": {JSON: {"schema": ref("NewDestination"), "example": examples.NEW_DESTINATION}},
                },
            ),
        },
        "/v1/destinations/{name}": {
            "get": _operation(
                "destinations",
                "readDestination",
                "One destination",
                "Needs the scope `read` or `admin`.",
                {"200": one, **_problems(404, *_READ)},
                [_DESTINATION],
            ),
            "delete": _operation(
                "destinations",
                "removeDestination",
                "Remove a destination",
                "What was not delivered yet is skipped; history stays. Needs the scope `admin`.",
                {
                    "204": {"description": "It is gone.", "headers": _REQUEST_ID},
                    **_problems(404, *_READ),
                },
                [_DESTINATION],
            ),
        },
        "/v1/destinations/{name}/pause": change(
            "pauseDestination", "Pause a destination", "Nothing is sent until it is resumed; nothing is lost."
        ),
        "/v1/destinations/{name}/resume": change(
            "resumeDestination",
            "Resume a destination",
            "What waits is sent at once, whatever circuit was open.",
        ),
    }


def _health() -> dict[str, Any]:
    kept = _headers(Cache_Control="CacheControl")
    failing = _answer(
        "PostgreSQL is away: nothing works.",
        ref("Health"),
        {"status": "fail", "checks": {"database": {"status": "fail", "output": "connection refused"}}},
        _headers(Cache_Control="CacheControl", Retry_After="RetryAfter"),
    )
    well = {"status": "pass", "checks": {"database": {"status": "pass", "milliseconds": 0.9}}}
    return {
        "/health": {
            "get": _operation(
                "health",
                "readHealth",
                "Every engine and destination",
                "Without a key destinations are only counted; with one, those of its tenant have a check each.",
                {
                    "200": _answer("All well.", ref("Health"), well, kept),
                    "207": _answer(
                        "Degraded: imports are taken and kept.", ref("Health"), examples.HEALTH, kept
                    ),
                    "503": failing,
                    **_problems(400, 401),
                },
                security=[{}, {"apiKey": []}],
            )
        },
        "/health/live": {
            "get": _operation(
                "health",
                "readLiveness",
                "Whether the process runs",
                "Looks at nothing else, so that an outage elsewhere restarts no healthy process.",
                {"200": _answer("It does.", ref("Health"), {"status": "pass", "checks": {}}, kept)}
                | _problems(400),
                security=[],
            )
        },
        "/health/ready": {
            "get": _operation(
                "health",
                "readReadiness",
                "Whether it can take work",
                "PostgreSQL answers and has this release's schema.",
                {
                    "200": _answer("It can.", ref("Health"), well, kept),
                    "503": failing,
                    **_problems(400),
                },
                security=[],
            )
        },
    }


def _documents() -> dict[str, Any]:
    def document(operation_id: str, summary: str, media_type: str, schema: dict[str, Any]) -> dict[str, Any]:
        return {
            "get": _operation(
                "documents",
                operation_id,
                summary,
                "The same for everybody.",
                {
                    "200": {
                        "description": "The document.",
                        "headers": _headers(Cache_Control="CacheControl"),
                        "content": {media_type: {"schema": schema}},
                    }
                },
                security=[],
            )
        }

    return {
        "/openapi.json": document("readOpenapiJson", "This document as JSON", JSON, {"type": "object"}),
        "/openapi.yaml": document(
            "readOpenapiYaml", "This document as YAML", "application/yaml", {"type": "object"}
        ),
        "/docs": document("readDocs", "This document as a page", "text/html", {"type": "string"}),
    }
