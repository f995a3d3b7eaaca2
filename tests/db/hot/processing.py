"""Queries of `app/imports/processing_queries.sql`."""

from __future__ import annotations

from typing import Final

from tests.db.hot.values import JOB, Hot

_CHUNK: Final = f"3, {JOB}, 0"

HOT: Final[Hot] = {
    "working_imports": ("", {"jobs_working"}),
    "read_processing": (f"3, {JOB}", {"jobs_working"}),
    "claim_chunk": (f"3, {JOB}, 'apply'", {"staged_chunks_pkey"}),
    "claim_job": (f"3, {JOB}", {"staged_chunks_pkey"}),
    "read_staged": (_CHUNK, {"staged_chunks_pkey"}),
    "chunk_repeats": (f"{_CHUNK}, 999", {"staged_repeats_pkey"}),
    "count_items": (f"3, 1, 1, 0, 0, '{{}}', {JOB}", {"jobs_working"}),
    "drop_chunks": (f"{_CHUNK}, 0", {"staged_chunks_pkey"}),
    "end_import": (f"3, {JOB}", {"jobs_working", "effects_pkey"}),
    "read_outcomes": (_CHUNK, {"job_chunks_pkey"}),
}
