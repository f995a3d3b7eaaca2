-- Webhooks: endpoints, and one message for each event that an endpoint receives.

-- part: event_messages
-- A message of each event (CTE `event`) for each endpoint that receives it.
(tenant_id, endpoint_id, event_id, type, body)
SELECT
    :tenant_id, w.endpoint_id, e.event_id, e.type,
    jsonb_build_object(
        'type', e.type,
        'timestamp', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        'data', e.data
    )::text
FROM event e
CROSS JOIN webhook_endpoints w
WHERE w.tenant_id = :tenant_id AND w.state = 'active' AND e.type = ANY (w.events)

-- name: lock_tenant
-- Endpoints of one tenant are added one after the other, so that counting them means something.
SELECT FROM tenants WHERE tenant_id = $1 FOR NO KEY UPDATE;

-- name: count_endpoints
SELECT count(*)::int FROM webhook_endpoints w WHERE w.tenant_id = $1 AND w.state <> 'removed';

-- name: insert_endpoint
-- The secret comes after: it is sealed for the endpoint's id.
INSERT INTO webhook_endpoints (tenant_id, url, events, secret, policy) VALUES ($1, $2, $3::text[], '', $4)
RETURNING endpoint_id;

-- name: set_endpoint_secret
-- A new secret; with $4 the one before signs as well for that long.
UPDATE webhook_endpoints w
SET
    secret = $3,
    previous_secret = CASE WHEN $4::interval IS NOT NULL THEN w.secret END,
    previous_until = now() + $4::interval
WHERE w.tenant_id = $1 AND w.endpoint_id = $2 AND w.state <> 'removed'
RETURNING 1;

-- name: list_endpoints
-- All of a tenant's endpoints, or one.
SELECT
    w.endpoint_id, w.url, w.events, w.policy, w.state, w.detail, w.failing_since, w.created_at,
    CASE WHEN w.previous_until > now() THEN w.previous_until END AS previous_until
FROM webhook_endpoints w
WHERE w.tenant_id = $1 AND w.state <> 'removed' AND ($2::int IS NULL OR w.endpoint_id = $2)
ORDER BY w.endpoint_id;

-- name: change_endpoint
-- NULL leaves a column as it is. A state that somebody sets needs no reason, and ends what was held against the endpoint;
-- what is removed keeps no secret.
UPDATE webhook_endpoints w
SET
    url = coalesce($3, w.url), events = coalesce($4::text[], w.events), state = coalesce($5, w.state),
    policy = coalesce($6, w.policy),
    detail = CASE WHEN $5 IS NULL THEN w.detail END,
    failing_since = CASE WHEN $5 IS NULL AND $3 IS NULL THEN w.failing_since END,
    secret = CASE WHEN $5 = 'removed' THEN '' ELSE w.secret END,
    previous_secret = CASE WHEN ($5 = 'removed') IS NOT TRUE THEN w.previous_secret END
WHERE w.tenant_id = $1 AND w.endpoint_id = $2 AND w.state <> 'removed'
RETURNING 1;

-- name: close_messages
-- Some of what waits for an endpoint that receives nothing any more.
UPDATE webhook_messages m
SET
    state = 'failed', finished_at = now(),
    attempts = m.attempts || jsonb_build_object('at', now(), 'status', NULL, 'milliseconds', 0, 'detail', $3::text)
WHERE m.tenant_id = $1 AND m.state = 'pending' AND m.message_id = ANY (ARRAY(
    SELECT d.message_id
    FROM webhook_messages d
    WHERE d.tenant_id = $1 AND d.endpoint_id = $2 AND d.state = 'pending'
        AND (SELECT w.state FROM webhook_endpoints w WHERE w.tenant_id = $1 AND w.endpoint_id = $2) <> 'active'
    LIMIT 1000
    FOR UPDATE SKIP LOCKED
));

