"""Queries of `app/job_status/items/queries.sql`."""

from __future__ import annotations

from typing import Final

from tests.db.hot.values import JOB, Hot

RANGES: Final = "'{0,7}', '{3,9}'"

HOT: Final[Hot] = {
    "items_job": (f"3, {JOB}", {"jobs_pkey", "job_chunks_pkey", "staged_chunks_pkey"}),
    "items_places": (f"3, {JOB}", {"effects_pkey"}),
    "next_chunks": (f"3, {JOB}, 5, 10", {"job_chunks_pkey"}),
    "next_sound_chunks": (f"3, {JOB}, 5, 10", {"job_chunks_pkey"}),
    "next_faulty_chunks": (f"3, {JOB}, 5, 10, '{{INTERNAL}}'", {"job_chunks_faulty"}),
    "next_deliveries": (f"3, {JOB}, 5, 0, 9, 10, '[s]'", {"deliveries_job"}),
    "next_faulty_deliveries": (f"3, {JOB}, 5, 0, 10, 'CIRCUIT_OPEN', '[f]'", {"deliveries_faulty"}),
    "next_drifted_deliveries": (f"3, {JOB}, 5, 0, 10", {"deliveries_drifted"}),
    "next_open_deliveries": (f"3, {JOB}, 5, 0, 10, '[p]'", {"deliveries_open"}),
    "chunks_in": (f"3, {JOB}, {RANGES}", {"job_chunks_pkey"}),
    "sources_in": (f"3, {JOB}, {RANGES}", {"job_chunks_pkey"}),
    "deliveries_in": (f"3, {JOB}, {RANGES}", {"deliveries_job", "effects_pkey", "deliveries_pkey"}),
}
