-- Tests of destinations: handlers ask for them, workers make them.

-- name: find_destination_to_test
SELECT d.destination_id, d.state FROM destinations d
WHERE d.tenant_id = $1 AND d.name = $2 AND d.state <> 'removed';

-- name: forget_destination_tests
-- A tenant's old ones, whenever it asks for another: nobody has to go round for them.
DELETE FROM destination_tests t
WHERE t.tenant_id = $1 AND t.created_at < now() - interval '1 day';

-- name: insert_destination_test
-- Unless the tenant has $7 under way already.
WITH open AS (
    SELECT count(*) AS count FROM destination_tests t WHERE t.tenant_id = $1 AND t.state <> 'done'
)
INSERT INTO destination_tests (tenant_id, test_id, destination_id, canary, request_id, trace_context)
SELECT $1, $2, $3, $4, $5, $6 FROM open o WHERE o.count < $7::int
RETURNING test_id;

-- name: due_destination_tests
-- Those that nobody makes, and those whose worker is gone.
SELECT t.tenant_id, t.test_id FROM destination_tests t
WHERE t.state = 'queued' OR t.state = 'running' AND t.lease_until < now()
ORDER BY t.created_at
LIMIT 1000;

-- name: claim_destination_test
-- $3 for how long it is ours  $4 after how long nobody waits for it any more. One that another worker left is finished, not
-- made again: nobody knows how far it came.
WITH one AS (
    SELECT t.tenant_id, t.test_id, t.state, t.created_at < now() - $4::interval AS late
    FROM destination_tests t
    WHERE t.tenant_id = $1 AND t.test_id = $2
        AND (t.state = 'queued' OR t.state = 'running' AND t.lease_until < now())
    FOR UPDATE SKIP LOCKED
)
UPDATE destination_tests t
SET state = 'running', lease_until = now() + $3::interval
FROM one o
WHERE t.tenant_id = $1 AND t.test_id = $2
RETURNING t.destination_id, t.canary, t.request_id, t.trace_context, o.state = 'running' AS left, o.late;

-- name: finish_destination_test
-- $3 steps
UPDATE destination_tests t
SET state = 'done', finished_at = now(), lease_until = NULL, steps = $3::text::jsonb
WHERE t.tenant_id = $1 AND t.test_id = $2 AND t.state = 'running';

-- name: withdraw_destination_test
-- Only while nobody makes it.
DELETE FROM destination_tests t WHERE t.tenant_id = $1 AND t.test_id = $2 AND t.state = 'queued'
RETURNING t.test_id;

-- name: read_destination_test
SELECT t.test_id, d.name AS destination, t.canary, t.state, t.created_at, t.finished_at, t.steps::text AS steps
FROM destination_tests t
JOIN destinations d ON d.tenant_id = $1 AND d.destination_id = t.destination_id
WHERE t.tenant_id = $1 AND t.test_id = $2 AND d.name = $3 AND d.state <> 'removed';