-- name: stray_endpoints
-- Endpoints that receive nothing, but for which a message waits: it was written while they were closed.
SELECT w.tenant_id, w.endpoint_id, w.state
FROM webhook_endpoints w
WHERE w.state <> 'active' AND EXISTS (
    SELECT FROM webhook_messages m
    WHERE m.tenant_id = w.tenant_id AND m.endpoint_id = w.endpoint_id AND m.state = 'pending'
);

-- name: insert_test_message
-- No row: there is no such endpoint, or it is disabled.
INSERT INTO webhook_messages (tenant_id, endpoint_id, event_id, type, body)
SELECT
    $1, w.endpoint_id, e.event_id, $3,
    jsonb_build_object(
        'type', $3::text,
        'timestamp', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        'data', jsonb_build_object('endpoint_id', w.endpoint_id)
    )::text
FROM webhook_endpoints w
CROSS JOIN (SELECT gen_random_uuid() AS event_id) e
WHERE w.tenant_id = $1 AND w.endpoint_id = $2 AND w.state = 'active'
RETURNING message_id;

-- part: messages
SELECT
    m.message_id, m.event_id, m.type, m.state, m.attempt, m.attempts, m.body AS payload, m.created_at, m.finished_at,
    CASE WHEN m.state = 'pending' THEN m.next_attempt_at END AS next_attempt_at
FROM webhook_messages m

-- name: list_messages
-- Newest first, before $3.
{{messages}}
WHERE m.tenant_id = $1 AND m.endpoint_id = $2 AND m.message_id < $3
ORDER BY m.message_id DESC
LIMIT $4;

-- name: list_messages_in_state
{{messages}}
WHERE m.tenant_id = $1 AND m.endpoint_id = $2 AND m.state = $5 AND m.message_id < $3
ORDER BY m.message_id DESC
LIMIT $4;

-- name: replay_message
-- One that is pending is on its way already.
UPDATE webhook_messages m
SET state = 'pending', attempt = 0, next_attempt_at = now(), finished_at = NULL
WHERE m.tenant_id = $1 AND m.message_id = $3 AND m.endpoint_id = $2 AND m.state <> 'pending';

-- name: replay_messages
-- Some of those in a state, the oldest first.
UPDATE webhook_messages m
SET state = 'pending', attempt = 0, next_attempt_at = now(), finished_at = NULL
WHERE m.tenant_id = $1 AND m.state = $3 AND m.message_id = ANY (ARRAY(
    SELECT d.message_id
    FROM webhook_messages d
    WHERE d.tenant_id = $1 AND d.endpoint_id = $2 AND d.state = $3
    ORDER BY d.message_id
    LIMIT 1000
    FOR UPDATE SKIP LOCKED
));

-- name: due_endpoints
-- Endpoints with something to be sent now, whichever worker asks: a probe of the index for each, however many messages.
SELECT w.tenant_id, w.endpoint_id
FROM webhook_endpoints w
LEFT JOIN tenants t ON t.tenant_id = w.tenant_id
WHERE w.state = 'active' AND t.disabled_at IS NULL AND EXISTS (
    SELECT FROM webhook_messages m
    WHERE m.tenant_id = w.tenant_id AND m.endpoint_id = w.endpoint_id
        AND m.state = 'pending' AND m.next_attempt_at <= now()
);

