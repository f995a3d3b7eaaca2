"""Queries of `app/erasure/queries.sql` that read a page."""

from __future__ import annotations

from typing import Final

from tests.db.hot.values import CONTACTS, JOB, Hot

_JOB: Final = f"'[{JOB.replace(chr(39), chr(34))}]'"

HOT: Final[Hot] = {
    "older_records": (f"3, 1, {CONTACTS}, {JOB}, '{{1}}'", {"records_pkey", "record_syncs_pkey"}),
    "circuit_texts": ("""3, '[0, "", 0]'""", set()),
    "call_texts": ("3, '[1, 0, 0]'", {"delivery_calls_pkey"}),
    "dead_letter_texts": ("3, '[1]'", set()),
    "delivery_texts": ("3, '[1]'", {"deliveries_pkey"}),
    "sync_texts": ("""3, '[1, 1, "c1"]'""", {"record_syncs_pkey"}),
    "saga_texts": (f"3, {_JOB}", set()),
    "job_texts": (f"3, {_JOB}", {"jobs_pkey"}),
    "rewrite_circuit_texts": ("""3, '[1, "crm", 1]', '"a"'""", {"circuit_changes_pkey"}),
    "rewrite_call_texts": ("""3, '[1, 0, 0]', '"a"'""", {"delivery_calls_pkey"}),
    "rewrite_dead_letter_texts": ("""3, '[1]', '["a", null]'""", {"dead_letters_pkey"}),
    "rewrite_delivery_texts": ("3, '[1]', '{}'", {"deliveries_pkey"}),
    "rewrite_sync_texts": ("""3, '[1, 1, "c1"]', '"a"'""", {"record_syncs_pkey"}),
    "rewrite_saga_texts": (f"""3, {_JOB}, '"a"'""", {"sagas_pkey"}),
    "rewrite_job_texts": (f"3, {_JOB}, '[null, null]'", {"jobs_pkey"}),
}
