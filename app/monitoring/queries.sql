-- Figures for /metrics, of these tenants ($1) together.

-- name: read_stats
-- Only what is open is counted, by the partial indexes of what is open: the cost is that of the backlog, not of the history.
WITH open AS MATERIALIZED (
    SELECT
        d.tenant_id, d.destination_id, d.state, d.created_at, coalesce(d.unknown_since, d.created_at) AS unknown_since,
        d.state = 'pending' AND d.next_attempt_at <= now() AS due,
        count_state(d.states, 'p') AS pending, count_state(d.states, 'r') AS retry, count_state(d.states, 'u') AS unknown
    FROM deliveries d
    WHERE d.state <> 'done' AND d.tenant_id = ANY ($1::int[])
),
dead AS MATERIALIZED (
    SELECT l.error_code, count(*) AS count, extract(epoch FROM now() - min(l.created_at)) AS seconds
    FROM dead_letters l
    WHERE l.resolution IS NULL AND l.tenant_id = ANY ($1::int[])
    GROUP BY l.error_code
),
unfinished AS MATERIALIZED (
    SELECT j.state, count(*) AS count, sum(j.bytes) AS bytes
    FROM jobs j
    WHERE j.state IN ('receiving', 'queued', 'running') AND j.tenant_id = ANY ($1::int[])
    GROUP BY j.state
)
SELECT 'jobs' AS figure, j.state AS label, j.count::float8 AS value FROM unfinished j
UNION ALL
SELECT 'staged_bytes', '', coalesce(sum(j.bytes), 0) FROM unfinished j
UNION ALL
SELECT 'jobs', 'syncing', count(*)
FROM (
    SELECT DISTINCT d.tenant_id, d.job_id FROM deliveries d WHERE d.state <> 'done' AND d.tenant_id = ANY ($1::int[])
) o
CROSS JOIN LATERAL (
    SELECT FROM jobs j
    WHERE j.tenant_id = o.tenant_id AND j.job_id = o.job_id AND (j.state = 'syncing') IS TRUE
    LIMIT 1
) j
UNION ALL
SELECT 'deliveries', o.state, count(*) FROM open o GROUP BY o.state
UNION ALL
SELECT 'deliveries_due', '', count(*)
FROM open o
JOIN destinations d ON d.tenant_id = o.tenant_id AND d.destination_id = o.destination_id
WHERE o.due AND (d.state = 'removed' OR d.state = 'active' AND (d.blocked_until > now()) IS NOT TRUE)
UNION ALL
SELECT 'delivery_oldest_seconds', '', coalesce(extract(epoch FROM now() - min(o.created_at)), 0) FROM open o
UNION ALL
SELECT 'effects', e.label, e.value
FROM (SELECT sum(o.pending) AS p, sum(o.retry) AS r, sum(o.unknown) AS u FROM open o) s
CROSS JOIN LATERAL (VALUES
    ('pending', coalesce(s.p, 0)), ('retry', coalesce(s.r, 0)), ('unknown', coalesce(s.u, 0))
) AS e(label, value)
UNION ALL
SELECT
    'unknown_oldest_seconds', '',
    coalesce(extract(epoch FROM now() - min(o.unknown_since) FILTER (WHERE o.unknown > 0)), 0)
FROM open o
UNION ALL
SELECT 'dead_letters', l.error_code, l.count FROM dead l
UNION ALL
SELECT 'dead_letter_oldest_seconds', l.error_code, l.seconds FROM dead l
UNION ALL
SELECT 'sagas', 'unfinished', count(*)
FROM sagas s
WHERE s.finished_at IS NULL AND s.tenant_id = ANY ($1::int[])
UNION ALL
SELECT 'sagas_failed', s.workflow, count(*)
FROM sagas s
WHERE s.state = 'failed' AND s.dropped_at IS NULL AND s.tenant_id = ANY ($1::int[])
GROUP BY s.workflow
UNION ALL
SELECT 'destinations', b.label, count(*)
FROM (
    SELECT CASE WHEN d.state = 'active' AND d.blocked_until > now() THEN 'blocked' ELSE d.state END AS label
    FROM destinations d
    WHERE d.state <> 'removed' AND d.tenant_id = ANY ($1::int[])
) b
GROUP BY b.label
UNION ALL
SELECT 'circuits_open', d.kind, count(*)
FROM destinations d
WHERE d.state = 'active' AND d.blocked_until > now() AND d.blocked_code = 'CIRCUIT_OPEN' AND d.tenant_id = ANY ($1::int[])
GROUP BY d.kind
UNION ALL
SELECT 'webhook_endpoints', w.state, count(*)
FROM webhook_endpoints w
WHERE w.state <> 'removed' AND w.tenant_id = ANY ($1::int[])
GROUP BY w.state
UNION ALL
SELECT 'webhook_messages', m.state, sum(m.count)
FROM webhook_endpoints w
CROSS JOIN LATERAL (
    SELECT x.state, count(*) FROM webhook_messages x
    WHERE x.tenant_id = w.tenant_id AND x.endpoint_id = w.endpoint_id AND x.state IN ('pending', 'failed', 'dead')
    GROUP BY x.state
) m
WHERE w.state <> 'removed' AND w.tenant_id = ANY ($1::int[])
GROUP BY m.state;

-- name: read_server_stats
-- What keeps VACUUM from its work. Of other roles' sessions only a member of pg_read_all_stats sees anything.
SELECT
    coalesce(
        (
            SELECT max(extract(epoch FROM now() - a.xact_start)) FROM pg_stat_activity a
            WHERE a.datname = current_database() AND a.backend_type = 'client backend'
        ), 0
    )::float8 AS longest_transaction_seconds,
    greatest(
        (SELECT max(age(a.backend_xmin)) FROM pg_stat_activity a),
        (SELECT max(greatest(age(s.xmin), age(s.catalog_xmin))) FROM pg_replication_slots s),
        (SELECT max(age(p.transaction)) FROM pg_prepared_xacts p),
        0
    )::float8 AS oldest_xmin_age;

-- name: read_queue
-- Seconds for which the delivery that is due for longest has been so, at a destination that can be sent to. A probe of an
-- index for each of these, as each worker makes them when it sweeps.
SELECT coalesce(max(extract(epoch FROM now() - greatest(x.next_attempt_at, d.blocked_until))), 0)::float8 AS seconds
FROM destinations d
JOIN tenants t ON t.tenant_id = d.tenant_id AND t.disabled_at IS NULL
CROSS JOIN LATERAL (
    SELECT y.next_attempt_at FROM deliveries y
    WHERE y.tenant_id = d.tenant_id AND y.destination_id = d.destination_id AND y.state = 'pending'
        AND y.next_attempt_at <= now()
    ORDER BY y.next_attempt_at
    LIMIT 1
) x
WHERE d.state = 'removed' OR d.state = 'active' AND (d.blocked_until IS NULL OR d.blocked_until <= now());

-- name: read_health
-- Every destination of one tenant ($1), or of all of them (NULL), for the health check.
SELECT
    t.name AS tenant, d.name, d.kind, d.state, d.blocked_code, d.blocked_detail,
    greatest(extract(epoch FROM d.blocked_until - now()), 0)::float8 AS blocked_for,
    coalesce(u.count, 0)::int AS unknown, coalesce(u.seconds, 0)::int AS unknown_for
FROM destinations d
JOIN tenants t ON t.tenant_id = d.tenant_id
{{unknown_items}}
WHERE d.state <> 'removed' AND ($1::int IS NULL OR d.tenant_id = $1)
ORDER BY t.name, d.name;
