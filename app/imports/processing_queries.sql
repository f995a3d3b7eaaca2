-- Processing of staged imports. Whoever works on a chunk holds its row locked until the transaction that deletes it
-- ends, so a worker that dies leaves nothing to be taken back: the lock goes with its connection.

-- name: working_imports
-- Imports that have something to be done now, whichever worker asks: the oldest of each tenant, so that one with ten
-- thousand of them hides nobody. One pass over the index of those that are open, then a probe of it for each tenant.
SELECT w.tenant_id, w.job_id
FROM (SELECT DISTINCT j.tenant_id FROM jobs j WHERE j.state IN ('receiving', 'queued', 'running')) b
JOIN tenants t ON t.tenant_id = b.tenant_id
CROSS JOIN LATERAL (
    SELECT j.tenant_id, j.job_id FROM jobs j
    WHERE j.tenant_id = b.tenant_id AND j.state IN ('queued', 'running') AND j.step IS NOT NULL
    ORDER BY j.job_id LIMIT 200
) w
WHERE t.disabled_at IS NULL;

-- name: read_processing
-- An import as it is for whoever is about to work on it, if anything is left to do.
SELECT
    j.step, j.request_id, j.trace_context, j.options, j.type, j.key_id, coalesce(k.limits, '{}') AS limits, t.limits AS tenant_limits
FROM jobs j
JOIN tenants t ON t.tenant_id = j.tenant_id
LEFT JOIN api_keys k ON k.tenant_id = j.tenant_id AND k.key_id = j.key_id
WHERE j.tenant_id = $1 AND j.job_id = $2 AND j.state IN ('queued', 'running');

-- name: claim_chunk
-- The next chunk that needs the step $3 and that nobody works on.
SELECT s.first_index, s.item_count, s.attempts, s.repeated, s.rows
FROM staged_chunks s
WHERE s.tenant_id = $1 AND s.job_id = $2 AND s.step = $3 AND s.due_at <= now()
ORDER BY s.first_index
LIMIT 1
FOR UPDATE SKIP LOCKED;

-- name: claim_job
-- The first chunk represents the job, for steps that concern all of it; no row: somebody else has it, or must wait.
SELECT s.first_index, s.attempts
FROM staged_chunks s
WHERE s.tenant_id = $1 AND s.job_id = $2 AND s.first_index = (
    SELECT min(f.first_index) FROM staged_chunks f WHERE f.tenant_id = $1 AND f.job_id = $2
) AND s.due_at <= now()
FOR UPDATE SKIP LOCKED;

-- name: read_staged
-- The rows of a job's chunks from $3 on, in order; the job is claimed.
SELECT s.first_index, s.item_count, s.rows
FROM staged_chunks s
WHERE s.tenant_id = $1 AND s.job_id = $2 AND s.first_index >= $3
ORDER BY s.first_index
LIMIT 20;

-- name: find_repeats
-- Items whose ids have a hash that appears more than once in the file. Equal hashes need not be equal ids: whoever
-- reads the items decides.
WITH hashed AS MATERIALIZED (
    SELECT s.first_index + (u.place - 1)::int AS item_index, s.first_index, u.hash
    FROM staged_chunks s
    CROSS JOIN LATERAL unnest(s.id_hashes) WITH ORDINALITY AS u(hash, place)
    WHERE s.tenant_id = $1 AND s.job_id = $2 AND u.hash IS NOT NULL
),
repeated AS (
    SELECT h.hash FROM hashed h GROUP BY h.hash HAVING count(*) > 1
),
places AS MATERIALIZED (
    SELECT h.item_index, h.first_index FROM hashed h JOIN repeated r USING (hash)
),
found AS (
    INSERT INTO staged_repeats (tenant_id, job_id, item_index)
    SELECT $1, $2, p.item_index FROM places p ORDER BY p.item_index
    RETURNING item_index
),
marked AS (
    UPDATE staged_chunks s
    SET step = 'collect', repeated = true
    WHERE s.tenant_id = $1 AND s.job_id = $2 AND s.first_index = ANY (ARRAY(SELECT DISTINCT p.first_index FROM places p))
)
SELECT count(*) FROM found;

