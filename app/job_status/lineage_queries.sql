-- What became of a job's items over all attempts: its own, retries of it, and replays of its dead letters.

-- name: read_outcome_of_dead_letters
-- The dead letters that a job's own items left, by where their chains have come to, and the jobs that replayed any.
--   ok       the destination holds that version or a newer one, as far as Tranche or an operator knows
--   open     an attempt that is not finished has it
--   failed   a dead letter waits for an operator
--   dropped  an operator said that it is not worth sending, or it was taken back because another destination refused it
--   skipped  an attempt ended without sending it: its destination was removed
WITH births AS MATERIALIZED (
    SELECT
        l.dead_letter_id, coalesce(l.chain_id, l.dead_letter_id) AS chain_id, l.destination_id, l.type_id, l.record_id,
        l.version, l.resolution, l.replay_job_id
    FROM dead_letters l
    WHERE l.tenant_id = $1 AND l.root_job_id = $2 AND l.job_id = $2
    UNION ALL
    SELECT
        l.dead_letter_id, coalesce(l.chain_id, l.dead_letter_id), l.destination_id, l.type_id, l.record_id, l.version,
        l.resolution, l.replay_job_id
    FROM deliveries d
    JOIN dead_letters l ON l.tenant_id = $1 AND l.delivery_id = d.delivery_id
    WHERE d.tenant_id = $1 AND d.job_id = $2 AND d.failures <> '{}' AND l.root_job_id <> $2
),
links AS MATERIALIZED (
    SELECT b.dead_letter_id, b.dead_letter_id AS link, b.resolution, b.replay_job_id FROM births b
    UNION ALL
    SELECT b.dead_letter_id, x.dead_letter_id, x.resolution, x.replay_job_id
    FROM births b
    CROSS JOIN LATERAL (
        SELECT l.dead_letter_id, l.resolution, l.replay_job_id FROM dead_letters l
        WHERE l.tenant_id = $1 AND l.chain_id = b.chain_id AND l.dead_letter_id > b.dead_letter_id
        LIMIT 1000
    ) x
    WHERE b.resolution = 'replayed'
),
ends AS (
    SELECT DISTINCT ON (k.dead_letter_id) k.dead_letter_id, k.resolution, k.replay_job_id
    FROM links k
    ORDER BY k.dead_letter_id, k.link DESC
),
judged AS (
    SELECT
        b.destination_id,
        CASE
            -- First, because what the destination holds since then may be what was there before.
            WHEN e.resolution = 'dropped' THEN 'dropped'
            WHEN s.synced_version >= b.version OR e.resolution IN ('delivered', 'superseded') THEN 'ok'
            WHEN e.resolution IS NULL THEN 'failed'
            WHEN (
                SELECT j.finished_at IS NULL FROM jobs j WHERE j.tenant_id = $1 AND j.job_id = e.replay_job_id
            ) THEN 'open'
            -- A replay sends a record once, for all of its dead letters; if that failed, one dead letter reports it.
            WHEN EXISTS (
                SELECT FROM dead_letters o
                WHERE o.tenant_id = $1 AND o.destination_id = b.destination_id AND o.type_id = b.type_id
                    AND o.record_id = b.record_id AND o.resolution IS NULL
            ) THEN 'failed'
            ELSE 'skipped'
        END AS outcome
    FROM births b
    JOIN ends e ON e.dead_letter_id = b.dead_letter_id
    LEFT JOIN LATERAL (
        SELECT x.synced_version FROM record_syncs x
        WHERE x.tenant_id = $1 AND x.destination_id = b.destination_id AND x.type_id = b.type_id
            AND x.record_id = b.record_id
        LIMIT 1
    ) s ON true
)
SELECT
    j.destination_id,
    count(*) FILTER (WHERE j.outcome = 'ok')::int AS ok,
    count(*) FILTER (WHERE j.outcome = 'open')::int AS open,
    count(*) FILTER (WHERE j.outcome = 'failed')::int AS failed,
    count(*) FILTER (WHERE j.outcome = 'dropped')::int AS dropped,
    count(*) FILTER (WHERE j.outcome = 'skipped')::int AS skipped,
    ARRAY(SELECT DISTINCT k.replay_job_id FROM links k WHERE k.replay_job_id IS NOT NULL) AS replays
FROM judged j
GROUP BY j.destination_id;

-- name: read_own_effects
-- A job's own counts, by destination.
SELECT e.destination_id, d.name, e.pending + e.retry + e.unknown AS open, e.ok, e.skipped, e.failed + e.dead AS failed
FROM effects e
JOIN destinations d ON d.tenant_id = e.tenant_id AND d.destination_id = e.destination_id
WHERE e.tenant_id = $1 AND e.job_id = $2
ORDER BY d.name, e.destination_id;

-- name: read_attempts
-- A job, its retries, and the replays $3 that took dead letters of it, oldest first.
SELECT
    j.job_id, j.kind, j.state, j.created_at,
    ARRAY(
        SELECT d.name FROM effects e
        JOIN destinations d ON d.tenant_id = $1 AND d.destination_id = e.destination_id
        WHERE e.tenant_id = $1 AND e.job_id = j.job_id
        ORDER BY d.name
    ) AS destinations
FROM jobs j
WHERE j.tenant_id = $1 AND (j.kind <> 'undo' OR j.job_id = $2)
    AND j.job_id = ANY ($2::uuid || $3::uuid[] || ARRAY(
        SELECT m.job_id FROM jobs m
        WHERE m.tenant_id = $1 AND m.root_job_id = $2 AND m.root_job_id <> m.job_id
        ORDER BY m.job_id DESC
        LIMIT 1000
    ))
ORDER BY j.job_id;

-- name: read_relatives
-- The jobs that a job takes back, or is taken back by; compensated_by: by what its consistency=all_destinations asks.
SELECT
    coalesce(j.undo_of, j.retakes) AS undo_of,
    (SELECT u.job_id FROM jobs u WHERE u.tenant_id = j.tenant_id AND u.undo_of = j.job_id) AS undone_by,
    (
        SELECT u.job_id FROM jobs u
        WHERE u.tenant_id = j.tenant_id AND u.root_job_id = j.job_id AND u.job_id <> u.root_job_id
            AND u.kind = 'undo' AND u.undo_of IS NULL AND u.retakes IS NULL
        ORDER BY u.job_id LIMIT 1
    ) AS compensated_by
FROM jobs j
WHERE j.tenant_id = $1 AND j.job_id = $2;
