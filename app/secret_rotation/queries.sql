-- What is encrypted at rest, for the rotation of its key. Each is replaced only if it is still what was read.

-- name: sealed_destinations
-- Removed destinations keep none.
SELECT d.destination_id, d.name, d.base_url, d.credentials FROM destinations d
WHERE d.tenant_id = $1 AND d.credentials <> ''
ORDER BY d.destination_id;

-- name: reseal_destination
UPDATE destinations d SET credentials = $4
WHERE d.tenant_id = $1 AND d.destination_id = $2 AND d.credentials = $3;

-- name: sealed_endpoints
SELECT w.endpoint_id, w.secret, w.previous_secret FROM webhook_endpoints w
WHERE w.tenant_id = $1
ORDER BY w.endpoint_id;

-- name: sealed_erasure_key
SELECT k.sealed FROM erasure_keys k WHERE k.tenant_id = $1;

-- name: reseal_erasure_key
-- $2 is the number of no other secret of the tenant, which has one.
UPDATE erasure_keys k SET sealed = $4 WHERE k.tenant_id = $1 AND $2::int = 0 AND k.sealed = $3;

-- name: reseal_endpoint
UPDATE webhook_endpoints w SET secret = $4
WHERE w.tenant_id = $1 AND w.endpoint_id = $2 AND w.secret = $3;

-- name: reseal_endpoint_before
UPDATE webhook_endpoints w SET previous_secret = $4
WHERE w.tenant_id = $1 AND w.endpoint_id = $2 AND w.previous_secret = $3;
