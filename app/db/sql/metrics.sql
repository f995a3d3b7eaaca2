-- Figures for /metrics, of one tenant or ($1 NULL) of all together.

-- name: read_figures
-- Only what is open is counted, by the partial indexes of what is open: the cost is that of the backlog, not of the history.
WITH open AS MATERIALIZED (
    SELECT
        d.tenant_id, d.job_id, d.state, d.created_at, d.state = 'pending' AND d.next_attempt_at <= now() AS due,
        letters(d.states, 'p') AS pending, letters(d.states, 'r') AS retry, letters(d.states, 'u') AS unknown
    FROM deliveries d
    WHERE d.state <> 'done' AND ($1::int IS NULL OR d.tenant_id = $1)
)
SELECT 'jobs' AS figure, j.state AS label, count(*)::float8 AS value
FROM jobs j
WHERE j.state IN ('receiving', 'queued', 'running') AND ($1::int IS NULL OR j.tenant_id = $1)
GROUP BY j.state
UNION ALL
SELECT 'jobs', 'syncing', count(DISTINCT (o.tenant_id, o.job_id)) FROM open o
UNION ALL
SELECT 'deliveries', o.state, count(*) FROM open o GROUP BY o.state
UNION ALL
SELECT 'deliveries_due', '', count(*) FILTER (WHERE o.due) FROM open o
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
    coalesce(extract(epoch FROM now() - min(o.created_at) FILTER (WHERE o.unknown > 0)), 0)
FROM open o
UNION ALL
SELECT 'dead_letters', l.error_code, count(*)
FROM dead_letters l
WHERE l.resolution IS NULL AND ($1::int IS NULL OR l.tenant_id = $1)
GROUP BY l.error_code
UNION ALL
SELECT 'sagas', 'unfinished', count(*)
FROM sagas s
WHERE s.finished_at IS NULL AND ($1::int IS NULL OR s.tenant_id = $1)
UNION ALL
SELECT 'destinations', b.label, count(*)
FROM (
    SELECT CASE WHEN d.state = 'active' AND d.blocked_until > now() THEN 'blocked' ELSE d.state END AS label
    FROM destinations d
    WHERE d.state <> 'removed' AND ($1::int IS NULL OR d.tenant_id = $1)
) b
GROUP BY b.label
UNION ALL
SELECT 'webhook_endpoints', w.state, count(*)
FROM webhook_endpoints w
WHERE w.state <> 'removed' AND ($1::int IS NULL OR w.tenant_id = $1)
GROUP BY w.state
UNION ALL
SELECT 'webhook_messages', s.state, sum(m.count)
FROM webhook_endpoints w
CROSS JOIN (VALUES ('pending'), ('failed'), ('dead')) AS s(state)
CROSS JOIN LATERAL (
    SELECT count(*) FROM webhook_messages x
    WHERE x.tenant_id = w.tenant_id AND x.endpoint_id = w.endpoint_id AND x.state = s.state
) m
WHERE w.state <> 'removed' AND ($1::int IS NULL OR w.tenant_id = $1)
GROUP BY s.state;
