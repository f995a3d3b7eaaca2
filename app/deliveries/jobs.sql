-- When a job whose items are all decided here ends, and how: said once, for a batch that is answered at once, a file that
-- was worked through, and the last recording of a delivery.

-- part: job_state
-- e.open: items whose outcome at a destination is still open; e.lost: those that failed there for good.
CASE
    WHEN e.open > 0 THEN 'syncing'
    WHEN j.succeeded = j.total AND e.lost = 0 THEN 'completed'
    ELSE 'completed_with_failures'
END

-- part: finished_at
now() + CASE WHEN e.open = 0 THEN interval '0 seconds' END

-- part: job_end
state = CASE WHEN j.error IS NOT NULL AND e.open = 0 THEN 'completed_with_failures' ELSE {{job_state}} END,
    finished_at = {{finished_at}}, revision = j.revision + 1

-- part: job_effects
FROM (
    SELECT
        coalesce(sum(x.pending + x.retry + x.unknown), 0) AS open, coalesce(sum(x.failed + x.dead), 0) AS lost
    FROM effects x
    WHERE x.tenant_id = :tenant_id AND x.job_id = :job_id
) e

-- part: ended_job
j.job_id, j.kind, j.type, j.root_job_id, j.state, j.total, j.succeeded, j.failed, j.retry, j.finished_at

-- part: finished_event
-- The event of a job that has ended (CTE `ended`).
event AS MATERIALIZED (
    SELECT
        gen_random_uuid() AS event_id, 'job.finished' AS type,
        jsonb_build_object(
            'job_id', e.job_id, 'kind', e.kind, 'type', e.type, 'root_job_id', e.root_job_id, 'state', e.state,
            'summary', jsonb_build_object(
                'total', e.total, 'succeeded', e.succeeded, 'failed', e.failed, 'retry', e.retry
            )
        ) AS data
    FROM ended e
    WHERE e.finished_at IS NOT NULL
)

-- name: end_import
-- Every item is decided. Runs after lock_import in the same transaction: a recording that comes later finds the new
-- state, one that came before has its effects counted here.
WITH ended AS (
    UPDATE jobs j
    SET step = NULL, waiting = NULL, started_at = least(j.started_at, now()), applied_at = now(), {{job_end}}
    {{job_effects}}
    WHERE j.tenant_id = :tenant_id AND j.job_id = :job_id AND j.state IN ('queued', 'running')
    RETURNING {{ended_job}}
),
{{finished_event}},
message AS (
    INSERT INTO webhook_messages {{event_messages}}
)
SELECT e.state FROM ended e;

-- name: finish_job
-- Ends a job whose every effect is settled. Runs after record_delivery in the same transaction, which holds the job's
-- row: whoever comes second sees the effects of the first.
WITH ended AS (
    UPDATE jobs j
    SET {{job_end}}
    {{job_effects}}
    WHERE j.tenant_id = :tenant_id AND j.job_id = :job_id AND j.state = 'syncing' AND e.open = 0
    RETURNING {{ended_job}}
),
{{finished_event}},
message AS (
    INSERT INTO webhook_messages {{event_messages}}
)
SELECT e.state FROM ended e;
