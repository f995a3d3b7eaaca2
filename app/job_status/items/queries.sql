-- The items of a job: which runs of them can hold what is looked for, and what became of those.
--
-- A job may have a million items in a thousand chunks, and ten thousand deliveries at each destination. The queries
-- that look for candidates return only where they are, from small columns under an index; outcomes are read for those.

-- name: items_job
-- undecided: the first item that nothing is decided about yet. What is staged is what is still to be done.
SELECT
    coalesce(j.items, j.total) AS items, j.type, j.state, j.trimmed_at IS NOT NULL AS trimmed, j.form,
    (
        SELECT min(s.first_index) FROM staged_chunks s WHERE s.tenant_id = j.tenant_id AND s.job_id = j.job_id
    ) AS undecided,
    (
        SELECT c.first_index + c.item_count FROM job_chunks c
        WHERE c.tenant_id = j.tenant_id AND c.job_id = j.job_id ORDER BY c.first_index DESC LIMIT 1
    ) AS booked
FROM jobs j
WHERE j.tenant_id = $1 AND j.job_id = $2;

-- name: items_places
-- Where items of this job went.
SELECT
    d.destination_id, d.name, e.pending + e.retry + e.unknown AS open,
    CASE WHEN d.state <> 'paused' AND d.blocked_until > now() THEN d.blocked_code END AS blocked_code
FROM effects e
JOIN destinations d ON d.tenant_id = e.tenant_id AND d.destination_id = e.destination_id
WHERE e.tenant_id = $1 AND e.job_id = $2
ORDER BY d.name, d.destination_id;

-- part: chunks_from
SELECT c.first_index, c.first_index + c.item_count - 1 AS last_index
FROM job_chunks c
WHERE c.tenant_id = $1 AND c.job_id = $2
    AND c.first_index >= coalesce((
        SELECT m.first_index FROM job_chunks m
        WHERE m.tenant_id = $1 AND m.job_id = $2 AND m.first_index <= $3 ORDER BY m.first_index DESC LIMIT 1
    ), 0)
    AND c.first_index + c.item_count > $3

-- name: next_chunks
-- Runs from the item $3 on, the one that holds it first.
{{chunks_from}}
ORDER BY c.first_index
LIMIT $4;

-- name: next_sound_chunks
-- The same, but only runs with an item that is ok.
{{chunks_from}}
    AND c.item_count > (SELECT coalesce(sum((f.value ->> 'count')::int), 0) FROM jsonb_each(c.failures) f)
ORDER BY c.first_index
LIMIT $4;

-- name: next_faulty_chunks
-- The same, but only runs with one of the codes $5.
SELECT c.first_index, c.first_index + c.item_count - 1 AS last_index
FROM job_chunks c
WHERE c.tenant_id = $1 AND c.job_id = $2 AND c.failures <> '{}'
    AND c.first_index >= coalesce((
        SELECT m.first_index FROM job_chunks m
        WHERE m.tenant_id = $1 AND m.job_id = $2 AND m.failures <> '{}' AND m.first_index <= $3
        ORDER BY m.first_index DESC LIMIT 1
    ), 0)
    AND c.first_index + c.item_count > $3
    AND c.failures ?| $5::text[]
ORDER BY c.first_index
LIMIT $4;

-- name: next_deliveries
-- Deliveries to the destination $3 of items from $4 on, but none that begins after $5, with one of the states $7
-- (a pattern; NULL: any).
SELECT d.first_index, d.last_index
FROM deliveries d
WHERE d.tenant_id = $1 AND d.job_id = $2 AND d.destination_id = $3
    AND d.first_index >= coalesce((
        SELECT m.first_index FROM deliveries m
        WHERE m.tenant_id = $1 AND m.job_id = $2 AND m.destination_id = $3 AND m.first_index <= $4
        ORDER BY m.first_index DESC LIMIT 1
    ), 0)
    AND d.first_index <= $5 AND d.last_index >= $4
    AND (d.states ~ $7::text) IS NOT FALSE
ORDER BY d.first_index
LIMIT $6;

-- name: next_faulty_deliveries
-- Those that count failures, with the code $6 (NULL: any) and one of the states $7 (NULL: any).
SELECT d.first_index, d.last_index
FROM deliveries d
WHERE d.tenant_id = $1 AND d.job_id = $2 AND d.destination_id = $3 AND d.failures <> '{}'
    AND d.first_index >= coalesce((
        SELECT m.first_index FROM deliveries m
        WHERE m.tenant_id = $1 AND m.job_id = $2 AND m.destination_id = $3 AND m.failures <> '{}'
            AND m.first_index <= $4
        ORDER BY m.first_index DESC LIMIT 1
    ), 0)
    AND d.last_index >= $4
    AND (d.failures ? $6::text) IS NOT FALSE
    AND (d.states ~ $7::text) IS NOT FALSE
ORDER BY d.first_index
LIMIT $5;

