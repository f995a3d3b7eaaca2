"""Queries of `app/undo`, `app/history`, `app/sagas`, `app/records` and `app/audit`."""

from __future__ import annotations

from typing import Final

from tests.db.hot.values import CONTACTS, JOB, JOBS, Hot

HOT: Final[Hot] = {
    "lock_undoable": (f"3, {JOB}", {"jobs_pkey"}),
    "find_undo": (f"3, {JOB}", {"jobs_undo"}),
    "failed_sagas": ("3, 100", {"sagas_failed"}),
    "saga_data": (f"3, 'undo', {JOB}", {"sagas_tenant_id_workflow_subject_key"}),
    "retry_saga": (f"3, {JOB}", {"sagas_failed"}),
    "drop_saga": (f"3, {JOB}", {"sagas_failed"}),
    "resume_undo": (f"3, {JOB}", {"jobs_pkey", "sagas_tenant_id_workflow_subject_key"}),
    "count_versions": (f"3, {JOB}", {"record_versions_pkey"}),
    "insert_undo": (f"3, {JOB}, NULL, {JOB}, {JOB}, 'r', NULL, 'k', 1", {"jobs_pkey"}),
    "being_erased": ("3, 'contacts', '{c1}'", {"sagas_tenant_id_workflow_subject_key", "jobs_pkey"}),
    "grow_undo": (f"3, {JOB}, 1", {"jobs_pkey"}),
    "read_undo": (f"3, {JOB}", {"jobs_pkey"}),
    "chunk_before": (f"3, {JOB}, 2147483647", {"record_versions_pkey"}),
    "chunks_with_versions": (f"3, {JOBS}, '{{1}}'", {"record_versions_pkey"}),
    "walk_back": (f"3, {CONTACTS}, '{{1,1,1}}', 1", {"records_pkey", "record_versions_pkey"}),
    "lock_records": (f"3, 1, {CONTACTS}", {"records_pkey"}),
    "read_makers": (f"3, {JOBS}", {"jobs_pkey"}),
    "find_own": (f"3, {JOBS}, '{{1}}', '{{1}}', {JOB}", {"record_versions_pkey", "jobs_pkey"}),
    "restore_records": (
        f"3, {JOB}, {CONTACTS}, '{{0,1,2}}', NULL, '{{f,f,f}}', array_fill('{{}}'::text, '{{3}}'), NULL, NULL, 1",
        {"records_pkey"},
    ),
    "read_unsettled": (f"3, {JOB}", {"jobs_pkey", "jobs_root", "effects_pkey", "dead_letters_root"}),
    "last_refused": (f"3, {JOB}, 2147483647", {"deliveries_faulty"}),
    "refused_items": (f"3, {JOB}, 0, 999", {"deliveries_faulty", "dead_letters_waiting", "dead_letters_chain"}),
    "drop_dead_letters": ("3, '{1,2,3}', 'k', 'why'", {"dead_letters_waiting"}),
    "read_relatives": (f"3, {JOB}", {"jobs_pkey", "jobs_undo", "jobs_root"}),
    "lock_undo": (f"3, {JOB}", {"jobs_working"}),
    "insert_saga": (f"3, {JOB}, 'undo', {JOB}, 'k', '{{}}'", {"sagas_tenant_id_workflow_subject_key"}),
    "due_sagas": ("", {"sagas_due"}),
    "claim_saga": (f"3, {JOB}", {"sagas_pkey"}),
    "move_saga": (f"3, {JOB}, 'running', 0, '{{}}', 0, '1 s', NULL, false", {"sagas_pkey"}),
    "record_exists": ("3, 1, 'c10'", {"records_pkey"}),
    "read_history": ("3, NULL, 1, 'c10', NULL, 100", {"records_pkey", "record_versions_pkey", "jobs_pkey"}),
    "list_records": ("3, 1, 'c10', 100", {"records_pkey"}),
    "records_by_id": (f"3, 1, {CONTACTS}", {"records_pkey"}),
    "current_records": (f"3, 1, {CONTACTS}, {JOB}, 'email', 'x'", {"records_pkey"}),
    "next_changes": (f"5000, 7, 3, 'contacts', now(), {JOB}, 5", {"record_versions_time"}),
    "read_audit": ("3, NULL, 100", {"audit_log_pkey"}),
    "read_audit_of": ("3, NULL, 100, 'job:x'", {"audit_log_subject"}),
}