-- name: claim_message
-- One due message, for as long as the lease $3, or $4 if the endpoint is to be waited for longer; a worker that dies leaves it to the next. The number of the attempt is
-- what its result will be known by. The job that an event is about says which request it came from. The row is named by a value, not by a join: no plan that was made while the
-- table was empty can then read all of it.
WITH claimed AS (
    UPDATE webhook_messages m
    SET
        attempt = m.attempt + 1,
        next_attempt_at = now() + CASE WHEN w.policy = 'standard' THEN coalesce($4::interval, $3) ELSE $3::interval END
    FROM webhook_endpoints w
    WHERE w.tenant_id = $1 AND w.endpoint_id = $2 AND m.tenant_id = $1 AND m.message_id = (
        SELECT d.message_id
        FROM webhook_messages d
        WHERE d.tenant_id = $1 AND d.endpoint_id = $2 AND d.state = 'pending' AND d.next_attempt_at <= now()
            AND (SELECT e.state FROM webhook_endpoints e WHERE e.tenant_id = $1 AND e.endpoint_id = $2) = 'active'
        ORDER BY d.next_attempt_at
        LIMIT 1
        FOR UPDATE SKIP LOCKED
    )
    RETURNING
        m.tenant_id, m.endpoint_id, m.message_id, m.event_id, m.body, m.attempt, w.url, w.policy, w.secret,
        w.previous_secret, w.previous_until
)
SELECT
    c.tenant_id, c.endpoint_id, c.message_id, c.event_id, c.body, c.attempt, c.url, c.policy, c.secret,
    CASE WHEN c.previous_until > now() THEN c.previous_secret END AS previous_secret,
    j.request_id, j.trace_context
FROM claimed c
LEFT JOIN LATERAL (
    SELECT x.request_id, x.trace_context FROM jobs x
    WHERE x.tenant_id = $1 AND x.job_id = (c.body::jsonb #>> '{data,job_id}')::uuid
    LIMIT 1
) j ON true;

-- name: record_attempt
-- What became of attempt $3; nothing happens if the lease ran out and another began. $4 state  $5 wait  $6 the attempt
-- as JSON  $7 most attempts kept  $8 when  $9 whether it went well  $10 why the endpoint is disabled at once, if it is
-- $11 how long it may fail, NULL: for ever  $12 why it is disabled then. The endpoint is written only when it begins to
-- fail, recovers or is disabled.
WITH recorded AS (
    UPDATE webhook_messages m
    SET
        state = $4,
        attempts = CASE WHEN jsonb_array_length(m.attempts) >= $7::int THEN m.attempts - 0 ELSE m.attempts END
            || $6::text::jsonb,
        next_attempt_at = now() + $5::interval,
        finished_at = now() + CASE WHEN $4 <> 'pending' THEN interval '0 seconds' END
    WHERE m.tenant_id = $1 AND m.message_id = $2 AND m.state = 'pending' AND m.attempt = $3
    RETURNING m.endpoint_id
),
judged AS (
    UPDATE webhook_endpoints w
    SET
        failing_since = CASE WHEN NOT $9::boolean THEN coalesce(w.failing_since, $8::timestamptz) END,
        state = CASE WHEN NOT $9::boolean AND ($10::text IS NOT NULL OR w.failing_since <= $8::timestamptz - $11::interval)
            THEN 'disabled' ELSE w.state END,
        detail = CASE WHEN NOT $9::boolean AND ($10::text IS NOT NULL OR w.failing_since <= $8::timestamptz - $11::interval)
            THEN coalesce($10::text, $12::text) ELSE w.detail END
    FROM recorded r
    WHERE w.tenant_id = $1 AND w.endpoint_id = r.endpoint_id AND w.state = 'active'
        AND CASE WHEN $9::boolean THEN w.failing_since IS NOT NULL
            ELSE w.failing_since IS NULL OR $10::text IS NOT NULL OR w.failing_since <= $8::timestamptz - $11::interval END
    RETURNING w.state
)
SELECT EXISTS (SELECT FROM judged j WHERE j.state = 'disabled') AS disabled FROM recorded;

-- name: notify_disabled
-- Notifies the tenant's other endpoints that one of them receives nothing any more.
WITH event AS MATERIALIZED (
    SELECT
        gen_random_uuid() AS event_id, 'webhook.disabled' AS type,
        jsonb_build_object(
            'endpoint_id', w.endpoint_id, 'url', w.url, 'failing_since', w.failing_since, 'detail', :why::text
        ) AS data
    FROM webhook_endpoints w
    WHERE w.tenant_id = :tenant_id AND w.endpoint_id = :endpoint_id
)
INSERT INTO webhook_messages {{event_messages}};
