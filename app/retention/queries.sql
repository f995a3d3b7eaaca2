-- Rows past their time: whose they are, and their removal. What is found is removed by the same conditions.

-- part: past_answers
k.expires_at < now() AND k.answer IS NOT NULL

-- part: past_keys
-- One under which a body is still arriving is as old as its first chunk, and gets its time anew with the answer.
k.expires_at < now() - :memory::interval AND k.answer IS NULL
    AND (k.fingerprint IS NOT NULL OR k.answering_until < now())

-- part: past_outcomes
-- Of finished jobs of which nothing is under way any more.
j.finished_at < now() - :outcomes::interval AND j.trimmed_at IS NULL
    AND NOT EXISTS (
        SELECT FROM deliveries d WHERE d.tenant_id = j.tenant_id AND d.job_id = j.job_id AND d.state <> 'done'
    )

-- part: past_messages
m.finished_at < now() - :messages::interval

-- part: past_circuits
c.at < now() - :circuits::interval

-- part: found
-- At most so many entries of an index: a backlog is found again until it is gone.
LIMIT 100000) x GROUP BY x.tenant_id

-- name: find_past
-- What of which of these tenants is past its time: of each kind one probe of an index a tenant, whatever they have.
SELECT 'answers' AS kind, x.tenant_id FROM (
    SELECT k.tenant_id FROM idempotency_keys k WHERE k.tenant_id = ANY (:tenant_ids::int[]) AND {{past_answers}} {{found}}
UNION ALL
SELECT 'keys', x.tenant_id FROM (
    SELECT k.tenant_id FROM idempotency_keys k WHERE k.tenant_id = ANY (:tenant_ids) AND {{past_keys}} {{found}}
UNION ALL
SELECT 'staged', x.tenant_id FROM (
    SELECT s.tenant_id FROM staged_chunks s WHERE s.tenant_id = ANY (:tenant_ids)
    UNION ALL
    SELECT r.tenant_id FROM staged_repeats r WHERE r.tenant_id = ANY (:tenant_ids)
) x GROUP BY x.tenant_id
UNION ALL
SELECT 'outcomes', x.tenant_id FROM (
    SELECT j.tenant_id FROM jobs j WHERE j.tenant_id = ANY (:tenant_ids) AND {{past_outcomes}} {{found}}
UNION ALL
SELECT 'messages', x.tenant_id FROM (
    SELECT m.tenant_id FROM webhook_messages m WHERE m.tenant_id = ANY (:tenant_ids) AND {{past_messages}} {{found}}
UNION ALL
SELECT 'circuits', x.tenant_id FROM (
    SELECT c.tenant_id FROM circuit_changes c WHERE c.tenant_id = ANY (:tenant_ids) AND {{past_circuits}} {{found}};

-- name: expire_answers
-- The key stays, and is refused until `forget_keys`.
UPDATE idempotency_keys
SET answer = NULL
WHERE tenant_id = :tenant_id AND ctid = ANY (ARRAY(
    SELECT k.ctid FROM idempotency_keys k
    WHERE k.tenant_id = :tenant_id AND {{past_answers}}
    ORDER BY k.expires_at LIMIT 1000
    FOR UPDATE SKIP LOCKED
));

-- name: forget_keys
DELETE FROM idempotency_keys
WHERE tenant_id = :tenant_id AND ctid = ANY (ARRAY(
    SELECT k.ctid FROM idempotency_keys k
    WHERE k.tenant_id = :tenant_id AND {{past_keys}}
    ORDER BY k.expires_at LIMIT 1000
    FOR UPDATE SKIP LOCKED
));

-- name: past_jobs
-- Those whose outcomes are past their time, the oldest first.
SELECT j.job_id
FROM jobs j
WHERE j.tenant_id = :tenant_id AND {{past_outcomes}}
ORDER BY j.finished_at
LIMIT 1000;

-- name: trim_outcomes
DELETE FROM job_chunks
WHERE tenant_id = $1 AND ctid = ANY (ARRAY(
    SELECT c.ctid FROM job_chunks c WHERE c.tenant_id = $1 AND c.job_id = ANY ($2::uuid[])
    LIMIT 1000
    FOR UPDATE SKIP LOCKED
));

-- name: trim_deliveries
-- With the evidence of their calls, unless a dead letter needs it.
WITH gone AS MATERIALIZED (
    SELECT d.delivery_id FROM deliveries d WHERE d.tenant_id = $1 AND d.job_id = ANY ($2::uuid[])
    LIMIT 1000
    FOR UPDATE SKIP LOCKED
),
forgotten AS (
    DELETE FROM delivery_calls
    WHERE tenant_id = $1 AND delivery_id = ANY (ARRAY(
        SELECT g.delivery_id FROM gone g
        WHERE (
            SELECT l.dead_letter_id FROM dead_letters l
            WHERE l.tenant_id = $1 AND l.delivery_id = g.delivery_id LIMIT 1
        ) IS NULL
    ))
)
DELETE FROM deliveries
WHERE tenant_id = $1 AND delivery_id = ANY (ARRAY(SELECT g.delivery_id FROM gone g));

-- name: mark_trimmed
UPDATE jobs j
SET trimmed_at = now(), revision = j.revision + 1
WHERE j.tenant_id = $1 AND j.job_id = ANY ($2::uuid[])
    AND NOT EXISTS (SELECT FROM job_chunks c WHERE c.tenant_id = $1 AND c.job_id = j.job_id)
    AND NOT EXISTS (SELECT FROM deliveries d WHERE d.tenant_id = $1 AND d.job_id = j.job_id);

-- name: forget_messages
DELETE FROM webhook_messages
WHERE tenant_id = :tenant_id AND ctid = ANY (ARRAY(
    SELECT m.ctid FROM webhook_messages m
    WHERE m.tenant_id = :tenant_id AND {{past_messages}}
    LIMIT 1000
    FOR UPDATE SKIP LOCKED
));

-- name: forget_circuit_changes
DELETE FROM circuit_changes
WHERE tenant_id = :tenant_id AND ctid = ANY (ARRAY(
    SELECT c.ctid FROM circuit_changes c
    WHERE c.tenant_id = :tenant_id AND {{past_circuits}}
    ORDER BY c.at LIMIT 1000
    FOR UPDATE SKIP LOCKED
));
