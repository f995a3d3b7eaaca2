"""Queries of `app/imports/cancel/queries.sql`."""

from __future__ import annotations

from typing import Final

from tests.db.hot.values import JOB, Hot

HOT: Final[Hot] = {
    "cancel_job": (f"3, '{{}}', {JOB}", {"jobs_working"}),
    "read_job_state": (f"3, {JOB}", {"jobs_pkey"}),
    "remove_chunks": (f"3, {JOB}", {"staged_chunks_pkey"}),
    "remove_repeats": (f"3, {JOB}", {"staged_repeats_pkey"}),
    "is_staged": (f"3, {JOB}", {"staged_chunks_pkey", "staged_repeats_pkey"}),
    "orphaned_stages": ("3", {"staged_chunks_pkey", "staged_repeats_pkey", "jobs_pkey"}),
}
