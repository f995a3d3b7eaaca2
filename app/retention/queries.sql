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

-- part: past_versions
-- Chunks whose versions are all past their time, so those before them are superseded for so long; and not yet removed.
v.changed_at < now() - :history::interval AND v.prev_job_ids IS NOT NULL

-- part: and_ended
AND NOT EXISTS (
        SELECT FROM jobs j WHERE j.tenant_id = v.tenant_id AND j.job_id = v.job_id AND j.finished_at IS NULL
    )

-- part: past_jobs_alone
-- Of which nothing is left but the row: the newest versions of records name their jobs for ever.
j.finished_at < now() - :jobs::interval AND j.bare

-- part: and_unnamed
-- By a job that it began, or a dead letter; few are, for such go first.
AND NOT EXISTS (
        SELECT FROM jobs r
        WHERE r.tenant_id = j.tenant_id AND r.root_job_id = j.job_id AND r.root_job_id <> r.job_id
    )
    AND NOT EXISTS (SELECT FROM jobs u WHERE u.tenant_id = j.tenant_id AND u.undo_of = j.job_id)
    AND NOT EXISTS (SELECT FROM dead_letters l WHERE l.tenant_id = j.tenant_id AND l.root_job_id = j.root_job_id)

-- part: past_dead_letters
l.resolved_at < now() - :dead_letters::interval

-- part: and_unshown
-- The items of its job are not shown any more.
AND NOT EXISTS (
        SELECT FROM jobs j WHERE j.tenant_id = l.tenant_id AND j.job_id = l.root_job_id AND j.trimmed_at IS NULL
    )

-- part: past_audit
a.at < now() - :audit::interval

-- part: lost_syncs
-- What a destination held that was removed. A dead letter still says by it whether it was delivered.
d.state = 'removed'
    AND NOT EXISTS (
        SELECT FROM deliveries o
        WHERE o.tenant_id = d.tenant_id AND o.destination_id = d.destination_id AND o.state = 'pending'
    )
    AND NOT EXISTS (
        SELECT FROM deliveries o
        WHERE o.tenant_id = d.tenant_id AND o.destination_id = d.destination_id AND o.state = 'sending'
    )
    AND NOT EXISTS (
        SELECT FROM dead_letters l
        WHERE l.tenant_id = s.tenant_id AND l.type_id = s.type_id AND l.record_id = s.record_id
            AND l.destination_id = s.destination_id
    )

-- part: past_images
-- What was there before is restored by an undo of the job that overwrote it, which needs the versions before.
s.adopted_at < now() - :history::interval AND s.before_image IS NOT NULL

-- part: found
-- At most so many entries of an index: a backlog is found again until it is gone.
LIMIT 100000) x GROUP BY x.tenant_id

-- name: find_past
-- What of which of these tenants is past its time: of each kind one probe of an index a tenant, whatever they have. Some
-- of it may have to wait for something else, which its removal finds out.
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
    SELECT c.tenant_id FROM circuit_changes c WHERE c.tenant_id = ANY (:tenant_ids) AND {{past_circuits}} {{found}}
