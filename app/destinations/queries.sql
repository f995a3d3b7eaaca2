-- Destinations.

-- name: count_destinations
SELECT count(*)::int FROM destinations d WHERE d.tenant_id = $1 AND d.state <> 'removed';

-- name: insert_destination
INSERT INTO destinations (tenant_id, name, kind, base_url, credentials, options, types, credentials_type)
VALUES ($1, $2, $3, $4, $5, $6::text::jsonb, $7, $8);

-- part: unknown_items
-- Of the destination d: how many items have an unknown outcome, and since when.
LEFT JOIN LATERAL (
    SELECT
        sum(count_state(x.states, 'u')) AS count,
        extract(epoch FROM now() - min(x.unknown_since)) AS seconds
    FROM deliveries x
    WHERE x.tenant_id = d.tenant_id AND x.destination_id = d.destination_id AND x.unknown_since IS NOT NULL
) u ON true

-- part: pending_items
-- Of the destination d: how many items wait to be sent there, and since when. Of a large backlog, those that are due first.
LEFT JOIN LATERAL (
    SELECT
        sum(x.waiting) AS count,
        extract(epoch FROM now() - min(x.created_at) FILTER (WHERE x.waiting > 0)) AS seconds,
        count(*) > 1000 AS more
    FROM (
        SELECT b.created_at, count_state(b.states, 'p') + count_state(b.states, 'r') AS waiting
        FROM (
            (
                SELECT y.created_at, y.states
                FROM deliveries y
                WHERE y.tenant_id = d.tenant_id AND y.destination_id = d.destination_id AND y.state = 'pending'
                ORDER BY y.next_attempt_at
                LIMIT 1001
            )
            UNION ALL
            SELECT y.created_at, y.states
            FROM deliveries y
            WHERE y.tenant_id = d.tenant_id AND y.destination_id = d.destination_id AND y.state = 'sending'
        ) b
    ) x
) p ON true

-- name: list_destinations
SELECT
    d.name, d.kind, d.base_url, d.options, d.types, d.state, d.created_at, d.blocked_code, d.blocked_detail, d.credentials,
    d.credentials_type, d.access_expires_at, d.verified_at,
    greatest(extract(epoch FROM d.blocked_until - now()), 0)::float8 AS blocked_for,
    coalesce(u.count, 0)::int AS unknown, coalesce(u.seconds, 0)::int AS unknown_for,
    coalesce(p.count, 0)::int AS pending, coalesce(p.seconds, 0)::int AS pending_for, p.more AS more_pending
FROM destinations d
{{unknown_items}}
{{pending_items}}
WHERE d.tenant_id = $1 AND d.state <> 'removed'
ORDER BY d.name;

-- name: lock_destination_options
SELECT d.kind, d.base_url, d.options, d.types FROM destinations d
WHERE d.tenant_id = $1 AND d.name = $2 AND d.state <> 'removed'
FOR NO KEY UPDATE;

-- name: destination_kinds
SELECT d.name, d.kind FROM destinations d
WHERE d.tenant_id = $1 AND d.name = ANY ($2::text[]) AND d.state <> 'removed';

-- name: change_destination
-- $3 credentials and $4 options; NULL: as they are. $7 types, if $6 says that they change. What the credentials before brought about is over with them: the
-- wait, and the circuit of this connection, unless somebody opened it with an override. That of the CRM is not theirs. Other options
-- may allow more calls: a wait for a rate is tried anew. They may also mend what an open circuit waits for (a field that
-- the account lacks).
WITH n AS MATERIALIZED (
    SELECT
        o.destination_id,
        ($3::bytea IS NOT NULL OR $4::text IS NOT NULL AND (o.blocked_code = 'CIRCUIT_OPEN') IS TRUE)
            AND o.circuit_override IS NULL
            AND (o.blocked_until > now() AND o.blocked_detail = 'opened by an operator') IS NOT TRUE AS anew,
        $4::text IS NOT NULL AND (o.blocked_code = 'DESTINATION_RATE_LIMIT') IS TRUE AS faster,
        jsonb_build_object(
            'state', 'closed', 'circuit', 'connection', 'until', extract(epoch FROM now()), 'by', $5::text,
            'at', extract(epoch FROM clock_timestamp())
        ) AS closed
    FROM destinations o
    WHERE o.tenant_id = $1 AND o.name = $2 AND o.state <> 'removed'
)
UPDATE destinations d
SET
    credentials = coalesce($3::bytea, d.credentials),
    credentials_type = coalesce($8::text, d.credentials_type),
    access_expires_at = CASE WHEN $3::bytea IS NULL THEN d.access_expires_at END,
    refresh_until = CASE WHEN $3::bytea IS NULL THEN d.refresh_until END,
    options = coalesce($4::text::jsonb, d.options),
    types = CASE WHEN $6::boolean THEN $7::text[] ELSE d.types END,
    blocked_until = CASE WHEN n.anew OR n.faster THEN NULL ELSE d.blocked_until END,
    blocked_code = CASE WHEN n.anew OR n.faster THEN NULL ELSE d.blocked_code END,
    blocked_detail = CASE WHEN n.anew OR n.faster THEN NULL ELSE d.blocked_detail END,
    circuit_override = CASE WHEN n.anew THEN n.closed ELSE d.circuit_override END
FROM n
WHERE d.tenant_id = $1 AND d.destination_id = n.destination_id
RETURNING d.destination_id;

-- name: hasten_deliveries
-- What waits there after an attempt is due now. What nobody has tried waits until it is due, because a replay is paced, unless
-- $3 says otherwise; what somebody holds is being seen to.
UPDATE deliveries d
SET next_attempt_at = now()
WHERE d.tenant_id = $1 AND d.delivery_id = ANY (ARRAY(
    SELECT x.delivery_id FROM deliveries x
    WHERE x.tenant_id = $1 AND x.destination_id = $2 AND x.state = 'pending' AND x.next_attempt_at > now()
        AND (x.attempt > 0 OR $3::boolean)
    ORDER BY x.next_attempt_at
    LIMIT 100000
    FOR UPDATE SKIP LOCKED
));

-- name: set_destination_state
-- Resuming also forgets an old wait: an operator says that it is well again. What is removed keeps no credentials.
UPDATE destinations d
SET
    state = $3,
    credentials = CASE WHEN $3 = 'removed' THEN '' ELSE d.credentials END,
    blocked_until = CASE WHEN $3 = 'active' THEN NULL ELSE d.blocked_until END,
    blocked_code = CASE WHEN $3 = 'active' THEN NULL ELSE d.blocked_code END,
    blocked_detail = CASE WHEN $3 = 'active' THEN NULL ELSE d.blocked_detail END
WHERE d.tenant_id = $1 AND d.name = $2 AND d.state <> 'removed'
RETURNING d.destination_id;
