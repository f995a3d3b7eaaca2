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
)
SELECT 'jobs' AS figure, j.state AS label, count(*)::float8 AS value
FROM jobs j
WHERE j.state IN ('receiving', 'queued', 'running') AND j.tenant_id = ANY ($1::int[])
GROUP BY j.state
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
SELECT 'dead_letters', l.error_code, count(*)
FROM dead_letters l
WHERE l.resolution IS NULL AND l.tenant_id = ANY ($1::int[])
GROUP BY l.error_code
UNION ALL
SELECT 'sagas', 'unfinished', count(*)
FROM sagas s
WHERE s.finished_at IS NULL AND s.tenant_id = ANY ($1::int[])
UNION ALL
SELECT 'destinations', b.label, count(*)
FROM (
    SELECT CASE WHEN d.state = 'active' AND d.blocked_until > now() THEN 'blocked' ELSE d.state END AS label
    FROM destinations d
    WHERE d.state <> 'removed' AND d.tenant_id = ANY ($1::int[])
) b
GROUP BY b.label
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
