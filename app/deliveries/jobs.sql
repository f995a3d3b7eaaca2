-- When a job whose items are all decided here ends, and how: said once, for a batch that is answered at once, a file that
-- was worked through, and the last recording of a delivery.

-- part: job_state
-- e.open: items whose outcome at a destination is still open; e.lost: those that failed there for good.
CASE
    WHEN e.open > 0 THEN 'syncing'
    WHEN j.succeeded = j.total AND e.lost = 0 THEN 'completed'
    ELSE 'completed_with_failures'
END

-- part: job_end
state = {{job_state}}, finished_at = CASE WHEN e.open = 0 THEN now() END, revision = j.revision + 1

-- part: job_effects
FROM (
    SELECT
        coalesce(sum(x.pending + x.retry + x.unknown), 0) AS open, coalesce(sum(x.failed + x.dead), 0) AS lost
    FROM effects x
    WHERE x.tenant_id = $1 AND x.job_id = $2
) e

-- name: end_import
-- Every item is decided. Runs after lock_import in the same transaction: a recording that comes later finds the new
-- state, one that came before has its effects counted here.
UPDATE jobs j
SET step = NULL, waiting = NULL, started_at = coalesce(j.started_at, now()), applied_at = now(), {{job_end}}
{{job_effects}}
WHERE j.tenant_id = $1 AND j.job_id = $2 AND j.state IN ('queued', 'running')
RETURNING j.state, emit_job_finished(j);

-- name: finish_job
-- Ends a job whose every effect is settled. Runs after record_delivery in the same transaction, which holds the job's
-- row: whoever comes second sees the effects of the first.
UPDATE jobs j
SET {{job_end}}
{{job_effects}}
WHERE j.tenant_id = $1 AND j.job_id = $2 AND j.state = 'syncing' AND e.open = 0
RETURNING j.state, emit_job_finished(j);
