"""Queries of `app/auth/queries.sql`."""

from __future__ import annotations

from typing import Final

from tests.db.hot.values import JOB, Hot

HOT: Final[Hot] = {"read_job_keys": (f"3, {JOB}", {"jobs_pkey"})}
