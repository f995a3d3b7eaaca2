"""Contacts, jobs and keys: the operations of those who import."""

from __future__ import annotations

from typing import Any, Final

from app.domain.outcomes import EffectState, ErrorCode, ItemStatus
from app.http import jobs
from app.http.headers import CSV, EVENTS, JSON, NDJSON
from app.http.openapi import examples
from app.http.openapi.parts import (
    READING,
    TEXT,
    answer_of,
    field,
    headers,
    operation,
    path,
    problems_of,
    query,
)
from app.http.openapi.schemas import ref
from app.settings import Settings

_FLAG: Final = {"type": "boolean", "default": False}
_JOB_ID: Final = path("job_id", "The job.", {"type": "string", "format": "uuid"}, examples.JOB_ID)
_CURSOR: Final = query("cursor", "`next_cursor` of the page before; without it, the first page.", TEXT)
_LIMIT: Final = query(
    "limit",
    "Most entries of one page.",
    {"type": "integer", "minimum": 1, "maximum": jobs.MOST, "default": jobs.PAGE},
)


_NDJSON: Final = (
    "One `Item` a line, in UTF-8; blank lines are left out. Also `application/ndjson`, `application/jsonl`."
)
_CSV: Final = (
    "RFC 4180 with a header row. `id`, `email`, `first_name`, `last_name`, `phone`, `company`, `if_version` and "
    "`source_version` are known whatever their case, spaces, dashes and underscores; any other column becomes an "
    "attribute of that name. An empty cell leaves the field as it is. Cells are separated by commas, semicolons, tabs "
    "or bars, whichever cuts the header into most. UTF-8 with or without a byte order mark, UTF-16 with one, or as "
    "`charset` says: `utf-16le`, `utf-16be`, `windows-1252`, `iso-8859-1`, `iso-8859-15`."
)


def make_paths(settings: Settings) -> dict[str, Any]:
    wait = field(
        "Prefer",
        f"`wait=N` holds the answer back until all effects are settled or N seconds passed (at most "
        f"{settings.max_wait:g}); `return=minimal` lists only items that are not `ok`. RFC 7240.",
        TEXT,
    )
    importing = field(
        "Prefer",
        f"{wait['description']} `respond-async` has a batch of any size stored, and answered with 202.",
        TEXT,
    )
    return {
        "/v1/contacts:bulk": {"post": _import(settings, importing)},
        "/v1/contacts/{contact_id}": {"get": _contact()},
        "/v1/jobs": {"get": _jobs()},
        "/v1/jobs/{job_id}": {"get": _job(wait)},
        "/v1/jobs/{job_id}/cancel": {"post": _cancel()},
        "/v1/jobs/{job_id}/events": {"get": _events(settings)},
        "/v1/jobs/{job_id}/stream-token": {"post": _stream_token(settings)},
        "/v1/jobs/{job_id}/items": {"get": _items()},
        "/v1/idempotency-keys/{key}": {"get": _key()},
    }


