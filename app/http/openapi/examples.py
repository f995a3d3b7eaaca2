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
        {"id": "c2", "email": "nobody@192.0.2.7"},
        {"id": "c3", "email": "grace@example.com", "company": None},
    ]
}

REQUEST_NDJSON: Final = (
    '{"id":"c1","email":"ada@example.com","attributes":{"city":"London"}}\n'
    '{"id":"c2","email":"nobody@192.0.2.7"}\n'
    '{"id":"c3","email":"grace@example.com","company":null}\n'
)

REQUEST_CSV: Final = (
    "id,email,First Name,city\r\n"
    "c1,ada@example.com,Ada,London\r\n"
    "c2,nobody@192.0.2.7,,\r\n"
    'c3,grace@example.com,Grace,"Arlington, Virginia"\r\n'
)

STREAM_TOKEN: Final[dict[str, Any]] = {
    "token": "trs_AAAAAWZmZmZmZgAAaWjJQ8mXtq1zqkNrJ0uU0W2dX1v9c7n6b5y4m3k2h1g0",
    "events_url": f"/v1/jobs/{JOB_ID}/events?token=trs_AAAAAWZmZmZmZgAAaWjJQ8mXtq1zqkNrJ0uU0W2dX1v9c7n6b5y4m3k2h1g0",
    "expires_at": "2026-01-15T10:30:00Z",
}

QUEUED: Final[dict[str, Any]] = {
    "job_id": JOB_ID,
    "state": "queued",
    "status_url": f"/v1/jobs/{JOB_ID}",
    "items_url": f"/v1/jobs/{JOB_ID}/items",
    "events_url": f"/v1/jobs/{JOB_ID}/events",
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
    "options": {"atomic": False, "last_wins": False, "dry_run": False, "consistency": "none"},
    "progress": {
        "items": 3,
        "processed": 3,
        "not_processed": 0,
        "bytes_received": 214,
        "items_per_second": None,
        "expected_seconds": None,
    },
    "error": None,
    "waiting": {
        "code": "NO_WORKER",
        "detail": "no worker has been seen since 2026-01-15 09:12:44 UTC; start one with: tranche worker",
    },
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
    "undo_of": None,
    "undone_by": None,
    "compensated_by": None,
}

JOB_ALONE: Final = ("failures", "undo_of", "undone_by", "compensated_by")
"""What a list does not show."""

UNDO_ID: Final = "01990f6e-7c31-7f0a-8d57-1b6f3c2ad904"

UNDO_JOB: Final[dict[str, Any]] = JOB | {
    "job_id": UNDO_ID,
    "kind": "undo",
    "state": "queued",
    "started_at": None,
    "applied_at": None,
    "progress": {
        "items": 2,
        "processed": 0,
        "not_processed": 2,
        "bytes_received": 0,
        "items_per_second": None,
        "expected_seconds": None,
    },
    "summary": {"total": 0, "succeeded": 0, "failed": 0, "retry": 0},
    "results": {},
    "effects": {},
    "status_url": f"/v1/jobs/{UNDO_ID}",
    "items_url": f"/v1/jobs/{UNDO_ID}/items",
    "events_url": f"/v1/jobs/{UNDO_ID}/events",
    "cancel_url": f"/v1/jobs/{UNDO_ID}/cancel",
    "failures": [],
    "undo_of": JOB_ID,
}

HISTORY: Final[dict[str, Any]] = {
    "versions": [
        {
            "version": 2,
            "changed_at": "2026-01-15T10:02:11.000321Z",
            "kind": "undo",
            "job_id": UNDO_ID,
            "item_index": 1,
            "key_id": "3kTq9dPw",
            "request_id": "7f0d1c52-3a55-4a3b-9d6e-2f1f0c8f7b10",
            "deleted": True,
            "before": {
                "source_version": None,
                "email": "ada@example.com",
                "first_name": "Ada",
                "last_name": None,
                "phone": None,
                "company": None,
                "attributes": {"city": "London"},
            },
            "after": None,
            "undone_by": None,
        }
    ],
    "next_cursor": None,
}

AUDIT: Final[dict[str, Any]] = {
    "entries": [
        {
            "at": "2026-01-15T10:02:11.000321Z",
            "actor": "3kTq9dPw",
            "action": "undo.restore",
            "subject": f"job:{UNDO_ID}",
            "detail": {"restored": 2, "already_taken_back": 0, "changed_since": 0},
        }
    ],
    "next_cursor": None,
}

RETRY_ID: Final = "01992e3f-11c2-7a40-9d2c-0f3a6c1e5b77"

RETRIED: Final[dict[str, Any]] = {
    "job_id": RETRY_ID,
    "kind": "retry",
    "state": "syncing",
    "root_job_id": JOB_ID,
    "taken": 20,
    "items": 20,
    "due": 0,
    "remaining": 0,
    "skipped": [],
    "status_url": f"/v1/jobs/{RETRY_ID}",
    "items_url": f"/v1/jobs/{RETRY_ID}/items",
    "events_url": f"/v1/jobs/{RETRY_ID}/events",
    "cancel_url": f"/v1/jobs/{RETRY_ID}/cancel",
    "effects": {"hubspot": "pending"},
}

REPLAYED: Final[dict[str, Any]] = RETRIED | {"kind": "replay", "root_job_id": RETRY_ID, "jobs": [RETRY_ID]}

