-- The read model: what HTTP, the command line and health checks show.

-- part: job_columns
j.job_id, j.kind, j.type, j.state, j.root_job_id, j.request_id, j.options, j.total, j.succeeded, j.failed, j.retry, j.results,
    j.created_at, j.finished_at, j.bytes, j.started_at, j.applied_at, j.error, j.waiting, j.dead_letters_trimmed,
    CASE WHEN j.kind = 'sync' THEN j.options END AS sync,
    -- An import of a release before file imports never stored its size apart; an upload cut off has none.
    coalesce(j.items, CASE WHEN j.bytes = 0 AND j.state <> 'receiving' THEN j.total END) AS items,
    extract(epoch FROM coalesce(j.applied_at, j.finished_at, now()) - j.started_at)::float8 AS worked

-- name: read_job
-- A job reports its retries, so their revisions count as its own.
SELECT
    {{job_columns}}, j.revision + coalesce(f.revision, 0) AS revision, f.revision IS NOT NULL AS retried
FROM jobs j
CROSS JOIN LATERAL (
    SELECT sum(m.revision)::bigint AS revision FROM jobs m
    WHERE m.tenant_id = j.tenant_id AND m.root_job_id = j.job_id AND m.root_job_id <> m.job_id
) f
WHERE j.tenant_id = $1 AND j.job_id = $2;

-- part: wanted_jobs
(j.state = :state::text) IS NOT FALSE AND (j.kind = :kind::text) IS NOT FALSE
    AND (:type::text IS NULL OR (j.type = :type) IS TRUE)

-- name: read_jobs
-- A page of jobs, newest first, before a job (NULL: from the newest), of a state, kind and type (NULL: any). No "OR": a
-- generic plan would read all.
SELECT
    {{job_columns}}, j.revision, false AS retried