-- name: has_repeats
-- Whether any id hash appears more than once; without the places, which most files never need.
SELECT EXISTS (
    SELECT
    FROM staged_chunks s
    CROSS JOIN LATERAL unnest(s.id_hashes) AS u(hash)
    WHERE s.tenant_id = $1 AND s.job_id = $2 AND u.hash IS NOT NULL
    GROUP BY u.hash
    HAVING count(*) > 1
);

-- name: chunk_repeats
-- The repeated items among those from $3 to $4, with the outcome of their leaders. These statements meet a table that
-- was filled a moment ago, of which PostgreSQL knows nothing yet: each is written so that any plan of it is a good one.
SELECT r.item_index, r.record_id, r.verdict, r.leader, r.members, r.others, l.outcome
FROM staged_repeats r
LEFT JOIN LATERAL (
    SELECT x.outcome FROM staged_repeats x
    WHERE x.tenant_id = $1 AND x.job_id = $2 AND x.item_index = r.leader
    LIMIT 1
) l ON true
WHERE r.tenant_id = $1 AND r.job_id = $2 AND r.item_index BETWEEN $3 AND $4
ORDER BY r.item_index;

-- name: collect_repeats
-- What was read of repeated items: $3 indexes, $4 record ids, $5 digests of their contents.
UPDATE staged_repeats r
SET record_id = t.record_id, digest = t.digest
FROM unnest($3::int[], $4::text[], $5::bytea[]) AS t(item_index, record_id, digest)
WHERE r.tenant_id = $1 AND r.job_id = $2 AND r.item_index = t.item_index
    AND r.item_index BETWEEN (SELECT min(m) FROM unnest($3::int[]) m) AND (SELECT max(m) FROM unnest($3::int[]) m);

-- name: settle_repeats
-- What the items of one id mean together: equal ones follow the first; of differing ones the last represents all ($3),
-- or none is applied. An item that cannot be applied by itself counts for nothing.
WITH numbered AS (
    SELECT
        r.ctid AS place, r.item_index, r.record_id,
        encode(r.digest, 'hex') AS digest,  -- only from 18 on PostgreSQL has min and max of bytea
        row_number() OVER (PARTITION BY r.record_id ORDER BY r.item_index) AS number
    FROM staged_repeats r
    WHERE r.tenant_id = $1 AND r.job_id = $2 AND r.record_id IS NOT NULL
),
weighed AS (
    SELECT
        n.place, count(*) OVER w AS members, min(n.item_index) OVER w AS first, max(n.item_index) OVER w AS last,
        min(n.digest) OVER w = max(n.digest) OVER w AS equal,
        array_agg(n.item_index) FILTER (WHERE n.number <= 11) OVER w AS others
    FROM numbered n
    WINDOW w AS (PARTITION BY n.record_id)
)
UPDATE staged_repeats r
SET
    members = w.members,
    leader = CASE WHEN w.equal THEN w.first WHEN $3 THEN w.last END,
    verdict = CASE
        WHEN w.members = 1 THEN 'alone'
        WHEN w.equal THEN CASE WHEN r.item_index = w.first THEN 'leader' ELSE 'equal' END
        WHEN $3 THEN CASE WHEN r.item_index = w.last THEN 'leader' ELSE 'older' END
        ELSE 'differing'
    END,
    others = CASE WHEN NOT w.equal AND NOT $3 THEN ARRAY(SELECT o FROM unnest(w.others) o ORDER BY o) END
FROM weighed w
WHERE r.tenant_id = $1 AND r.job_id = $2 AND r.ctid = w.place;

-- name: report_leaders
-- The outcomes ($4, JSON) of leaders ($3), for those that follow them.
UPDATE staged_repeats r
SET outcome = t.outcome::jsonb
FROM unnest($3::int[], $4::text[]) AS t(item_index, outcome)
WHERE r.tenant_id = $1 AND r.job_id = $2 AND r.item_index = t.item_index
    AND r.item_index BETWEEN (SELECT min(m) FROM unnest($3::int[]) m) AND (SELECT max(m) FROM unnest($3::int[]) m);

