-- Tenants and their API keys.

-- name: all_tenants
SELECT tenant_id FROM tenants ORDER BY tenant_id;

-- name: tenant_shares
-- Of those that have another share of the workers than everybody.
SELECT tenant_id, weight, worker_cap FROM tenants WHERE weight <> 1 OR worker_cap IS NOT NULL;

-- name: ensure_tenant
INSERT INTO tenants (name) VALUES ($1)
ON CONFLICT (name) DO UPDATE SET name = excluded.name
RETURNING tenant_id;

-- name: find_tenants
SELECT tenant_id, name FROM tenants WHERE $1::text IS NULL OR name = $1 ORDER BY name;

-- name: list_tenants
-- With how many keys each has that are neither revoked nor expired.
SELECT
    t.name, t.created_at, t.disabled_at, t.limits, t.weight, t.worker_cap,
    count(k.key_id) FILTER (
        WHERE k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
    )::int AS keys
FROM tenants t
LEFT JOIN api_keys k ON k.tenant_id = t.tenant_id
WHERE $1::text IS NULL OR t.name = $1
GROUP BY t.tenant_id, t.name, t.created_at, t.disabled_at, t.limits, t.weight, t.worker_cap
ORDER BY t.name;

-- name: change_tenant
-- $2 whether it is disabled from $3 on (asked twice, the first time counts)  $4 limits that change  $5 weight
-- (NULL of these: as it is)  $6 whether the cap is given  $7 the cap (NULL: none)
WITH done AS (
    UPDATE tenants
    SET
        disabled_at = CASE
            WHEN $2::boolean IS NULL THEN disabled_at WHEN $2::boolean THEN coalesce(disabled_at, $3::timestamptz)
        END,
        limits = jsonb_strip_nulls(limits || $4::text::jsonb),
        weight = coalesce($5::double precision, weight),
        worker_cap = CASE WHEN $6::boolean THEN $7::int ELSE worker_cap END
    WHERE name = $1
    RETURNING tenant_id
)
SELECT tenant_id FROM done;

-- name: insert_key
INSERT INTO api_keys (tenant_id, key_id, secret_hash, scopes, name, expires_at, limits)
VALUES ($1, $2, $3, $4, $5, $6, jsonb_strip_nulls($7::text::jsonb));

-- name: find_key
-- A rotated key has two secrets for a while.
SELECT
    k.secret_hash, CASE WHEN k.previous_until > now() THEN k.previous_hash END AS previous_hash, k.scopes,
    k.expires_at, coalesce(k.expires_at <= now(), false) AS expired, t.disabled_at IS NOT NULL AS disabled,
    k.limits, t.limits AS tenant_limits, t.weight, k.key_id
FROM api_keys k
JOIN tenants t ON t.tenant_id = k.tenant_id
WHERE k.tenant_id = $1 AND k.key_id = $2 AND k.revoked_at IS NULL;

-- name: find_session
-- With the key that it was opened with.
SELECT
    s.secret_hash, NULL::bytea AS previous_hash, k.scopes, least(k.expires_at, s.expires_at) AS expires_at,
    least(k.expires_at, s.expires_at) <= now() AS expired, t.disabled_at IS NOT NULL AS disabled, k.limits,
    t.limits AS tenant_limits, t.weight, k.key_id
FROM api_sessions s
JOIN api_keys k ON k.tenant_id = s.tenant_id AND k.key_id = s.key_id
JOIN tenants t ON t.tenant_id = s.tenant_id
WHERE s.tenant_id = $1 AND s.session_id = $2 AND k.revoked_at IS NULL;

-- name: insert_session
INSERT INTO api_sessions (tenant_id, session_id, key_id, secret_hash, expires_at) VALUES ($1, $2, $3, $4, $5);

-- name: delete_session
DELETE FROM api_sessions WHERE tenant_id = $1 AND session_id = $2 RETURNING key_id;

-- name: delete_expired_sessions
-- Whoever signs in removes those of the tenant that have ended.
DELETE FROM api_sessions WHERE tenant_id = $1 AND expires_at <= now();

-- name: find_good_keys
-- Those of the keys $1, $2 that are still taken: whoever follows or waits with another one is sent away.
SELECT k.tenant_id, k.key_id FROM api_keys k
JOIN tenants t ON t.tenant_id = k.tenant_id
JOIN unnest($1::int[], $2::text[]) AS w(tenant_id, key_id) ON k.tenant_id = w.tenant_id AND k.key_id = w.key_id
WHERE k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now()) AND t.disabled_at IS NULL;

-- name: list_keys
-- Of one tenant ($1), or of all (NULL); one of them ($2), or all (NULL).
SELECT
    t.name AS tenant, k.key_id, k.name, k.scopes, k.created_at, k.expires_at, k.last_used_at, k.revoked_at, k.limits,
    CASE WHEN k.previous_until > now() THEN k.previous_until END AS previous_until
FROM api_keys k
JOIN tenants t ON t.tenant_id = k.tenant_id
WHERE ($1::int IS NULL OR k.tenant_id = $1) AND ($2::text IS NULL OR k.key_id = $2)
ORDER BY t.name, k.created_at, k.key_id;

-- name: find_key_owner
SELECT k.tenant_id FROM api_keys k WHERE k.key_id = $1;

-- name: lock_key
SELECT k.revoked_at IS NOT NULL AS revoked, coalesce(k.expires_at <= now(), false) AS expired
FROM api_keys k
WHERE k.tenant_id = $1 AND k.key_id = $2
FOR NO KEY UPDATE;

-- name: revoke_key
UPDATE api_keys SET revoked_at = $3, previous_hash = NULL, previous_until = NULL
WHERE tenant_id = $1 AND key_id = $2;

-- name: change_key
-- $3 name (NULL: as it is)  $4 whether the expiry is given  $5 the expiry (NULL: never)  $6 limits that change
UPDATE api_keys
SET
    name = coalesce($3, name),
    expires_at = CASE WHEN $4::boolean THEN $5::timestamptz ELSE expires_at END,
    limits = jsonb_strip_nulls(limits || $6::text::jsonb)
WHERE tenant_id = $1 AND key_id = $2;

-- name: rotate_key
-- $3 hash of the new secret  $4 until when the one before is good
UPDATE api_keys SET previous_hash = secret_hash, previous_until = $4, secret_hash = $3
WHERE tenant_id = $1 AND key_id = $2;

-- name: note_key_uses
-- $1 tenants, $2 keys, $3 times. Several processes report the same key, and once a minute is enough.
UPDATE api_keys k
SET last_used_at = u.at
FROM unnest($1::int[], $2::text[], $3::timestamptz[]) AS u(tenant_id, key_id, at)
WHERE k.tenant_id = u.tenant_id AND k.key_id = u.key_id
    AND (k.last_used_at IS NULL OR u.at - k.last_used_at > interval '30 seconds');

-- name: read_job_keys
-- The keys whose job this is: the one that asked for it, and the one that asked for the job it began with.
SELECT j.key_id, r.key_id AS root_key_id
FROM jobs j
LEFT JOIN jobs r ON r.tenant_id = $1 AND r.job_id = j.root_job_id
WHERE j.tenant_id = $1 AND j.job_id = $2;