FROM jobs j
WHERE j.tenant_id = :tenant_id AND j.job_id < coalesce(:before::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
    AND {{wanted_jobs}}
ORDER BY j.job_id DESC
LIMIT :limit;

-- name: read_jobs_of_key
-- The same of the jobs that one key asked for.
SELECT
    {{job_columns}}, j.revision, false AS retried
FROM jobs j
WHERE j.tenant_id = :tenant_id AND j.key_id = :of_key AND j.key_id <> ''
    AND j.job_id < coalesce(:before::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff') AND {{wanted_jobs}}
ORDER BY j.job_id DESC
LIMIT :limit;

-- name: read_effects
SELECT
    e.job_id, d.name, e.pending, e.ok, e.retry, e.failed, e.unknown, e.dead, e.skipped,
    d.state = 'paused' AS paused,
    d.blocked_code,
    greatest(extract(epoch FROM d.blocked_until - now()), 0)::float8 AS blocked_for,
    -- The key that encrypted its credentials is named at their beginning.
    CASE WHEN d.state = 'active' THEN substring(d.credentials FOR 16) END AS sealed
FROM effects e
JOIN destinations d ON d.tenant_id = e.tenant_id AND d.destination_id = e.destination_id
WHERE e.tenant_id = $1 AND e.job_id = ANY ($2::uuid[])
ORDER BY e.job_id, d.name;

-- name: read_local_failures
SELECT f.key AS code, (f.value ->> 'count')::int AS count, f.value -> 'samples' AS samples
FROM job_chunks c
CROSS JOIN jsonb_each(c.failures) f
WHERE c.tenant_id = $1 AND c.job_id = $2 AND c.failures <> '{}'
ORDER BY c.first_index;

-- name: read_destination_failures
-- Items that are not ok at a destination, by code. Deliveries of a job share no index, so the five lowest are in
-- the first five deliveries that have the code.
WITH counted AS MATERIALIZED (
    SELECT x.destination_id, f.key COLLATE "C" AS code, sum((f.value -> 'count')::int)::int AS count
    FROM deliveries x
    CROSS JOIN jsonb_each(x.failures) f
    WHERE x.tenant_id = $1 AND x.job_id = $2 AND x.failures <> '{}'
    GROUP BY x.destination_id, f.key COLLATE "C"
)
SELECT
    d.name AS destination, c.code, c.count,
    ARRAY(
        SELECT s.value::int
        FROM (
            SELECT x.failures -> c.code -> 'samples' AS samples
            FROM deliveries x
            WHERE x.tenant_id = $1 AND x.job_id = $2 AND x.destination_id = c.destination_id
                AND x.failures <> '{}' AND x.failures ? c.code
            ORDER BY x.first_index
            LIMIT 5
        ) l
        CROSS JOIN jsonb_array_elements(l.samples) s
        ORDER BY s.value::int
        LIMIT 5
    ) AS samples
FROM counted c
JOIN destinations d ON d.tenant_id = $1 AND d.destination_id = c.destination_id
ORDER BY d.name, c.count DESC, c.code;

-- name: read_next_attempt
-- Seconds until Tranche itself does something more for this job; NULL: nothing is left to do. A paused destination
-- waits for an operator, so asking again soon is of no use. One probe a destination, however many deliveries wait.
SELECT min(
    CASE
        WHEN d.state = 'paused' THEN 30
        ELSE greatest(extract(epoch FROM greatest(x.next_attempt_at, d.blocked_until) - now()), 0)
    END
)::float8
FROM effects e
JOIN destinations d ON d.tenant_id = e.tenant_id AND d.destination_id = e.destination_id
CROSS JOIN LATERAL (
    SELECT w.next_attempt_at
    FROM deliveries w
    WHERE w.tenant_id = e.tenant_id AND w.job_id = e.job_id AND w.destination_id = e.destination_id
        AND w.state <> 'done'
    ORDER BY w.next_attempt_at
    LIMIT 1
) x
WHERE e.tenant_id = $1 AND e.job_id = $2;

-- name: read_revisions
-- The jobs somebody is waiting for; the revisions as in read_job.
SELECT
    j.tenant_id, j.job_id,
    j.revision + coalesce((
        SELECT sum(m.revision)::bigint FROM jobs m
        WHERE m.tenant_id = j.tenant_id AND m.root_job_id = j.job_id AND m.root_job_id <> m.job_id
    ), 0) AS revision,
    j.finished_at IS NOT NULL AS finished
FROM jobs j
JOIN unnest($1::int[], $2::uuid[]) AS w(tenant_id, job_id) ON j.tenant_id = w.tenant_id AND j.job_id = w.job_id;

-- name: read_left_alone
-- Of an undo: what has become of the records that it left alone, by how the chains of their dead letters ended.
WITH chains AS (
    SELECT DISTINCT coalesce(l.chain_id, l.dead_letter_id) AS chain_id
    FROM dead_letters l
    WHERE l.tenant_id = $1 AND l.destination_id IS NULL AND l.job_id = $2
),
ends AS (
    SELECT (
        SELECT x.resolution FROM dead_letters x
        WHERE x.tenant_id = $1 AND x.dead_letter_id = coalesce(
            (SELECT max(m.dead_letter_id) FROM dead_letters m WHERE m.tenant_id = $1 AND m.chain_id = c.chain_id),
            c.chain_id
        )
    ) AS resolution
    FROM chains c
)
SELECT
    count(*) FILTER (WHERE e.resolution IS NULL)::int AS open,
    count(*) FILTER (WHERE e.resolution <> 'dropped')::int AS restored,
    count(*) FILTER (WHERE e.resolution = 'dropped')::int AS dropped
FROM ends e;

-- name: read_drift
-- Of a sync that verifies: how many records differ in which way.
SELECT f.value ->> 'kind' AS kind, count(*)::int AS count
FROM deliveries x
CROSS JOIN jsonb_each(x.drift) f
WHERE x.tenant_id = $1 AND x.job_id = $2 AND x.drift IS NOT NULL
GROUP BY f.value ->> 'kind';

-- name: read_not_restored
-- Of an undo: by destination, how many of its items left something there as it is.
SELECT d.name, sum((SELECT count(*) FROM jsonb_object_keys(x.not_restored)))::int AS count
FROM deliveries x
JOIN destinations d ON d.tenant_id = x.tenant_id AND d.destination_id = x.destination_id
WHERE x.tenant_id = $1 AND x.job_id = $2 AND x.not_restored IS NOT NULL
GROUP BY d.name
ORDER BY d.name;

