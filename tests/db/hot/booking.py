"""`record_chunk` of `app/imports/queries.sql`: inserts alone, which need no look-up but the counters' key."""

from __future__ import annotations

from typing import Final

from tests.db.hot.values import NULLS, Hot

HOT: Final[Hot] = {"record_chunk": (f"3{NULLS}", {"effects_pkey"})}
