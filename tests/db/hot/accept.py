"""Queries of `app/imports/queries.sql`."""

from __future__ import annotations

from typing import Final

from tests.db.hot.values import CONTACTS, NULLS, Hot

HOT: Final[Hot] = {
    "claim_key": ("3, 7, 'route', 'key-5'", {"idempotency_keys_pkey"}),
    "existing_contacts": (f"3, {CONTACTS}", {"contacts_pkey"}),
    "upsert_contacts": (f"3{NULLS}", {"contacts_pkey"}),
    "unwritten_contacts": (f"3, {CONTACTS}", {"contacts_pkey"}),
    "touch_contacts": (f"3, {CONTACTS}, '{{1,2,3}}'", {"contacts_pkey"}),
    "settle_answer": ("3, 'route', 'key-5', ''", {"idempotency_keys_pkey"}),
}
