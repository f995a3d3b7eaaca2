"""Examples of the document: what a first-time reader copies."""

from __future__ import annotations

from typing import Any, Final

JOB_ID: Final = "01992e3c-7a10-7c3e-8f4e-2b1d5c6a7f80"

REQUEST: Final[dict[str, Any]] = {
    "items": [
        {
            "id": "c1",
            "email": "ada@example.com",
            "first_name": "Ada",
            "phone": "001-808-617-6467x12895",
            "attributes": {"city": "London"},
        },
        {"id": "c2", "email": "nobody"},
        {"id": "c3", "email": "grace@example.com", "company": None},
    ]
}

REQUEST_NDJSON: Final = (
    '{"id":"c1","email":"ada@example.com","attributes":{"city":"London"}}\n'
    '{"id":"c2","email":"nobody"}\n'
    '{"id":"c3","email":"grace@example.com","company":null}\n'
)

REQUEST_CSV: Final = (
    "id,email,First Name,city\r\n"
    "c1,ada@example.com,Ada,London\r\n"
    "c2,nobody,,\r\n"
    'c3,grace@example.com,Grace,"Arlington, Virginia"\r\n'
)

QUEUED: Final[dict[str, Any]] = {
    "job_id": JOB_ID,
    "state": "queued",
    "status_url": f"/v1/jobs/{JOB_ID}",
    "items_url": f"/v1/jobs/{JOB_ID}/items",
    "cancel_url": f"/v1/jobs/{JOB_ID}/cancel",
    "effects": {"db": "pending", "hubspot": "pending"},
}

ANSWER: Final[dict[str, Any]] = {
    "job_id": JOB_ID,
    "status_url": f"/v1/jobs/{JOB_ID}",
    "items_url": f"/v1/jobs/{JOB_ID}/items",
    "summary": {"total": 3, "succeeded": 1, "failed": 1, "retry": 1},
    "effects": {"db": "ok", "hubspot": "pending"},
    "items": [
        {"index": 0, "id": "c1", "status": "ok", "result": "created", "version": 1},
        {
            "index": 1,
            "id": "c2",
            "status": "failed",
            "error_code": "INVALID_EMAIL",
            "retry_after_seconds": 0,
            "errors": [
                {
                    "code": "INVALID_EMAIL",
                    "pointer": "/email",
                    "detail": '"nobody" has no @; send a full address',
                }
            ],
        },
        {"index": 2, "id": "c3", "status": "retry", "error_code": "LOCK_TIMEOUT", "retry_after_seconds": 4},
    ],
}

JOB: Final[dict[str, Any]] = {
    "job_id": JOB_ID,
    "kind": "import",
    "state": "syncing",
    "root_job_id": JOB_ID,
    "created_at": "2026-01-15T09:30:00.123456Z",
    "started_at": "2026-01-15T09:30:00.123456Z",
    "applied_at": "2026-01-15T09:30:00.123456Z",
    "finished_at": None,
    "options": {"atomic": False, "last_wins": False, "dry_run": False},
    "progress": {
        "items": 3,
        "processed": 3,
        "not_processed": 0,
        "bytes_received": 214,
        "items_per_second": None,
        "expected_seconds": None,
    },
    "error": None,
    "summary": {"total": 3, "succeeded": 2, "failed": 1, "retry": 0},
    "results": {"created": 1, "updated": 1},
    "effects": {
        "hubspot": {"pending": 1, "ok": 1, "retry": 0, "failed": 0, "unknown": 0, "dead": 0, "skipped": 0}
    },
    "request_id": "0b9f6f2e-5a0d-4c9b-9a53-0c7d1f2f6a11",
    "status_url": f"/v1/jobs/{JOB_ID}",
    "items_url": f"/v1/jobs/{JOB_ID}/items",
    "events_url": f"/v1/jobs/{JOB_ID}/events",
    "cancel_url": f"/v1/jobs/{JOB_ID}/cancel",
    "failures": [{"destination": "db", "code": "INVALID_EMAIL", "count": 1, "samples": [1]}],
}