def _import(settings: Settings, wait: dict[str, Any]) -> dict[str, Any]:
    body = {
        "type": "object",
        "required": ["items"],
        "additionalProperties": False,
        "properties": {
            "items": {
                "type": "array",
                "maxItems": settings.max_json_items,
                "items": ref("Item"),
                "description": "Each stands for itself: an item that breaks its schema fails alone.",
            }
        },
    }
    return operation(
        "contacts",
        "importContacts",
        "Import a batch of contacts",
        f"Up to {settings.max_sync_items} items or {settings.max_sync_bytes} bytes (inflated) are decided in one "
        "transaction and answered item by item. More of them, "
        f"up to {settings.max_json_items} items as JSON and {settings.max_file_bytes} bytes as CSV or NDJSON, are "
        "stored while they arrive and processed afterwards; with `atomic=true`, where one transaction holds the "
        f"locks of all items, up to {settings.max_atomic_items} items and {settings.max_atomic_bytes} bytes. "
        "Sent again under its Idempotency-Key, the same request gets the same "
        f"bytes for {settings.idempotency_retention / 3600:g} hours and does nothing twice. A row of a file that "
        "cannot be read fails alone, like any item, and is told by its line. Needs the scope `import`.",
        {
            "207": answer_of(
                "Every item is decided, also when all are ok or all failed.",
                ref("ImportAnswer"),
                examples.ANSWER,
                headers(
                    Location="Location",
                    Idempotency_Key="IdempotencyKey",
                    Idempotency_Replayed="IdempotencyReplayed",
                    Preference_Applied="PreferenceApplied",
                ),
            ),
            "202": answer_of(
                "Every item is stored durably and will be processed: the batch is more than one request answers, or "
                "`Prefer: respond-async` was sent. The answer comes at once, whatever `wait` says; wait at the job.",
                ref("QueuedAnswer"),
                examples.QUEUED,
                headers(
                    Location="Location",
                    Retry_After="RetryAfter",
                    Idempotency_Key="IdempotencyKey",
                    Idempotency_Replayed="IdempotencyReplayed",
                    Preference_Applied="PreferenceApplied",
                ),
            ),
            **problems_of(400, 401, 403, 406, 408, 409, 413, 415, 422, 429, 503),
        },
        [
            field(
                "Idempotency-Key",
                "Names this request, so that sending it twice does its work once; bare, or quoted as in RFC 8941.",
                {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!#-~]([ -~]*[!-~])?$"},
                required=True,
            ),
            wait,
            field("Content-Encoding", "How the body is compressed.", {"enum": ["gzip", "zstd", "identity"]}),
            query("atomic", "All or nothing: one failing item fails all.", _FLAG),
            query("dry_run", "Tell what would happen, and do none of it.", _FLAG),
            query(
                "on_duplicate",
                "Differing items with one id: all of them fail, or the last one counts.",
                {"type": "string", "enum": ["fail", "last_wins"], "default": "fail"},
            ),
            query(
                "consistency",
                "`all_destinations`: an item that one destination finally refuses is taken back at the others, and "
                "here, by a job that the import then shows as `compensated_by`.",
                {"type": "string", "enum": ["none", "all_destinations"], "default": "none"},
            ),
            query(
                "map",
                "Renames a column of a CSV, as `Column:field`, percent-encoded; repeat it for more. The last colon "
                "separates. An e-mail column that is renamed to `id` is both, if no other column is `email`.",
                {"type": "array", "items": {"type": "string", "examples": ["Customer Id:id"]}},
            ),
            query(
                "ignore",
                "Leaves a column of a CSV out; repeat it for more.",
                {"type": "array", "items": {"type": "string", "examples": ["Internal note"]}},
            ),
        ],
        requestBody={
            "required": True,
            "content": {
                JSON: {"schema": body, "example": examples.REQUEST},
                NDJSON: {
                    "schema": {"type": "string", "description": _NDJSON},
                    "example": examples.REQUEST_NDJSON,
                },
                CSV: {"schema": {"type": "string", "description": _CSV}, "example": examples.REQUEST_CSV},
            },
        },
    )


def _contact() -> dict[str, Any]:
    return operation(
        "contacts",
        "readContact",
        "A contact and where it has arrived",
        "As it stands now, with the state of this version at every destination. Needs the scope `read`.",
        {
            "200": answer_of(
                "The contact.", ref("Contact"), examples.CONTACT, headers(Cache_Control="CacheControl")
            ),
            **problems_of(404, *READING),
        },
        [
            path(
                "contact_id",
                "The business key; percent-encode it, slashes too.",
                {"type": "string", "minLength": 1, "maxLength": 255},
                "c1",
            )
        ],
    )


def _jobs() -> dict[str, Any]:
    return operation(
        "jobs",
        "listJobs",
        "Jobs, newest first",
        "Needs the scope `read` or `import`.",
        {
            "200": answer_of(
                "A page of jobs.",
                ref("JobList"),
                {
                    "jobs": [{k: v for k, v in examples.JOB.items() if k not in examples.JOB_ALONE}],
                    "next_cursor": None,
                },
                headers(Link="Link"),
            ),
            **problems_of(*READING),
        },
        [_LIMIT, _CURSOR],
    )


def _job(wait: dict[str, Any]) -> dict[str, Any]:
    fields = headers(
        ETag="ETag",
        Retry_After="MaybeRetryAfter",
        Preference_Applied="PreferenceApplied",
        Cache_Control="CacheControl",
    )
    return operation(
        "jobs",
        "readJob",
        "Where a job stands",
        "`Retry-After` tells when asking again is worth while. With `Prefer: wait=N` the answer comes once the job is "
        "finished (or, with `If-None-Match`, once it changed). A job that was retried, or whose dead letters were "
        "replayed, tells of all attempts: `attempts`, and by `merged` what its items have come to. "
        "Needs the scope `read` or `import`.",
        {
            "200": answer_of("The job.", ref("Job"), examples.RETRIED_JOB, fields),
            "304": {"description": "Nothing changed since the ETag in `If-None-Match`.", "headers": fields},
            **problems_of(404, *READING),
        },
        [_JOB_ID, wait, field("If-None-Match", "ETags that the client has already.", TEXT)],
    )


def _cancel() -> dict[str, Any]:
    return operation(
        "jobs",
        "cancelJob",
        "Cancel an import",
        "What is not applied yet never will be; what is applied stays and goes on to its destinations. Canceling a job "
        "once more changes nothing. A body that is still arriving is dropped, and its Idempotency-Key is free again. "
        "A body of this request is ignored. Needs the scope `import`.",
        {
            "200": answer_of(
                "The job is canceled; `progress.not_processed` items were not applied.",
                ref("Job"),
                examples.CANCELED_JOB,
                headers(ETag="ETag", Cache_Control="CacheControl"),
            ),
            **problems_of(404, 409, *READING),
        },
        [_JOB_ID],
    )


_EVENT: Final = {
    "description": "The stream, event by event; as text it is what the example shows.",
    "anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "required": ["event", "id", "data"],
            "properties": {
                "event": {"enum": ["progress", "end"]},
                "id": {"type": "string", "description": "The job's revision."},
                "data": {
                    "type": "string",
                    "contentMediaType": "application/json",
                    "contentSchema": {"$ref": "#/components/schemas/Job"},
                },
                "retry": {"description": "Milliseconds before a client comes again."},
            },
        },
    ],
}


