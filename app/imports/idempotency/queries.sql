-- The queries of idempotency keys that are looked up.

-- name: read_key
-- A body that arrives under the key has no fingerprint yet; if nobody receives it any more, the key is free.
SELECT
    k.status, k.job_id, k.created_at, k.expires_at,
    k.fingerprint IS NOT NULL AND (k.expires_at <= now() OR k.answer IS NULL) AS expired,
    coalesce(k.answering_until > now(), false) AS answering
FROM idempotency_keys k
WHERE k.tenant_id = $1 AND k.route = $2 AND k.key = $3 AND (k.fingerprint IS NOT NULL OR k.answering_until > now());

-- name: key_is_running
-- Whether a transaction holds the lock of a key that has no row yet ($1: the lock's number, see claim_key).
SELECT EXISTS (
    SELECT FROM pg_locks l
    WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
        AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
        AND l.classid::bigint = ($1::bigint >> 32) & 4294967295
        AND l.objid::bigint = $1::bigint & 4294967295
);