-- name: count_items
-- Adds what a chunk decided to its job, unless that was canceled meanwhile: then no row comes back, and the caller must
-- undo the chunk.
UPDATE jobs j
SET
    total = j.total + :total, succeeded = j.succeeded + :succeeded, failed = j.failed + :failed, retry = j.retry + :retry,
    results = add_counts(j.results, :results::text::jsonb),
    state = 'running',
    started_at = least(j.started_at, now()),
    waiting = NULL,
    revision = j.revision + 1
WHERE j.tenant_id = :tenant_id AND j.job_id = :job_id AND j.state IN ('queued', 'running')
RETURNING 1;

-- name: move_chunk
-- The chunk needs another step now.
UPDATE staged_chunks SET step = $4, attempts = 0 WHERE tenant_id = $1 AND job_id = $2 AND first_index = $3;

-- name: postpone_chunk
-- An attempt ended without a decision.
UPDATE staged_chunks
SET attempts = attempts + 1, due_at = now() + $4::interval
WHERE tenant_id = $1 AND job_id = $2 AND first_index = $3;

-- name: drop_chunks
-- Chunks from $3 to $4 are done.
DELETE FROM staged_chunks WHERE tenant_id = $1 AND job_id = $2 AND first_index BETWEEN $3 AND $4;

-- name: lock_import
-- The job's own row, last of all locks.
SELECT j.step FROM jobs j WHERE j.tenant_id = $1 AND j.job_id = $2 AND j.state IN ('queued', 'running')
FOR NO KEY UPDATE;

-- name: steps_left
-- The steps that the job's chunks still need.
SELECT DISTINCT s.step FROM staged_chunks s WHERE s.tenant_id = $1 AND s.job_id = $2;

-- name: fail_import
WITH ended AS (
    UPDATE jobs j
    SET state = 'failed', step = NULL, finished_at = now(), error = :error::text::jsonb, revision = j.revision + 1
    WHERE j.tenant_id = :tenant_id AND j.job_id = :job_id AND j.state IN ('queued', 'running')
    RETURNING {{ended_job}}
),
{{finished_event}}
INSERT INTO webhook_messages {{event_messages}};

-- name: say_waiting
-- $3 what the job waits for; said once, for the row has to be written where there may be little room.
UPDATE jobs j
SET waiting = $3::text::jsonb, revision = j.revision + 1
WHERE j.tenant_id = $1 AND j.job_id = $2 AND j.state IN ('queued', 'running') AND j.waiting IS NULL;

-- name: lock_undo
-- The row of a job that takes something back, last of all locks; no row: all of its items are decided.
SELECT 1 FROM jobs j WHERE j.tenant_id = $1 AND j.job_id = $2 AND j.state IN ('queued', 'running')
FOR NO KEY UPDATE;

-- name: take_step
-- The attempts that the step before cost count no longer; the first chunk represented the job.
WITH anew AS (
    UPDATE staged_chunks s SET attempts = 0
    WHERE s.tenant_id = $1 AND s.job_id = $2 AND s.attempts > 0 AND s.first_index = (
        SELECT min(f.first_index) FROM staged_chunks f WHERE f.tenant_id = $1 AND f.job_id = $2
    )
)
UPDATE jobs j
SET step = $3, started_at = least(j.started_at, now()), revision = j.revision + 1
WHERE j.tenant_id = $1 AND j.job_id = $2 AND j.state IN ('queued', 'running');

-- name: read_outcomes
SELECT c.outcomes, c.sources
FROM job_chunks c
WHERE c.tenant_id = $1 AND c.job_id = $2 AND c.first_index = $3;

-- name: rewrite_outcomes
-- The outcomes of a chunk, now that its repeated items have theirs.
UPDATE job_chunks SET failures = $4::text::jsonb, outcomes = $5, sources = $6
WHERE tenant_id = $1 AND job_id = $2 AND first_index = $3;

-- name: pending_destinations
-- Where records of this type go.
SELECT d.destination_id FROM destinations d
WHERE d.tenant_id = :tenant_id AND d.state <> 'removed' AND {{takes_type}}
ORDER BY d.destination_id;

-- name: tenants_with_silent_uploads
SELECT DISTINCT j.tenant_id FROM jobs j WHERE j.state = 'receiving' AND j.receiving_until <= now();
