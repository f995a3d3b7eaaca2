-- Access tokens of destinations: which worker asks for one, and what it gets. What is sealed is replaced only if it is
-- still what was read, so that a change by an administrator is never undone.

-- name: claim_refresh
-- For $4 seconds nobody else asks.
UPDATE destinations d SET refresh_until = now() + make_interval(secs => $4)
WHERE d.tenant_id = $1 AND d.destination_id = $2 AND d.credentials = $3 AND d.state <> 'removed'
    AND (d.refresh_until IS NULL OR d.refresh_until <= now());

-- name: store_grant
-- $4: what is sealed from now on. $5: seconds since 1970 at which the access token in it expires.
UPDATE destinations d
SET credentials = $4, access_expires_at = timestamptz 'epoch' + make_interval(secs => $5::float8), refresh_until = NULL
WHERE d.tenant_id = $1 AND d.destination_id = $2 AND d.credentials = $3;

-- name: release_refresh
UPDATE destinations d SET refresh_until = NULL
WHERE d.tenant_id = $1 AND d.destination_id = $2 AND d.credentials = $3;

-- name: read_sealed
SELECT d.credentials FROM destinations d
WHERE d.tenant_id = $1 AND d.destination_id = $2 AND d.state <> 'removed';
