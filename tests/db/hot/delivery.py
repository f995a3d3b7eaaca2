"""Queries of `app/deliveries/queries.sql`."""

from __future__ import annotations

from typing import Final

from tests.db.hot.values import CONTACTS, JOB, TOKEN, TRIED, Hot

HOT: Final[Hot] = {
    "due_destinations": ("", {"deliveries_due"}),
    "claim_deliveries": (
        f"3, 5, 8, 8, {TOKEN}, '30 s', false, false",
        {"deliveries_due", "deliveries_sending", "deliveries_tasks", "jobs_pkey"},
    ),
    "renew_lease": (f"3, '30 s', 500, {TOKEN}", {"deliveries_pkey"}),
    "records_to_send": (f"3, 5, 1, {CONTACTS}", {"records_pkey", "record_syncs_pkey"}),
    "keep_adoptions": (
        f"3, {CONTACTS}, {CONTACTS}, {CONTACTS}, 500, {TOKEN}",
        {"deliveries_pkey", "record_syncs_adopted"},
    ),
    "record_delivery": (
        f"3, 500, {TOKEN}, 'oo', '{{}}', '{{}}', 1, NULL, 'keep', NULL, 1, {TRIED}",
        {"deliveries_pkey", "effects_pkey", "jobs_pkey", "record_syncs_pkey"},
    ),
    "insert_dead_letters": (
        """3, '[{"record_id":"c1","version":1,"item_index":0,"state":"dead","code":"X","detail":"no"}]', 5""",
        {"deliveries_pkey", "dead_letters_pkey", "jobs_pkey"},
    ),
    "supersede_dead_letters": (
        f"3, {CONTACTS}, '{{1,1,1}}', 5, 1, 500, {TOKEN}",
        {"dead_letters_record", "deliveries_pkey"},
    ),
    "hasten_deliveries": ("3, 5, false", {"deliveries_due", "deliveries_pkey"}),
    "awaited_records": (f"3, 5, 1, {CONTACTS}", {"deliveries_due", "deliveries_sending"}),
    "note_drift": (f"3, '{{}}', 500, {TOKEN}", {"deliveries_pkey"}),
    "note_task": (f"3, 'job', 500, {TOKEN}", {"deliveries_pkey"}),
    "unknown_keys": (f"3, {CONTACTS}, 1, 5", {"records_pkey", "record_syncs_pkey"}),
    "record_listing": (f"3, {CONTACTS}, '{{}}', '{{}}', 1, NULL, 500, {TOKEN}", {"deliveries_pkey"}),
    "types_with_records": ("3, '{1,2}'", {"records_pkey"}),
    "read_listing": (f"3, {JOB}, 5, 0", {"deliveries_job"}),
    "book_unknown": (f"3, {JOB}, 0, 2, '\\x00', 5, '{{}}', 500", {"effects_pkey", "jobs_pkey", "deliveries_pkey"}),
    "drop_listing": ("3, 500", {"deliveries_pkey"}),
    "give_back": (f"3, 5, {TOKEN}", {"deliveries_sending"}),
    "record_calls": ("3, 5, 1, '[]'", {"delivery_calls_pkey"}),
    "lost_calls": ("3, 5", {"delivery_calls_pkey"}),
    "notify_dead_letters": (
        "3, 'contacts', '{}', 5, '{0,1}', 16000",
        {"dead_letters_tenant_id_delivery_id_item_index_key"},
    ),
    "finish_job": (f"3, {JOB}", {"jobs_pkey", "effects_pkey"}),
    "list_destinations": ("3", {"deliveries_unknown"}),
    "read_health": ("3", {"deliveries_unknown"}),
    "tenants_sending": ("", {"deliveries_sending"}),
    "lost_deliveries": ("3", {"deliveries_sending"}),
    "release_lost": ("3, 500", {"deliveries_pkey", "effects_pkey", "jobs_pkey"}),
}
