-- The answers of requests that are not imports, by their idempotency keys.

-- name: claim_request
-- The lock ($4) only saves a second request from waiting on the unique index; that nothing happens twice is the primary
-- key's doing.
SELECT
    pg_try_advisory_xact_lock($4::bigint) AS claimed, k.fingerprint, k.status, k.answer,
    coalesce(k.expires_at <= now(), false) AS expired
FROM (SELECT) one
LEFT JOIN idempotency_keys k ON k.tenant_id = $1 AND k.route = $2 AND k.key = $3;

-- name: store_answer
-- $4 fingerprint  $5 status  $6 the answer, encrypted  $7 for how long it is kept
INSERT INTO idempotency_keys (tenant_id, route, key, fingerprint, status, answer, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, now() + $7::interval);
