-- Canceling an import: first the word, which everybody who works on the job finds, then its staged chunks.

-- name: cancel_job
-- No row: every item is decided, or there is no such job, or it takes something back. Whoever works on a chunk finds the new state when it counts
-- its items, and undoes them.
WITH ended AS (
    UPDATE jobs j
    SET
        state = 'canceled', step = NULL, receiving_until = NULL, finished_at = now(), error = :error::text::jsonb,
        revision = j.revision + 1
    WHERE j.tenant_id = :tenant_id AND j.job_id = :job_id AND j.state IN ('receiving', 'queued', 'running')
        AND j.kind NOT IN ('undo', 'erase')
    RETURNING {{ended_job}}
),
{{finished_event}},
message AS (
    INSERT INTO webhook_messages {{event_messages}}
)
SELECT 1 FROM ended;

-- name: read_job_state
SELECT j.state FROM jobs j WHERE j.tenant_id = $1 AND j.job_id = $2;

-- part: is_at_its_end
NOT EXISTS (
    SELECT FROM jobs j
    WHERE j.tenant_id = $1 AND j.job_id = $2 AND j.state IN ('receiving', 'queued', 'running')
)

-- name: remove_chunks
-- Some of what is staged of a job that is at its end; a chunk that somebody still holds is left. What is staged of any other
-- job is acknowledged work, whoever asks. An array, not a join: PostgreSQL may know nothing of the table yet, and would
-- compare every row with every other.
DELETE FROM staged_chunks
WHERE tenant_id = $1 AND job_id = $2
    AND {{is_at_its_end}}
    AND first_index = ANY (ARRAY(
    SELECT s.first_index FROM staged_chunks s WHERE s.tenant_id = $1 AND s.job_id = $2
    ORDER BY s.first_index LIMIT 100
    FOR UPDATE SKIP LOCKED
));

-- name: remove_repeats
DELETE FROM staged_repeats
WHERE tenant_id = $1 AND job_id = $2
    AND {{is_at_its_end}}
    AND item_index = ANY (ARRAY(
    SELECT r.item_index FROM staged_repeats r WHERE r.tenant_id = $1 AND r.job_id = $2
    ORDER BY r.item_index LIMIT 10000
    FOR UPDATE SKIP LOCKED
));

-- name: is_staged
SELECT
    EXISTS (SELECT FROM staged_chunks s WHERE s.tenant_id = $1 AND s.job_id = $2)
    OR EXISTS (SELECT FROM staged_repeats r WHERE r.tenant_id = $1 AND r.job_id = $2);

-- name: orphaned_stages
-- A tenant's jobs that need their staged chunks no more, but have some. A probe of the index for each staged job, however
-- many chunks it has.
WITH RECURSIVE chunked AS (
    (SELECT s.job_id FROM staged_chunks s WHERE s.tenant_id = $1 ORDER BY s.job_id LIMIT 1)
    UNION ALL
    SELECT n.job_id
    FROM chunked c
    CROSS JOIN LATERAL (
        SELECT s.job_id FROM staged_chunks s
        WHERE s.tenant_id = $1 AND s.job_id > c.job_id
        ORDER BY s.job_id LIMIT 1
    ) n
),
repeated AS (
    (SELECT r.job_id FROM staged_repeats r WHERE r.tenant_id = $1 ORDER BY r.job_id LIMIT 1)
    UNION ALL
    SELECT n.job_id
    FROM repeated c
    CROSS JOIN LATERAL (
        SELECT r.job_id FROM staged_repeats r
        WHERE r.tenant_id = $1 AND r.job_id > c.job_id
        ORDER BY r.job_id LIMIT 1
    ) n
)
SELECT f.job_id
FROM (SELECT * FROM chunked UNION SELECT * FROM repeated) f
WHERE (SELECT j.state FROM jobs j WHERE j.tenant_id = $1 AND j.job_id = f.job_id)
    NOT IN ('receiving', 'queued', 'running')
ORDER BY f.job_id;
