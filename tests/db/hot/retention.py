"""Queries of `app/retention/queries.sql`."""

from __future__ import annotations

from typing import Final

from tests.db.hot.values import JOB, Hot

_JOBS: Final = f"ARRAY[{JOB}]::uuid[]"

HOT: Final[Hot] = {
    "find_past": (
        "'{3,4}', '30 days', '30 days', '30 days', '90 days', '1 year', '1 year', '1 year', '1 year'",
        {
            *("idempotency_keys_answers", "idempotency_keys_bare", "staged_chunks_pkey", "staged_repeats_pkey"),
            *("jobs_kept", "deliveries_open", "webhook_messages_done", "circuit_changes_time"),
            *("record_versions_prior", "jobs_bare", "dead_letters_settled", "audit_log_time", "record_syncs_pkey"),
            "record_syncs_images",
        },
    ),
    "expire_answers": ("3", {"idempotency_keys_answers"}),
    "forget_keys": ("3, '30 days'", {"idempotency_keys_bare"}),
    "past_jobs": ("3, '30 days'", {"jobs_kept", "deliveries_open"}),
    "trim_outcomes": (f"3, {_JOBS}", {"job_chunks_pkey"}),
    "trim_deliveries": (f"3, {_JOBS}", {"deliveries_job", "deliveries_pkey"}),
    "mark_trimmed": (f"3, {_JOBS}", {"jobs_pkey"}),
    "past_chunks": ("3, '1 year'", {"record_versions_prior"}),
    "forget_jobs": ("3, '1 year'", {"jobs_bare", "effects_pkey", "sagas_tenant_id_workflow_subject_key"}),
    "forget_dead_letters": ("3, '1 year'", {"dead_letters_settled", "delivery_calls_pkey"}),
    "forget_audit": ("3, '1 year'", {"audit_log_time"}),
    "forget_syncs": ("3", {"record_syncs_pkey"}),
    "forget_images": ("3, '1 year'", {"record_syncs_images"}),
    "forget_messages": ("3, '30 days'", {"webhook_messages_done"}),
    "forget_circuit_changes": ("3, '90 days'", {"circuit_changes_time"}),
}