CANCELED_JOB: Final[dict[str, Any]] = JOB | {
    "state": "canceled",
    "applied_at": None,
    "finished_at": "2026-01-15T09:30:04.000111Z",
    "progress": {
        "items": 1_000_000,
        "processed": 120_000,
        "not_processed": 880_000,
        "bytes_received": 98_304_512,
        "items_per_second": 31_250.0,
        "expected_seconds": None,
    },
    "error": {"code": "CANCELED", "detail": "The job was canceled."},
    "summary": {"total": 120_000, "succeeded": 119_999, "failed": 1, "retry": 0},
    "results": {"created": 119_999},
}

EVENTS: Final = (
    f'retry: 1000\n\nevent: progress\nid: 41\ndata: {{"job_id":"{JOB_ID}","state":"running"}}\n\n'
    f': keep-alive\n\nevent: end\nid: 42\ndata: {{"job_id":"{JOB_ID}","state":"completed"}}\n\n'
)

ITEMS: Final[dict[str, Any]] = {
    "items": [
        {
            "index": 0,
            "id": "c1",
            "status": "ok",
            "result": "created",
            "version": 1,
            "destinations": {
                "hubspot": {
                    "state": "pending",
                    "version": 1,
                    "attempts": 0,
                    "error_code": "CIRCUIT_OPEN",
                    "detail": "too many calls failed; the next try is let through when the wait is over",
                    "retry_after_seconds": 12,
                }
            },
        }
    ],
    "next_cursor": None,
}

FAILED_ROWS: Final = (
    "error_code,error_detail,retry_after_seconds,id,E-Mail,Phone\r\n"
    "INVALID_EMAIL,it needs an @-sign,0,c2,ada(at)example.com,'+49 30 123\r\n"
)

KEY: Final[dict[str, Any]] = {
    "key": "batch-2026-01-15",
    "state": "completed",
    "job_id": JOB_ID,
    "status": 207,
    "status_url": f"/v1/jobs/{JOB_ID}",
    "created_at": "2026-01-15T09:30:00.123456Z",
    "expires_at": "2026-01-16T09:30:00.123456Z",
}

CONTACT: Final[dict[str, Any]] = {
    "id": "c1",
    "version": 2,
    "source_version": None,
    "email": "ada@example.com",
    "first_name": "Ada",
    "last_name": None,
    "phone": "001-808-617-6467x12895",
    "company": None,
    "attributes": {"city": "London"},
    "job_id": JOB_ID,
    "created_at": "2026-01-14T08:00:00Z",
    "updated_at": "2026-01-15T09:30:00.123456Z",
    "destinations": {
        "hubspot": {
            "state": "ok",
            "synced_version": 2,
            "synced_at": "2026-01-15T09:30:00.223456Z",
            "remote_id": "512",
        }
    },
}

NEW_DESTINATION: Final[dict[str, Any]] = {
    "name": "hubspot",
    "kind": "hubspot",
    "base_url": "https://api.hubapi.com",
    "token": "pat-na1-example",
}

DESTINATION: Final[dict[str, Any]] = {
    "name": "hubspot",
    "kind": "hubspot",
    "base_url": "https://api.hubapi.com",
    "options": {},
    "state": "active",
    "created_at": "2026-01-14T08:00:00Z",
    "error_code": None,
    "detail": None,
    "retry_after_seconds": 0,
    "unknown": {"count": 0, "oldest_seconds": 0},
}

HEALTH: Final[dict[str, Any]] = {
    "status": "warn",
    "checks": {
        "database": {"status": "pass", "milliseconds": 0.9},
        "cache": {"status": "pass", "milliseconds": 0.3},
        "queue": {"status": "warn", "output": "no worker was seen lately", "milliseconds": 0.4},
        "destination:acme/hubspot": {"status": "pass"},
    },
}


def problem(status: int, code: str, title: str, detail: str) -> dict[str, Any]:
    return {
        "type": f"urn:tranche:problem:{code.lower().replace('_', '-')}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": "0b9f6f2e-5a0d-4c9b-9a53-0c7d1f2f6a11",
    }
