"""A database with enough in it for the planner to mean what it says: 20 tenants, 20,000 contacts, 5,000 deliveries."""

from __future__ import annotations

from typing import Any

import asyncpg

TENANTS = 20

_FILL = """
INSERT INTO tenants (name) SELECT 'tenant-' || n FROM generate_series(1, 20) n;

INSERT INTO api_keys (tenant_id, key_id, secret_hash, scopes)
SELECT t, 'key-' || n, '\\x00', '{import}' FROM generate_series(1, 20) t, generate_series(1, 5) n;

INSERT INTO destinations (tenant_id, name, kind, base_url, credentials)
SELECT t, 'crm-' || n, 'hubspot', 'http://127.0.0.1:9', '\\x00' FROM generate_series(1, 20) t, generate_series(1, 2) n;

INSERT INTO records (
    tenant_id, type_id, record_id, version, document, job_id, item_index, prev_job_id, prev_item_index
)
SELECT
    t, 1, 'c' || n, 2, jsonb_build_object('email', 'c' || n || '@example.com', 'attributes.x', 1),
    job(t, n / 10 + 101), n % 10, job(t, n / 10), n % 10
FROM generate_series(1, 20) t, generate_series(0, 999) n;

INSERT INTO record_versions (tenant_id, job_id, first_index, indexes, prev_job_ids, prev_item_indexes, versions)
SELECT
    t, job(t, c + 101 * (v - 1)), 0, ARRAY(SELECT generate_series(0, 9)),
    CASE v WHEN 2 THEN array_fill(job(t, c), '{10}') END, CASE v WHEN 2 THEN ARRAY(SELECT generate_series(0, 9)) END,
    ARRAY[repeat('x', 300)::bytea]
FROM generate_series(1, 20) t, generate_series(0, 99) c, generate_series(1, 2) v;

INSERT INTO jobs (tenant_id, job_id, kind, type, state, root_job_id, request_id, key_id, total, succeeded, failed,
    retry)
SELECT t, job(t, n), 'import', 'contacts', CASE WHEN n < 190 THEN 'completed' ELSE 'syncing' END, job(t, n), 'r',
    'k', 10, 10, 0, 0
FROM generate_series(1, 20) t, generate_series(0, 201) n;

INSERT INTO jobs (
    tenant_id, job_id, kind, type, state, root_job_id, request_id, key_id, total, succeeded, failed, retry, step, items
)
SELECT t, job(t, 900 + n), 'import', 'contacts', 'running', job(t, 900 + n), 'r', 'k', 10, 10, 0, 0, 'apply', 100
FROM generate_series(1, 20) t, generate_series(1, 2) n;

INSERT INTO staged_chunks (tenant_id, job_id, first_index, item_count, step, id_hashes, rows)
SELECT t, job(t, 900 + n), c * 10, 10, 'apply', '{1,2,3,4,5,6,7,8,9,10}', repeat('x', 300)::bytea
FROM generate_series(1, 20) t, generate_series(1, 2) n, generate_series(0, 99) c;

INSERT INTO staged_repeats (tenant_id, job_id, item_index, record_id, digest, verdict, leader, members)
SELECT t, job(t, 900 + n), c, 'c' || c, 'x', 'equal', 1, 2
FROM generate_series(1, 20) t, generate_series(1, 2) n, generate_series(0, 999) c;

INSERT INTO job_chunks (tenant_id, job_id, first_index, item_count, outcomes)
SELECT t, job(t, n), 0, 10, repeat('x', 300)::bytea FROM generate_series(1, 20) t, generate_series(0, 201) n;

INSERT INTO deliveries (
    tenant_id, destination_id, type_id, job_id, request_id, first_index, last_index, record_ids, versions, indexes,
    states,
    errors, state, lease_token, lease_until
)
SELECT
    d.tenant_id, d.destination_id, 1, job(d.tenant_id, n), 'r', 0, 1,
    ARRAY['c' || n * 2, 'c' || n * 2 + 1], '{1,1}', '{0,1}',
    s.letters, '{"0": {"code": "X", "detail": "y"}}', s.state,
    CASE s.state WHEN 'sending' THEN gen_random_uuid() END, CASE s.state WHEN 'sending' THEN now() + '30 s' END
FROM destinations d
CROSS JOIN generate_series(0, 124) n
CROSS JOIN LATERAL (
    SELECT * FROM (VALUES ('oo', 'done', 100), ('pp', 'pending', 123), ('pp', 'sending', 125)) v(letters, state, below)
    WHERE n < v.below ORDER BY v.below LIMIT 1
) s;

INSERT INTO effects (tenant_id, job_id, destination_id, ok)
SELECT d.tenant_id, job(d.tenant_id, n), d.destination_id, 2 FROM destinations d, generate_series(0, 201) n;

INSERT INTO record_syncs (tenant_id, destination_id, type_id, record_id, synced_version, state, state_version)
SELECT d.tenant_id, d.destination_id, 1, 'c' || n, 1, 'ok', 1 FROM destinations d, generate_series(0, 999) n;

INSERT INTO idempotency_keys (tenant_id, route, key, fingerprint, job_id, status, answer, expires_at)
SELECT t, 'route', 'key-' || n, '\\x00', job(t, n), 207, '\\x00', now() + (n - 5) * interval '1 hour'
FROM generate_series(1, 20) t, generate_series(0, 201) n;

INSERT INTO dead_letters (
    tenant_id, destination_id, type_id, record_id, version, job_id, item_index, delivery_id, state, error_code,
    error_detail,
    attempts, request_id, root_job_id, chain_id, resolution
)
SELECT
    d.tenant_id, d.destination_id, 1, 'c' || n, 1, job(d.tenant_id, n / 10), n % 10, d.destination_id * 1000 + n,
    'failed',
    'DESTINATION_REJECTED', 'no', 1, 'r', job(d.tenant_id, n / 10), CASE WHEN n % 10 = 9 THEN n END,
    CASE WHEN n % 2 = 0 THEN 'replayed' END
FROM destinations d, generate_series(0, 499) n;

INSERT INTO dead_letters (
    tenant_id, type_id, record_id, version, job_id, item_index, state, error_code, error_detail, attempts, request_id,
    root_job_id, resolution, conflict
)
SELECT
    t, 1, 'c' || n, 1, job(t, n / 10), n % 10, 'failed', 'VERSION_CONFLICT', 'no', 1, 'r', job(t, n / 10),
    CASE WHEN n % 2 = 0 THEN 'replayed' END, jsonb_build_object('job_id', job(t, n / 10), 'item_index', n % 10)
FROM generate_series(1, 20) t, generate_series(0, 499) n;

INSERT INTO delivery_calls (
    tenant_id, delivery_id, attempt, call, asked, event_id, sent_at, milliseconds, status, detail
)
SELECT t, n, 1, c, 'push', 'e', now(), 10, 500, 'no' FROM generate_series(1, 20) t, generate_series(0, 249) n,
    generate_series(0, 1) c;

INSERT INTO sagas (tenant_id, saga_id, workflow, subject, state, actor, finished_at)
SELECT t, job(t, n), 'undo', job(t, n), CASE WHEN n < 190 THEN 'done' ELSE 'running' END, 'k',
    CASE WHEN n < 190 THEN now() END
FROM generate_series(1, 20) t, generate_series(0, 201) n;

INSERT INTO audit_log (tenant_id, actor, action, subject)
SELECT t, 'k', 'undo.restore', 'job:' || job(t, n % 100) FROM generate_series(1, 20) t, generate_series(0, 999) n;

INSERT INTO circuit_changes (tenant_id, destination_id, at, circuit, before, after, opens, seconds, detail)
SELECT
    d.tenant_id, d.destination_id, now() - n * interval '4 hours', CASE n % 2 WHEN 0 THEN 'crm' ELSE 'connection' END,
    'closed', 'open', 1, 5, 'no'
FROM destinations d, generate_series(0, 499) n;

INSERT INTO webhook_endpoints (tenant_id, url, events, secret)
SELECT t, 'https://example.com', '{job.finished}', '\\x00' FROM generate_series(1, 20) t, generate_series(1, 2) n;

INSERT INTO webhook_messages (tenant_id, endpoint_id, event_id, type, body, state, finished_at)
SELECT
    w.tenant_id, w.endpoint_id, gen_random_uuid(), 'job.finished', '{}', CASE WHEN n < 480 THEN 'ok' ELSE 'pending' END,
    CASE WHEN n < 480 THEN now() END
FROM webhook_endpoints w, generate_series(0, 499) n;
"""

_NO_AUTOVACUUM = """
DO $$
DECLARE
    name regclass;
BEGIN
    FOR name IN SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' LOOP
        EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = off)', name);
    END LOOP;
END $$
"""


async def fill(connection: asyncpg.Connection[Any]) -> None:
    """Fill an empty database at the newest schema, and let PostgreSQL count what is there."""
    await connection.execute(
        """CREATE FUNCTION job(t integer, n integer) RETURNS uuid LANGUAGE sql IMMUTABLE
        RETURN (lpad(to_hex(n), 8, '0') || '-0000-7000-8000-' || lpad(to_hex(t), 12, '0'))::uuid"""
    )
    # One count alone: autovacuum may come in the middle, and its own snapshot keeps VACUUM from seeing rows as visible.
    await connection.execute(_NO_AUTOVACUUM)
    async with connection.transaction():
        await connection.execute(_FILL)
    await connection.execute("DROP FUNCTION job")
    await connection.execute("VACUUM ANALYZE")
