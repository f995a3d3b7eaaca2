"""Queries of `app/imports/queries.sql`."""

from __future__ import annotations

from typing import Final

from tests.db.hot.values import CONTACTS, NULLS, Hot

HOT: Final[Hot] = {
    "claim_key": ("3, 7, 'contacts', NULL, '{hubspot}', 'route', 'key-5'", {"idempotency_keys_pkey"}),
    "existing_records": (f"3, 1, {CONTACTS}", {"records_pkey"}),
    "upsert_records": (f"3{NULLS}", {"records_pkey"}),
    "name_cleared_attributes": (f"3, 1, {CONTACTS}", {"records_pkey"}),
    "unwritten_records": (f"3, 1, {CONTACTS}", {"records_pkey"}),
    "touch_records": (f"3, 1, {CONTACTS}, '{{1,2,3}}'", {"records_pkey"}),
    "settle_answer": ("3, 'route', 'key-5', ''", {"idempotency_keys_pkey"}),
}
