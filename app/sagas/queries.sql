-- Sagas. Whoever does a step holds the saga's row locked until the transaction of that step ends, so a worker that dies
-- leaves nothing to be taken back: the lock goes with its connection.

-- name: insert_saga
-- $6 data. No row: there is one of this workflow for this subject already.
INSERT INTO sagas (tenant_id, saga_id, workflow, subject, state, actor, data)
VALUES ($1, $2, $3, $4, 'running', $5, $6::text::jsonb)
ON CONFLICT (tenant_id, workflow, subject) DO NOTHING
RETURNING saga_id;

-- name: due_sagas
-- Sagas that have something to be done now, whichever worker asks: some of each tenant, so that one with ten thousand of
-- them hides nobody. One pass over the index of those that are open, then a probe of it for each tenant.
SELECT d.tenant_id, d.saga_id
FROM (SELECT DISTINCT s.tenant_id FROM sagas s WHERE s.finished_at IS NULL) b
JOIN tenants t ON t.tenant_id = b.tenant_id
CROSS JOIN LATERAL (
    SELECT s.tenant_id, s.saga_id FROM sagas s
    WHERE s.tenant_id = b.tenant_id AND s.finished_at IS NULL AND s.due_at <= now()
    ORDER BY s.due_at LIMIT 100
) d
WHERE t.disabled_at IS NULL;

-- name: claim_saga
-- No row: it is at its end, not due, or in other hands.
SELECT
    s.saga_id, s.workflow, s.subject, s.state, s.step, s.data, s.attempts, s.error, s.actor,
    extract(epoch FROM now() - s.created_at)::float8 AS age
FROM sagas s
WHERE s.tenant_id = $1 AND s.saga_id = $2 AND s.finished_at IS NULL AND s.due_at <= now()
FOR UPDATE SKIP LOCKED;

-- name: move_saga
-- $5 data  $7 wait  $8 error  $9 it is at its end
UPDATE sagas
SET
    state = $3, step = $4, data = $5::text::jsonb, attempts = $6, due_at = now() + $7::interval, error = $8,
    finished_at = now() + CASE WHEN $9 THEN interval '0 seconds' END
WHERE tenant_id = $1 AND saga_id = $2;

-- name: failed_sagas
-- Those that failed for good and wait for an operator, the oldest first ($2: at most). What they did not reach: items of an
-- undo that are not decided; items of an import that were refused, are still open, and come before those looked at.
SELECT
    s.saga_id AS id, s.workflow, s.subject AS job_id, s.error AS detail, s.actor, s.created_at, s.finished_at AS failed_at,
    CASE s.workflow WHEN 'undo' THEN s.subject WHEN 'consistency' THEN (s.data ->> 'job')::uuid END AS undo_job_id,
    coalesce((t.tally ->> 'restored')::int, 0) AS restored,
    coalesce((t.tally ->> 'unchanged')::int, 0) AS unchanged,
    coalesce((t.tally ->> 'conflicts')::int, 0) AS conflicts,
    CASE s.workflow
        WHEN 'undo' THEN (
            SELECT j.items - j.total FROM jobs j WHERE j.tenant_id = s.tenant_id AND j.job_id = s.subject
        )
        WHEN 'consistency' THEN (
            SELECT count(DISTINCT l.item_index)::int
            FROM deliveries d
            JOIN dead_letters l ON l.tenant_id = s.tenant_id AND l.delivery_id = d.delivery_id
            WHERE d.tenant_id = s.tenant_id AND d.job_id = s.subject AND d.failures <> '{}'
                AND l.item_index < coalesce((t.tally ->> 'before')::int, 2147483647)
                AND (
                    l.resolution IS NULL
                    OR EXISTS (
                        SELECT FROM dead_letters x
                        WHERE x.tenant_id = s.tenant_id AND x.chain_id = l.dead_letter_id AND x.resolution IS NULL
                    )
                )
        )
    END AS not_reached
FROM sagas s
CROSS JOIN LATERAL (SELECT CASE s.workflow WHEN 'consistency' THEN s.data -> 'tally' ELSE s.data END AS tally) t
WHERE s.tenant_id = $1 AND s.state = 'failed' AND s.dropped_at IS NULL
ORDER BY s.finished_at
LIMIT $2;

-- name: saga_data
SELECT s.data FROM sagas s WHERE s.tenant_id = $1 AND s.workflow = $2 AND s.subject = $3;

-- name: retry_saga
-- It goes on where it failed: with undoing that step. No row: there is no such saga that waits for an operator.
UPDATE sagas s
SET state = 'compensating', attempts = 0, due_at = now(), finished_at = NULL
WHERE s.tenant_id = $1 AND s.saga_id = $2 AND s.state = 'failed' AND s.dropped_at IS NULL
RETURNING s.saga_id;

-- name: drop_saga
-- It stays as it is. The job that it was about, unless it made one of its own.
UPDATE sagas s
SET dropped_at = now()
WHERE s.tenant_id = $1 AND s.saga_id = $2 AND s.state = 'failed' AND s.dropped_at IS NULL
RETURNING coalesce((s.data ->> 'job')::uuid, s.subject) AS job_id;
