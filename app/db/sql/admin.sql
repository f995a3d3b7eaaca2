-- Tenants, keys and destinations.

-- name: ensure_tenant
INSERT INTO tenants (name) VALUES ($1)
ON CONFLICT (name) DO UPDATE SET name = excluded.name
RETURNING tenant_id;

-- name: find_tenants
SELECT tenant_id, name FROM tenants WHERE $1::text IS NULL OR name = $1 ORDER BY name;

-- name: insert_key
INSERT INTO api_keys (tenant_id, key_id, secret_hash, scopes) VALUES ($1, $2, $3, $4);

-- name: find_key
SELECT k.secret_hash, k.scopes FROM api_keys k
WHERE k.tenant_id = $1 AND k.key_id = $2 AND k.revoked_at IS NULL;

-- name: list_keys
SELECT t.name AS tenant, k.key_id, k.scopes, k.created_at, k.revoked_at
FROM api_keys k
JOIN tenants t ON t.tenant_id = k.tenant_id
WHERE $1::text IS NULL OR t.name = $1
ORDER BY t.name, k.created_at;

-- name: revoke_key
UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE key_id = $1 RETURNING key_id;

-- name: insert_destination
INSERT INTO destinations (tenant_id, name, kind, base_url, credentials, options)
VALUES ($1, $2, $3, $4, $5, $6::text::jsonb)
RETURNING destination_id;

-- name: list_destinations
SELECT
    d.name, d.kind, d.base_url, d.options, d.state, d.created_at, d.blocked_code, d.blocked_detail,
    greatest(extract(epoch FROM d.blocked_until - now()), 0)::float8 AS blocked_for,
    coalesce(u.count, 0)::int AS unknown, coalesce(u.seconds, 0)::int AS unknown_for
FROM destinations d
LEFT JOIN LATERAL (
    SELECT
        sum(letters(x.states, 'u')) AS count,
        extract(epoch FROM now() - min(x.unknown_since)) AS seconds
    FROM deliveries x
    WHERE x.tenant_id = d.tenant_id AND x.destination_id = d.destination_id AND x.unknown_since IS NOT NULL
) u ON true
WHERE d.tenant_id = $1 AND d.state <> 'removed'
ORDER BY d.name;

-- name: set_destination_state
-- Resuming also forgets an old wait: a human says that it is well again.
UPDATE destinations d
SET
    state = $3,
    blocked_until = CASE WHEN $3 = 'active' THEN NULL ELSE d.blocked_until END,
    blocked_code = CASE WHEN $3 = 'active' THEN NULL ELSE d.blocked_code END,
    blocked_detail = CASE WHEN $3 = 'active' THEN NULL ELSE d.blocked_detail END
WHERE d.tenant_id = $1 AND d.name = $2 AND d.state <> 'removed'
RETURNING d.destination_id;
