"""Queries of `app/retention/queries.sql`."""

from __future__ import annotations

from typing import Final

from tests.db.hot.values import JOB, Hot

_JOBS: Final = f"ARRAY[{JOB}]::uuid[]"

HOT: Final[Hot] = {
    "find_past": (
        "'{3,4}', '30 days', '30 days', '30 days', '90 days'",
        {
            *("idempotency_keys_answers", "idempotency_keys_bare", "staged_chunks_pkey", "staged_repeats_pkey"),
            *("jobs_kept", "deliveries_open", "webhook_messages_done", "circuit_changes_time"),
        },
    ),
    "expire_answers": ("3", {"idempotency_keys_answers"}),
    "forget_keys": ("3, '30 days'", {"idempotency_keys_bare"}),
    "past_jobs": ("3, '30 days'", {"jobs_kept", "deliveries_open"}),
    "trim_outcomes": (f"3, {_JOBS}", {"job_chunks_pkey"}),
    "trim_deliveries": (f"3, {_JOBS}", {"deliveries_job", "deliveries_pkey"}),
    "mark_trimmed": (f"3, {_JOBS}", {"jobs_pkey"}),
    "forget_messages": ("3, '30 days'", {"webhook_messages_done"}),
    "forget_circuit_changes": ("3, '90 days'", {"circuit_changes_time"}),
}
