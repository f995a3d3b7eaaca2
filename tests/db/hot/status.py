"""Queries of `app/job_status/queries.sql`."""

from __future__ import annotations

from typing import Final

from tests.db.hot.values import JOB, JOBS, Hot

HOT: Final[Hot] = {
    "read_job": (f"3, {JOB}", {"jobs_pkey"}),
    "read_jobs": (f"3, {JOB}, NULL, NULL, NULL, 50", {"jobs_pkey"}),
    "read_jobs_of_key": (f"3, 'key', {JOB}, NULL, NULL, NULL, 50", {"jobs_of_key"}),
    "read_effects": (f"3, {JOBS}", {"effects_pkey"}),
    "read_local_failures": (f"3, {JOB}", {"job_chunks_faulty"}),
    "read_destination_failures": (f"3, {JOB}", {"deliveries_faulty"}),
    "read_drift": (f"3, {JOB}", {"deliveries_drifted"}),
    "read_next_attempt": (f"3, {JOB}", {"deliveries_open"}),
    "read_revisions": (f"'{{3}}', {JOBS}", {"jobs_pkey"}),
    "read_key": ("3, 'route', 'key-5'", {"idempotency_keys_pkey"}),
    "read_record": ("3, 1, 'c5'", {"records_pkey"}),
    "read_record_syncs": ("3, 1, 'c5', 'contacts', NULL, '{hubspot}'", {"record_syncs_pkey"}),
}
