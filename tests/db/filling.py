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

INSERT INTO contacts (
    tenant_id, contact_id, version, email, attributes, job_id, item_index, prev_job_id, prev_item_index, mask
)
SELECT t, 'c' || n, 2, 'c' || n || '@example.com', '{"x": 1}', job(t, n / 10 + 101), n % 10, job(t, n / 10), n % 10, 3
FROM generate_series(1, 20) t, generate_series(0, 999) n;

INSERT INTO ledger (tenant_id, job_id, item_index, contact_id, version, prev_job_id, prev_item_index, email, attributes)
SELECT
    t, job(t, n / 10 + 101 * (v - 1)), n % 10, 'c' || n, v,
    CASE v WHEN 2 THEN job(t, n / 10) END, CASE v WHEN 2 THEN n % 10 END, 'c' || n || '@example.com', '{"x": 1}'
FROM generate_series(1, 20) t, generate_series(0, 999) n, generate_series(1, 2) v;

INSERT INTO jobs (tenant_id, job_id, kind, state, root_job_id, request_id, key_id, total, succeeded, failed, retry)
SELECT t, job(t, n), 'import', CASE WHEN n < 190 THEN 'completed' ELSE 'syncing' END, job(t, n), 'r', 'k', 10, 10, 0, 0
FROM generate_series(1, 20) t, generate_series(0, 201) n;

INSERT INTO jobs (
    tenant_id, job_id, kind, state, root_job_id, request_id, key_id, total, succeeded, failed, retry, step, items
)
SELECT t, job(t, 900 + n), 'import', 'running', job(t, 900 + n), 'r', 'k', 10, 10, 0, 0, 'apply', 100
FROM generate_series(1, 20) t, generate_series(1, 2) n;

INSERT INTO spool_chunks (tenant_id, job_id, first_index, item_count, step, id_hashes, rows)
SELECT t, job(t, 900 + n), c * 10, 10, 'apply', '{1,2,3,4,5,6,7,8,9,10}', repeat('x', 300)::bytea
FROM generate_series(1, 20) t, generate_series(1, 2) n, generate_series(0, 99) c;

INSERT INTO spool_repeats (tenant_id, job_id, item_index, contact_id, digest, verdict, leader, members)
SELECT t, job(t, 900 + n), c, 'c' || c, 'x', 'equal', 1, 2
FROM generate_series(1, 20) t, generate_series(1, 2) n, generate_series(0, 999) c;

INSERT INTO job_chunks (tenant_id, job_id, first_index, item_count, outcomes)
SELECT t, job(t, n), 0, 10, repeat('x', 300)::bytea FROM generate_series(1, 20) t, generate_series(0, 201) n;

INSERT INTO deliveries (
    tenant_id, destination_id, job_id, request_id, first_index, last_index, contact_ids, versions, indexes, states,
    errors, state, lease_token, lease_until
)
SELECT
    d.tenant_id, d.destination_id, job(d.tenant_id, n), 'r', 0, 1,
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

INSERT INTO contact_syncs (tenant_id, destination_id, contact_id, synced_version, state, state_version)
SELECT d.tenant_id, d.destination_id, 'c' || n, 1, 'ok', 1 FROM destinations d, generate_series(0, 999) n;

INSERT INTO idempotency_keys (tenant_id, route, key, fingerprint, job_id, status, answer, expires_at)
SELECT t, 'route', 'key-' || n, '\\x00', job(t, n), 207, '\\x00', now() + (n - 5) * interval '1 hour'
FROM generate_series(1, 20) t, generate_series(0, 201) n;
"""


async def fill(connection: asyncpg.Connection[Any]) -> None:
    """Fill an empty database at the newest schema, and let PostgreSQL count what is there."""
    await connection.execute(
        """CREATE FUNCTION job(t integer, n integer) RETURNS uuid LANGUAGE sql IMMUTABLE
        RETURN (lpad(to_hex(n), 8, '0') || '-0000-7000-8000-' || lpad(to_hex(t), 12, '0'))::uuid"""
    )
    async with connection.transaction():
        await connection.execute(_FILL)
    await connection.execute("DROP FUNCTION job")
    await connection.execute("VACUUM ANALYZE")