-- name: next_drifted_deliveries
-- Those that have found the destination to differ.
SELECT d.first_index, d.last_index
FROM deliveries d
WHERE d.tenant_id = $1 AND d.job_id = $2 AND d.destination_id = $3 AND d.drift IS NOT NULL
    AND d.first_index >= coalesce((
        SELECT m.first_index FROM deliveries m
        WHERE m.tenant_id = $1 AND m.job_id = $2 AND m.destination_id = $3 AND m.drift IS NOT NULL
            AND m.first_index <= $4
        ORDER BY m.first_index DESC LIMIT 1
    ), 0)
    AND d.last_index >= $4
ORDER BY d.first_index
LIMIT $5;

-- name: next_open_deliveries
-- Those that are not done, where there are few of them, with one of the states $6 (NULL: any).
WITH open AS MATERIALIZED (
    SELECT d.first_index, d.last_index, d.states
    FROM deliveries d
    WHERE d.tenant_id = $1 AND d.job_id = $2 AND d.destination_id = $3 AND d.state <> 'done'
)
SELECT o.first_index, o.last_index
FROM open o
WHERE o.last_index >= $4 AND (o.states ~ $6::text) IS NOT FALSE
ORDER BY o.first_index
LIMIT $5;

-- part: in_ranges
c.first_index = ANY (ARRAY(
    SELECT k.first_index
    FROM unnest($3::int[], $4::int[]) AS r(low, high)
    CROSS JOIN LATERAL (
        SELECT m.first_index FROM job_chunks m
        WHERE m.tenant_id = $1 AND m.job_id = $2 AND m.first_index <= r.high
            AND m.first_index >= coalesce((
                SELECT n.first_index FROM job_chunks n
                WHERE n.tenant_id = $1 AND n.job_id = $2 AND n.first_index <= r.low
                ORDER BY n.first_index DESC LIMIT 1
            ), 0)
    ) k
))

-- name: chunks_in
-- Outcomes that hold items of the ranges $3 to $4.
SELECT c.first_index, c.item_count, c.outcomes
FROM job_chunks c
WHERE c.tenant_id = $1 AND c.job_id = $2
    AND {{in_ranges}}
ORDER BY c.first_index;

-- name: sources_in
-- The items of these ranges that are not ok here, as they were sent.
SELECT c.sources
FROM job_chunks c
WHERE c.tenant_id = $1 AND c.job_id = $2 AND c.sources IS NOT NULL
    AND {{in_ranges}}
ORDER BY c.first_index;

-- name: deliveries_in
-- What became of items of the ranges $3 to $4 at each destination. Deliveries of one job to one destination never
-- overlap, so the last one that begins at or before an item is the only one that can hold it.
-- The LIMIT, which none reaches, keeps the planner from joining whole tables instead of looking into an index.
SELECT
    d.name, d.state = 'paused' AS paused, d.blocked_code, d.blocked_detail,
    greatest(extract(epoch FROM d.blocked_until - now()), 0)::float8 AS blocked_for,
    x.indexes, x.versions, x.states, x.errors, x.attempt, x.state,
    greatest(extract(epoch FROM x.next_attempt_at - now()), 0)::float8 AS next_in, x.delivery_id, x.not_restored,
    x.drift
FROM deliveries x
JOIN destinations d ON d.tenant_id = x.tenant_id AND d.destination_id = x.destination_id
WHERE x.tenant_id = $1
    AND x.delivery_id = ANY (ARRAY(
        SELECT k.delivery_id
        FROM effects e
        CROSS JOIN unnest($3::int[], $4::int[]) AS r(low, high)
        CROSS JOIN LATERAL (
            SELECT m.delivery_id FROM deliveries m
            WHERE m.tenant_id = $1 AND m.job_id = $2 AND m.destination_id = e.destination_id
                AND m.first_index <= r.high
                AND m.first_index >= coalesce((
                    SELECT n.first_index FROM deliveries n
                    WHERE n.tenant_id = $1 AND n.job_id = $2 AND n.destination_id = e.destination_id
                        AND n.first_index <= r.low
                    ORDER BY n.first_index DESC LIMIT 1
                ), 0)
            ORDER BY m.first_index
            LIMIT 1000000
        ) k
        WHERE e.tenant_id = $1 AND e.job_id = $2
    ))
ORDER BY x.delivery_id;

-- name: dead_letters_of_conflicts
-- What became of the dead letters of these items of an undo.
SELECT l.item_index, l.dead_letter_id, l.resolution, l.replay_job_id
FROM dead_letters l
WHERE l.tenant_id = $1 AND l.destination_id IS NULL AND l.job_id = $2 AND l.item_index = ANY ($3::int[]);

-- name: dead_letters_of_items
-- What became of the dead letters that these items of deliveries left.
SELECT l.delivery_id, l.item_index, l.dead_letter_id, l.resolution, l.replay_job_id
FROM unnest($2::bigint[], $3::int[]) AS k(delivery_id, item_index)
CROSS JOIN LATERAL (
    SELECT x.delivery_id, x.item_index, x.dead_letter_id, x.resolution, x.replay_job_id
    FROM dead_letters x
    WHERE x.tenant_id = $1 AND x.delivery_id = k.delivery_id AND x.item_index = k.item_index
    LIMIT 1
) l;