UNION ALL
SELECT 'history', x.tenant_id FROM (
    SELECT v.tenant_id FROM record_versions v WHERE v.tenant_id = ANY (:tenant_ids) AND {{past_versions}} {{found}}
UNION ALL
SELECT 'jobs', x.tenant_id FROM (
    SELECT j.tenant_id FROM jobs j WHERE j.tenant_id = ANY (:tenant_ids) AND {{past_jobs_alone}} {{found}}
UNION ALL
SELECT 'dead_letters', x.tenant_id FROM (
    SELECT l.tenant_id FROM dead_letters l WHERE l.tenant_id = ANY (:tenant_ids) AND {{past_dead_letters}} {{found}}
UNION ALL
SELECT 'audit', x.tenant_id FROM (
    SELECT a.tenant_id FROM audit_log a WHERE a.tenant_id = ANY (:tenant_ids) AND {{past_audit}} {{found}}
UNION ALL
SELECT 'syncs', x.tenant_id FROM (
    SELECT d.tenant_id
    FROM destinations d
    JOIN record_syncs s ON s.tenant_id = d.tenant_id AND s.destination_id = d.destination_id
    WHERE d.tenant_id = ANY (:tenant_ids) AND {{lost_syncs}} {{found}}
UNION ALL
SELECT 'images', x.tenant_id FROM (
    SELECT s.tenant_id FROM record_syncs s WHERE s.tenant_id = ANY (:tenant_ids) AND {{past_images}} {{found}};

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
SET
    trimmed_at = now(), revision = j.revision + 1,
    bare = NOT EXISTS (SELECT FROM record_versions v WHERE v.tenant_id = $1 AND v.job_id = j.job_id)
WHERE j.tenant_id = $1 AND j.job_id = ANY ($2::uuid[])
    AND NOT EXISTS (SELECT FROM job_chunks c WHERE c.tenant_id = $1 AND c.job_id = j.job_id)
    AND NOT EXISTS (SELECT FROM deliveries d WHERE d.tenant_id = $1 AND d.job_id = j.job_id);

-- name: past_chunks
-- The oldest chunks whose versions before are past their time, for this transaction alone.
SELECT v.job_id, v.first_index, v.prev_job_ids, v.prev_item_indexes
FROM record_versions v
WHERE v.tenant_id = :tenant_id AND {{past_versions}} {{and_ended}}
ORDER BY v.changed_at
LIMIT 100
FOR UPDATE OF v SKIP LOCKED;

-- name: forget_jobs
-- With their effects and sagas.
WITH gone AS MATERIALIZED (
    SELECT j.job_id FROM jobs j
    WHERE j.tenant_id = :tenant_id AND {{past_jobs_alone}} {{and_unnamed}}
    ORDER BY j.finished_at LIMIT 1000
    FOR UPDATE OF j SKIP LOCKED
),
effect AS (
    DELETE FROM effects WHERE tenant_id = :tenant_id AND job_id = ANY (ARRAY(SELECT g.job_id FROM gone g))
),
saga AS (
    DELETE FROM sagas
    WHERE tenant_id = :tenant_id AND workflow IN ('undo', 'consistency') AND finished_at IS NOT NULL
        AND subject = ANY (ARRAY(SELECT g.job_id FROM gone g))
)
DELETE FROM jobs WHERE tenant_id = :tenant_id AND job_id = ANY (ARRAY(SELECT g.job_id FROM gone g));

-- name: forget_dead_letters
-- With the evidence of their calls, where their deliveries are gone; their jobs know of it.
WITH gone AS MATERIALIZED (
    SELECT l.dead_letter_id, l.delivery_id, l.root_job_id FROM dead_letters l
    WHERE l.tenant_id = :tenant_id AND {{past_dead_letters}} {{and_unshown}}
    ORDER BY l.resolved_at LIMIT 1000
    FOR UPDATE OF l SKIP LOCKED
),
evidence AS (
    DELETE FROM delivery_calls
    WHERE tenant_id = :tenant_id AND delivery_id = ANY (ARRAY(
        SELECT g.delivery_id FROM gone g
        WHERE NOT EXISTS (SELECT FROM deliveries d WHERE d.tenant_id = :tenant_id AND d.delivery_id = g.delivery_id)
            AND NOT EXISTS (
                SELECT FROM dead_letters o
                WHERE o.tenant_id = :tenant_id AND o.delivery_id = g.delivery_id
                    AND o.dead_letter_id NOT IN (SELECT x.dead_letter_id FROM gone x)
            )
    ))
),
known AS (
    UPDATE jobs SET dead_letters_trimmed = true, revision = revision + 1
    WHERE tenant_id = :tenant_id AND NOT dead_letters_trimmed AND (
        job_id = ANY (ARRAY(SELECT g.root_job_id FROM gone g))
        OR root_job_id = ANY (ARRAY(SELECT g.root_job_id FROM gone g)) AND root_job_id <> job_id
    )
)
DELETE FROM dead_letters
WHERE tenant_id = :tenant_id AND dead_letter_id = ANY (ARRAY(SELECT g.dead_letter_id FROM gone g));

-- name: forget_audit
DELETE FROM audit_log
WHERE tenant_id = :tenant_id AND ctid = ANY (ARRAY(
    SELECT a.ctid FROM audit_log a
    WHERE a.tenant_id = :tenant_id AND {{past_audit}}
    ORDER BY a.at LIMIT 1000
    FOR UPDATE SKIP LOCKED
));

-- name: forget_syncs
DELETE FROM record_syncs
WHERE tenant_id = :tenant_id AND ctid = ANY (ARRAY(
    SELECT s.ctid
    FROM destinations d
    JOIN record_syncs s ON s.tenant_id = :tenant_id AND s.destination_id = d.destination_id
    WHERE d.tenant_id = :tenant_id AND {{lost_syncs}}
    LIMIT 1000
    FOR UPDATE OF s SKIP LOCKED
));

-- name: forget_images
UPDATE record_syncs
SET before_image = NULL
WHERE tenant_id = :tenant_id AND ctid = ANY (ARRAY(
    SELECT s.ctid FROM record_syncs s
    WHERE s.tenant_id = :tenant_id AND {{past_images}}
    ORDER BY s.adopted_at LIMIT 1000
    FOR UPDATE SKIP LOCKED
));

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