def _events(settings: Settings) -> dict[str, Any]:
    fields = headers(Cache_Control="CacheControl", X_Accel_Buffering="Buffering")
    return operation(
        "jobs",
        "followJob",
        "A job's progress as it happens",
        "Server-sent events: `progress` for each change, at most about four a second, and `end` once the job is "
        "finished; `data` is the job as one line of JSON, `id` its revision. The stream ends after "
        f"{settings.stream_seconds:g} seconds, and a client comes again with `Last-Event-ID`, as EventSource does by "
        'itself. The events have names, so a page listens with `addEventListener("progress", …)`; `onmessage` hears '
        "nothing. A page that cannot send a header, as with EventSource, gives a `token` instead of the key. "
        "Needs the scope `read` or `import`.",
        {
            "200": {
                "description": "Events, as they happen.",
                "headers": fields,
                "content": {
                    EVENTS: {
                        "schema": _EVENT,
                        "example": examples.EVENTS,
                    }
                },
            },
            "204": {
                "description": "The job is finished, and the client has its last event: do not come again.",
                "headers": fields,
            },
            **problems_of(404, 429, *READING),
        },
        [
            _JOB_ID,
            query("token", "A token for this job, from `POST …/stream-token`; instead of the API key.", TEXT),
            field("Last-Event-ID", "The event that the client had last.", TEXT),
        ],
        security=[{"apiKey": []}, {"streamToken": []}],
    )


