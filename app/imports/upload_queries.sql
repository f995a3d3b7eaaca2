-- Bodies that arrive piece by piece. A job is in the state `receiving` from its first chunk to its last, and whoever
-- receives it says so again and again (receiving_until). All lock the job's row before its key's.

-- name: begin_receiving
-- The job of a body whose first chunk is there, and its key, which has no answer yet.
WITH job AS (
    INSERT INTO jobs (
        tenant_id, job_id, kind, type, state, root_job_id, request_id, trace_context, key_id, options,
        total, succeeded, failed, retry, receiving_until
    )
    VALUES (
        :tenant_id, :job_id, 'import', :type, 'receiving', :job_id, :request_id, :trace_context, :key_id, :options::text::jsonb,
        0, 0, 0, 0, now() + :lease::interval
    )
)
INSERT INTO idempotency_keys (tenant_id, route, key, job_id, expires_at, answering_until)
VALUES (:tenant_id, :route, :key, :job_id, now() + :retention::interval, now() + :lease::interval);

-- name: renew_receiving
-- The body is still arriving; no row: the job is no longer being received. Nobody waits for the disk: a crash that
-- forgets this has lost the body as well.
WITH job AS (
    UPDATE jobs
    SET bytes = :size, receiving_until = now() + :lease::interval, revision = revision + 1
    WHERE tenant_id = :tenant_id AND job_id = :job_id AND state = 'receiving'
    RETURNING job_id
),
key AS (
    UPDATE idempotency_keys k
    SET answering_until = now() + :lease::interval
    FROM job j
    WHERE k.tenant_id = :tenant_id AND k.route = :route AND k.key = :key AND k.job_id = j.job_id
)
SELECT set_config('synchronous_commit', 'off', true) FROM job;

-- name: stage_chunk
-- Items with their ids as a column (app.kit.postgres.column_codec); NULL: none has one.
INSERT INTO staged_chunks (tenant_id, job_id, first_index, item_count, step, id_hashes, rows)
SELECT
    :tenant_id, :job_id, :first_index, :item_count, 'apply',
    CASE
        WHEN :ids::text IS NULL THEN array_fill(NULL::bigint, ARRAY[:item_count::int])
        ELSE ARRAY(
            SELECT hashtextextended(i.id COLLATE "C", 0)
            FROM unnest(split_column(:ids, :separator, :null)) WITH ORDINALITY AS i(id, place)
            ORDER BY i.place
        )
    END,
    :rows;

-- name: finish_receiving
-- The body is there: the job may be processed, and its key has its answer. No row: it is no longer being received, or
-- PostgreSQL crashed meanwhile and has forgotten a chunk.
WITH job AS (
    UPDATE jobs
    SET
        state = 'queued', step = :step, items = :items, bytes = :size, form = :form::text::jsonb, receiving_until = NULL,
        revision = revision + 1
    WHERE tenant_id = :tenant_id AND job_id = :job_id AND state = 'receiving' AND :items::int = (
        SELECT coalesce(sum(s.item_count), 0) FROM staged_chunks s WHERE s.tenant_id = :tenant_id AND s.job_id = :job_id
    )
    RETURNING job_id
)
UPDATE idempotency_keys k
SET fingerprint = :fingerprint, status = 202, answer = :answer, answering_until = NULL, expires_at = now() + :retention::interval
FROM job j
WHERE k.tenant_id = :tenant_id AND k.route = :route AND k.key = :key AND k.job_id = j.job_id
RETURNING 1;

-- name: end_receiving
-- Nothing of this body is going to be applied: the job's last state, and why. Only if it is still being received and, with
-- `silent`, if whoever receives it fell silent.
WITH ended AS (
    UPDATE jobs j
    SET
        state = :state, error = :error::text::jsonb, finished_at = now(), receiving_until = NULL, revision = j.revision + 1
    WHERE j.tenant_id = :tenant_id AND j.job_id = :job_id AND j.state = 'receiving'
        AND (NOT :silent::boolean OR j.receiving_until <= now())
    RETURNING {{ended_job}}
),
{{finished_event}}
INSERT INTO webhook_messages {{event_messages}};

-- name: read_receiving
-- The state of the job, and why.
SELECT j.state, j.error ->> 'code' AS code FROM jobs j WHERE j.tenant_id = $1 AND j.job_id = $2;

-- name: free_key
-- A key under which nothing was answered.
DELETE FROM idempotency_keys
WHERE tenant_id = $1 AND route = $2 AND key = $3 AND job_id = $4 AND fingerprint IS NULL;

-- name: stale_receiving
-- Bodies whose API process fell silent. Their keys are free by that (claim_key), and forgotten in their time.
SELECT j.job_id FROM jobs j
WHERE j.tenant_id = $1 AND j.state = 'receiving' AND j.receiving_until <= now()
ORDER BY j.job_id LIMIT $2
FOR UPDATE SKIP LOCKED;

-- name: read_staging
-- What the tenant has sent that is not processed yet.
SELECT count(*)::int AS jobs, coalesce(sum(j.bytes), 0)::bigint AS bytes
FROM jobs j
WHERE j.tenant_id = $1 AND j.state IN ('receiving', 'queued', 'running');
