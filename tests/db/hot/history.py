"""Queries of `app/history/queries.sql` that remove versions."""

from __future__ import annotations

from typing import Final

from tests.db.hot.values import JOB, Hot

_JOBS: Final = f"ARRAY[{JOB}]::uuid[]"

HOT: Final[Hot] = {
    "hold_chunks": (f"3, {_JOBS}, '{{1}}'", {"record_versions_pkey"}),
    "rewrite_chunk": (f"3, '{{1}}', NULL, NULL, '{{}}', NULL, {JOB}, 0", {"record_versions_pkey"}),
    "drop_chunks_of_versions": (f"3, {_JOBS}, '{{0}}'", {"record_versions_pkey"}),
    "forget_priors": (f"3, {_JOBS}, '{{0}}'", {"record_versions_pkey"}),
    "hold_makers": (f"3, {_JOBS}", {"jobs_pkey"}),
    "note_removals": (f"3, {_JOBS}, true", {"jobs_pkey", "record_versions_pkey"}),
}