def _stream_token(settings: Settings) -> dict[str, Any]:
    return operation(
        "jobs",
        "makeStreamToken",
        "A token for one job's event stream",
        "For a browser, whose EventSource can send no header: it opens `events_url` as it is, and "
        f"again after every pause, for {settings.stream_token_seconds:g} seconds. It opens nothing else, and ends with "
        "the API key that asked for it. Needs the scope `read` or `import`.",
        {
            "200": answer_of(
                "The token.", ref("StreamToken"), examples.STREAM_TOKEN, headers(Cache_Control="CacheControl")
            ),
            **problems_of(404, *READING),
        },
        [_JOB_ID],
    )


_FAILED_ROWS: Final = (
    "The rows that did not make it: `failed` or `retry` here, `failed` or `dead` at a destination, all of them in one "
    "download unless `limit` or `cursor` is given. First `error_code`, `error_detail` and `retry_after_seconds`, then "
    "the columns as they were uploaded, with names of fields where `map=` had renamed them: fixed or not, the file can "
    "be pushed as it is, without `map=`. A cell that a spreadsheet would run (`=`, `+`, `-`, `@`, …) has an apostrophe "
    "in front, and an attribute that is named like a field has `attributes.`; both are taken back when the file "
    "returns. A row that could not be read keeps the cells it had. Rows that a destination refused are the contacts as "
    "they were stored, without `if_version`. Items of JSON and NDJSON have a column for each field and each key; "
    "values that are no text come as JSON and return as text, `null` comes as an empty cell."
)


def _items() -> dict[str, Any]:
    words = list(dict.fromkeys([*ItemStatus, *EffectState]))
    answer = answer_of(
        "A page of items. A filtered one may hold fewer than `limit`, even none, and still have a next one. While the "
        "job is unfinished the last page ends before the first item that is not decided, its cursor waits there, and "
        "`Retry-After` tells when to ask again: who follows the cursors sees each item once.",
        ref("ItemList"),
        examples.ITEMS,
        headers(Link="Link", Vary="Vary", Retry_After="MaybeRetryAfter", Content_Disposition="Disposition"),
    )
    answer["content"][NDJSON] = {
        "schema": {
            "type": "string",
            "description": "One `JobItem` a line; the `Link` header names the next page. With `sent=true`: one failed "
            "item a line as it was sent, JSON with nothing added, to be corrected and pushed again.",
        }
    }
    answer["content"][CSV] = {
        "schema": {"type": "string", "description": _FAILED_ROWS},
        "example": examples.FAILED_ROWS,
    }
    return operation(
        "jobs",
        "listItems",
        "The items of a job with their outcome everywhere",
        "In request order. An item that waits says for what and how long. As `text/csv`, or as `application/x-ndjson` "
        "with `sent=true`: the rows that failed, to be corrected and pushed again. Needs the scope `read` or `import`.",
        {"200": answer, **problems_of(404, 410, *READING)},
        [
            _JOB_ID,
            query(
                "status",
                "Only items of this status: here (`ok`, `failed`, `retry`) or, with `destination`, the state there. "
                "Of a CSV, or with `sent=true`: one of failure.",
                {"type": "string", "enum": [str(word) for word in words]},
            ),
            query("destination", "Look at this destination; `db` is the outcome here.", TEXT),
            query(
                "error_code",
                "Only items with this code, here or at a destination.",
                {"type": "string", "examples": [str(ErrorCode.INVALID_EMAIL)]},
            ),
            query(
                "sent",
                "`true`: only items that failed, each as it was sent. An item that a destination refused is given as "
                "it was stored. NDJSON returns JSON items unchanged; a CSV holds text only.",
                {"type": "boolean", "default": False},
            ),
            _LIMIT,
            _CURSOR,
        ],
    )


def _key() -> dict[str, Any]:
    return operation(
        "jobs",
        "readIdempotencyKey",
        "What became of a request",
        "For clients that lost an answer. Needs the scope `read` or `import`.",
        {
            "200": answer_of(
                "The state of the key.", ref("KeyState"), examples.KEY, headers(Cache_Control="CacheControl")
            ),
            **problems_of(404, *READING),
        },
        [path("key", "The key, percent-encoded.", {"type": "string", "minLength": 1}, "batch-2026-01-15")],
    )