NOTHING_TAKEN: Final[dict[str, Any]] = {
    "job_id": None,
    "taken": 0,
    "remaining": 0,
    "skipped": [{"destination": "hubspot", "reason": "replayed", "count": 2}],
    "jobs": [RETRY_ID],
}

LETTER: Final[dict[str, Any]] = {
    "id": 4711,
    "destination": "hubspot",
    "contact_id": "c2",
    "version": 1,
    "state": "failed",
    "error_code": "DESTINATION_REJECTED",
    "detail": "INVALID_EMAIL: c2@example..com is invalid",
    "attempts": 1,
    "created_at": "2026-01-15T09:30:02.123456Z",
    "job_id": JOB_ID,
    "item_index": 1,
    "root_job_id": JOB_ID,
    "chain_id": 4711,
    "request_id": "0b9f6f2e-5a0d-4c9b-9a53-0c7d1f2f6a11",
    "resolution": None,
    "resolved_at": None,
    "resolved_by": None,
    "note": None,
    "replay_job_id": None,
    "url": "/v1/dead-letters/4711",
}

CLUSTER: Final[dict[str, Any]] = {
    "destination": "hubspot",
    "error_code": "DESTINATION_REJECTED",
    "count": 20,
    "failed": 20,
    "dead": 0,
    "oldest": "2026-01-15T09:30:02.123456Z",
    "newest": "2026-01-15T09:30:04.000111Z",
    "samples": [4711, 4712, 4713, 4714, 4715],
    "detail": "INVALID_EMAIL: c2@example..com is invalid",
}

_PAYLOAD: Final[dict[str, Any]] = {
    "id": "c2",
    "version": 1,
    "email": "c2@example..com",
    "first_name": "Ada",
    "last_name": None,
    "phone": None,
    "company": None,
    "attributes": {},
}

LETTER_DETAIL: Final[dict[str, Any]] = LETTER | {
    "choices": ["replay", "drop"],
    "payload": _PAYLOAD,
    "failed_version": {
        "job_id": JOB_ID,
        "item_index": 1,
        "changed_at": "2026-01-15T09:30:00.123456Z",
        "contact": _PAYLOAD,
    },
    "headers": {
        "X-Request-ID": ["0b9f6f2e-5a0d-4c9b-9a53-0c7d1f2f6a11"],
        "X-Event-ID": ["3a1f4c52-88a1-5c0e-9a57-2f9a4b0c7d11"],
    },
    "calls": [
        {
            "attempt": 1,
            "call": 0,
            "asked": "push",
            "event_id": "3a1f4c52-88a1-5c0e-9a57-2f9a4b0c7d11",
            "sent_at": "2026-01-15T09:30:02.001000Z",
            "milliseconds": 118,
            "status": 207,
            "detail": "1 of 3 refused",
        }
    ],
    "chain": [
        {
            name: LETTER[name]
            for name in (
                "id",
                "job_id",
                "state",
                "error_code",
                "detail",
                "attempts",
                "created_at",
                "resolution",
                "resolved_at",
                "resolved_by",
                "note",
                "replay_job_id",
            )
        }
    ],
}

RETRIED_JOB: Final[dict[str, Any]] = JOB | {
    "state": "completed_with_failures",
    "waiting": None,
    "finished_at": "2026-01-15T09:30:04.000111Z",
    "attempts": [
        {
            "job_id": JOB_ID,
            "kind": "import",
            "state": "completed_with_failures",
            "created_at": "2026-01-15T09:30:00.123456Z",
            "destinations": ["hubspot"],
        },
        {
            "job_id": RETRY_ID,
            "kind": "retry",
            "state": "completed",
            "created_at": "2026-01-15T09:41:00.123456Z",
            "destinations": ["hubspot"],
        },
    ],
    "merged": {"hubspot": {"total": 1_000, "ok": 1_000, "open": 0, "failed": 0, "dropped": 0, "skipped": 0}},
}

CANCELED_JOB: Final[dict[str, Any]] = JOB | {
    "state": "canceled",
    "waiting": None,
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
    "circuit": {
        "state": "closed",
        "since": "2026-01-14T08:03:10Z",
        "retry_after_seconds": 0,
        "openings_24h": 1,
        "detail": None,
    },
}

DESTINATION_TEST: Final[dict[str, Any]] = {
    "test_id": "0199c3a2-51d7-7000-8000-6b1f0d3e2a11",
    "destination": "hubspot",
    "canary": False,
    "state": "done",
    "verdict": "works",
    "steps": [
        {
            "name": "read",
            "ok": True,
            "detail": "A read of a key that nobody has was answered as it should be.",
            "status": 207,
            "milliseconds": 84,
        },
        {
            "name": "id property",
            "ok": True,
            "detail": "'tranche_id' is there, and its values are unique.",
            "status": 200,
            "milliseconds": 61,
        },
    ],
    "created_at": "2026-01-14T09:00:00Z",
    "finished_at": "2026-01-14T09:00:01Z",
}

CIRCUIT: Final[dict[str, Any]] = {
    "circuit": {
        "state": "open",
        "since": "2026-01-14T09:00:00Z",
        "retry_after_seconds": 4,
        "openings_24h": 2,
        "detail": "timed out after 10.0 s",
    },
    "changes": [
        {
            "at": "2026-01-14T09:00:00Z",
            "circuit": "connection",
            "before": "closed",
            "after": "open",
            "opens": 1,
            "seconds": 4.6,
            "detail": "timed out after 10.0 s",
        }
    ],
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
