"""Queries of `app/dead_letters` and of lineage in `app/job_status`."""

from __future__ import annotations

from typing import Final

from tests.db.hot.values import JOB, Hot

_ANY: Final = "NULL, NULL, NULL, NULL"

HOT: Final[Hot] = {
    "choose_dead_letters": (f"3, {JOB}, '{{5,6}}', {_ANY}, 100", {"dead_letters_root", "deliveries_faulty"}),
    "dead_letter_clusters": (f"3, {JOB}, '{{5,6,NULL}}', {_ANY}", {"dead_letters_root", "deliveries_faulty"}),
    "list_dead_letters": ("3, NULL, NULL, 'open', 1000000, 50, '{5,6}', NULL, NULL, 10", {"dead_letters_waiting"}),
    "read_dead_letters": ("3, '{1500,1501}'", {"dead_letters_pkey"}),
    "read_chain": ("3, 9", {"dead_letters_pkey", "dead_letters_chain"}),
    "read_calls": ("3, 20, 1", {"delivery_calls_pkey"}),
    "lock_conflicts": (f"3, 1, '{{c1,c2}}', {JOB}", {"dead_letters_record"}),
    "supersede_conflicts": ("3, '{1500,1501}', 'again'", {"dead_letters_waiting"}),
    "read_left_alone": (f"3, {JOB}", {"dead_letters_conflict", "dead_letters_pkey", "dead_letters_chain"}),
    "dead_letters_of_conflicts": (f"3, {JOB}, '{{1,2}}'", {"dead_letters_conflict"}),
    "dead_letters_of_items": ("3, '{5001,5002}', '{1,2}'", {"dead_letters_tenant_id_delivery_id_item_index_key"}),
    "lock_dead_letters": ("3, '{1500,1501}'", {"dead_letters_waiting"}),
    "resolve_dead_letters": ("3, '{1500,1501}', 'dropped', 'k', 'why', NULL", {"dead_letters_waiting"}),
    "touch_roots": (f"3, ARRAY[{JOB}::uuid]", {"jobs_pkey"}),
    "paced_until": ("3, 5", {"deliveries_due"}),
    "attempt_job": (f"3, {JOB}", {"jobs_pkey"}),
    "make_due": (f"3, {JOB}, '{{5,6}}'", {"jobs_root", "deliveries_open", "deliveries_pkey"}),
    "running_attempt": (f"3, {JOB}, '{{5,6}}'", {"jobs_root", "jobs_pkey", "effects_pkey"}),
    "supersede_settled": ("3, '{5}', '{1}', '{c5}', '{2}', '{7}', 'k'", {"dead_letters_record"}),
    "settle_syncs": ("3, '{5}', '{1}', '{c5}', '{2}'", {"record_syncs_pkey"}),
    "read_outcome_of_dead_letters": (
        f"3, {JOB}",
        {"dead_letters_root", "deliveries_faulty", "dead_letters_chain", "record_syncs_pkey"},
    ),
    "read_own_effects": (f"3, {JOB}", {"effects_pkey"}),
    "read_attempts": (f"3, {JOB}, '{{}}'", {"jobs_pkey", "jobs_root"}),
}
