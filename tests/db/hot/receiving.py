"""Queries of `app/imports/upload_queries.sql`."""

from __future__ import annotations

from typing import Final

from tests.db.hot.values import JOB, Hot

HOT: Final[Hot] = {
    "renew_receiving": (f"3, 1, '20 s', {JOB}, 'route', 'key-5'", {"jobs_working", "idempotency_keys_pkey"}),
    "finish_receiving": (
        f"3, 'check', 10, 1, '{{}}', {JOB}, '', '', '1 day', 'route', 'key-5'",
        {"jobs_working", "idempotency_keys_pkey"},
    ),
    "end_receiving": (f"3, 'canceled', '{{}}', {JOB}, true", {"jobs_working"}),
    "read_receiving": (f"3, {JOB}", {"jobs_pkey"}),
    "free_key": (f"3, 'route', 'key-5', {JOB}", {"idempotency_keys_pkey"}),
    "stale_receiving": ("3, 5", {"jobs_working"}),
}
