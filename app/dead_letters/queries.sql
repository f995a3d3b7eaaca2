-- Dead letters: what Tranche no longer tries, and what operators decide about it.
--
-- Whoever decides about dead letters first chooses ids, then locks those that are still open, in the order of ids. A dead letter
-- that somebody else decided about meanwhile is no longer open when its lock is had: nothing is decided twice.

-- name: dead_letter_destinations
-- Removed ones too: their dead letters stay.
SELECT d.destination_id, d.name, d.state = 'removed' AS removed
FROM destinations d
WHERE d.tenant_id = $1
ORDER BY d.name, d.destination_id;

-- part: dead_letter_columns
l.dead_letter_id, l.destination_id, l.type_id, l.record_id, l.version, l.state, l.error_code, l.error_detail, l.attempts,
    l.job_id, l.root_job_id, l.item_index, l.request_id, l.created_at, l.chain_id, l.resolution, l.resolved_at,
    l.resolved_by, l.note, l.replay_job_id, l.delivery_id, l.conflict,
    (SELECT j.kind FROM jobs j WHERE j.tenant_id = :tenant_id AND j.job_id = l.job_id) AS job_kind,
    (SELECT t.name FROM resource_types t WHERE t.tenant_id = :tenant_id AND t.type_id = l.type_id) AS declared_type

-- part: job_and_retries
SELECT :job_id::uuid AS job_id
UNION ALL
SELECT j.job_id FROM jobs j WHERE j.tenant_id = :tenant_id AND j.root_job_id = :job_id AND j.root_job_id <> j.job_id

-- part: chosen_dead_letters
-- The open dead letters that are meant: of a job (those that it began, and those that it and its retries ran into) or,
-- without one, of all; by destination (NULL among them: of undos), code, state, record and time (NULL: any).
SELECT c.dead_letter_id, c.destination_id, c.type_id, c.record_id, c.error_code, c.state, c.created_at
FROM (
    SELECT l.dead_letter_id, l.destination_id, l.type_id, l.record_id, l.error_code, l.state, l.created_at
    FROM dead_letters l
    WHERE :job_id::uuid IS NULL AND l.tenant_id = :tenant_id AND l.destination_id = ANY (:destination_ids::int[])
        AND l.resolution IS NULL
    UNION ALL
    SELECT l.dead_letter_id, l.destination_id, l.type_id, l.record_id, l.error_code, l.state, l.created_at
    FROM dead_letters l
    WHERE :job_id IS NULL AND array_position(:destination_ids, NULL::int) IS NOT NULL
        AND l.tenant_id = :tenant_id AND l.destination_id IS NULL AND l.resolution IS NULL
    UNION ALL
    SELECT l.dead_letter_id, l.destination_id, l.type_id, l.record_id, l.error_code, l.state, l.created_at
    FROM dead_letters l
    WHERE :job_id IS NOT NULL AND l.tenant_id = :tenant_id AND l.root_job_id = :job_id AND l.resolution IS NULL
    UNION ALL
    SELECT l.dead_letter_id, l.destination_id, l.type_id, l.record_id, l.error_code, l.state, l.created_at
    FROM (
        {{job_and_retries}}
    ) f
    JOIN deliveries d ON d.tenant_id = :tenant_id AND d.job_id = f.job_id AND d.failures <> '{}'
    JOIN dead_letters l ON l.tenant_id = :tenant_id AND l.delivery_id = d.delivery_id
    WHERE :job_id IS NOT NULL AND l.root_job_id <> :job_id AND l.resolution IS NULL
    UNION ALL
    SELECT l.dead_letter_id, l.destination_id, l.type_id, l.record_id, l.error_code, l.state, l.created_at
    FROM dead_letters l
    WHERE :job_id IS NOT NULL AND l.tenant_id = :tenant_id AND l.destination_id IS NULL AND l.job_id = :job_id
        AND l.root_job_id <> :job_id AND l.resolution IS NULL
) c
WHERE (
        c.destination_id = ANY (:destination_ids)
        OR c.destination_id IS NULL AND array_position(:destination_ids, NULL::int) IS NOT NULL
    )
    AND (c.error_code = :error_code::text) IS NOT FALSE
    AND (c.state = :state::text) IS NOT FALSE
    AND (c.record_id = :record_id::text) IS NOT FALSE
    AND (c.created_at < :created_before::timestamptz) IS NOT FALSE

-- name: choose_dead_letters
-- Their ids, record by record.
SELECT c.dead_letter_id
FROM (
    {{chosen_dead_letters}}
) c
ORDER BY c.destination_id, c.type_id, c.record_id, c.dead_letter_id
LIMIT :limit;

-- name: dead_letter_clusters
-- The same dead letters, counted by destination and code.
WITH counted AS (
    SELECT
        c.destination_id, c.error_code, count(*) AS count,
        count(*) FILTER (WHERE c.state = 'failed') AS failed, count(*) FILTER (WHERE c.state = 'dead') AS dead,
        min(c.created_at) AS oldest, max(c.created_at) AS newest,
        (array_agg(c.dead_letter_id ORDER BY c.dead_letter_id))[1:5] AS samples
    FROM (
        {{chosen_dead_letters}}
    ) c
    GROUP BY c.destination_id, c.error_code
)
SELECT
    n.destination_id, n.error_code, n.count, n.failed, n.dead, n.oldest, n.newest, n.samples,
    (
        SELECT l.error_detail FROM dead_letters l
        WHERE l.tenant_id = :tenant_id AND l.dead_letter_id = n.samples[1]
    ) AS detail
FROM counted n
ORDER BY n.count DESC, n.destination_id, n.error_code;

-- name: list_dead_letters
-- A page of dead letters, newest first, before an id. Only the newest of those on the path are looked at:
-- the page may hold fewer than it could, and says how low it looked.
--   the path: by job · by record · over those that are open (`resolution`: 'open', 'any' or a word) · over all
-- A way that is not gone is a constant's question, and costs nothing.
WITH looked AS MATERIALIZED (
    (
        SELECT l.* FROM dead_letters l
        WHERE :job_id::uuid IS NULL AND :record_id::text IS NULL AND :resolution::text = 'open'
            AND l.tenant_id = :tenant_id AND l.resolution IS NULL AND l.dead_letter_id < :before
        ORDER BY l.dead_letter_id DESC
        LIMIT :most_looked
    )
    UNION ALL
    (
        SELECT l.* FROM dead_letters l
        WHERE :job_id IS NULL AND :record_id IS NULL AND :resolution <> 'open' AND l.tenant_id = :tenant_id AND l.dead_letter_id < :before
        ORDER BY l.dead_letter_id DESC
        LIMIT :most_looked
    )
    UNION ALL
    (
        SELECT l.* FROM dead_letters l
        WHERE :job_id IS NULL AND :record_id IS NOT NULL
            AND l.tenant_id = :tenant_id AND l.record_id = :record_id AND l.dead_letter_id < :before
        ORDER BY l.dead_letter_id DESC
        LIMIT :most_looked
    )
    UNION ALL
    (
        SELECT l.*
        FROM (
            SELECT x.dead_letter_id FROM dead_letters x
            WHERE :job_id IS NOT NULL AND x.tenant_id = :tenant_id AND x.root_job_id = :job_id AND x.dead_letter_id < :before
            UNION
            SELECT x.dead_letter_id
            FROM (
                {{job_and_retries}}
            ) f
            JOIN deliveries d ON d.tenant_id = :tenant_id AND d.job_id = f.job_id AND d.failures <> '{}'
            JOIN dead_letters x ON x.tenant_id = :tenant_id AND x.delivery_id = d.delivery_id
            WHERE :job_id IS NOT NULL AND x.dead_letter_id < :before
            UNION
            SELECT x.dead_letter_id FROM dead_letters x
            WHERE :job_id IS NOT NULL AND x.tenant_id = :tenant_id AND x.destination_id IS NULL AND x.job_id = :job_id
                AND x.dead_letter_id < :before
            ORDER BY 1 DESC
            LIMIT :most_looked
        ) k
        JOIN dead_letters l ON l.tenant_id = :tenant_id AND l.dead_letter_id = k.dead_letter_id
    )
)
SELECT
    (SELECT min(m.dead_letter_id) FROM looked m) AS low, (SELECT count(*) FROM looked m) AS looked,
    {{dead_letter_columns}}
FROM (SELECT 1) one
LEFT JOIN looked l ON (
        l.destination_id = ANY (:destination_ids::int[])
        OR l.destination_id IS NULL AND array_position(:destination_ids, NULL::int) IS NOT NULL
    )
    AND (l.error_code = :error_code::text) IS NOT FALSE
    AND (l.state = :state::text) IS NOT FALSE
    AND (l.record_id = :record_id) IS NOT FALSE
    AND (:resolution = 'any' OR coalesce(l.resolution, 'open') = :resolution)
ORDER BY l.dead_letter_id DESC
LIMIT :limit;

-- name: read_dead_letters
-- Dead letters by id, however they ended.
SELECT
    {{dead_letter_columns}}
FROM dead_letters l
WHERE l.tenant_id = :tenant_id AND l.dead_letter_id = ANY (:ids::bigint[])
ORDER BY l.dead_letter_id;

-- name: read_chain
-- The dead letter that a chain began with and those that replays added.
SELECT
    {{dead_letter_columns}}
FROM dead_letters l
WHERE l.tenant_id = :tenant_id
    AND l.dead_letter_id = ANY (
        :first::bigint || ARRAY(
            SELECT x.dead_letter_id FROM dead_letters x
            WHERE x.tenant_id = :tenant_id AND x.chain_id = :first
            ORDER BY x.dead_letter_id DESC
            LIMIT 100
        )
    )
ORDER BY l.dead_letter_id;

-- name: read_calls
-- The evidence of a dead letter: calls of its delivery ($2) that its item ($3) went along with, the last ones.
SELECT c.attempt, c.call, c.asked, c.event_id, c.sent_at, c.milliseconds, c.status, c.detail
FROM delivery_calls c
WHERE c.tenant_id = $1 AND c.delivery_id = $2
    AND (c.positions IS NULL OR (
        SELECT array_position(d.indexes, $3) - 1 FROM deliveries d
        WHERE d.tenant_id = $1 AND d.delivery_id = $2
    ) = ANY (c.positions))
ORDER BY c.attempt DESC, c.call DESC
LIMIT 50;

-- name: lock_dead_letters
-- Those of these dead letters that are open, for this transaction alone.
SELECT
    {{dead_letter_columns}}
FROM dead_letters l
WHERE l.tenant_id = :tenant_id AND l.dead_letter_id = ANY (:ids::bigint[]) AND l.resolution IS NULL
ORDER BY l.dead_letter_id
FOR UPDATE;

-- name: resolve_dead_letters
-- Ends dead letters that this transaction holds.
UPDATE dead_letters l
SET resolution = $3, resolved_at = now(), resolved_by = $4, note = $5, replay_job_id = $6
WHERE l.tenant_id = $1 AND l.dead_letter_id = ANY ($2::bigint[]) AND l.resolution IS NULL;

-- name: touch_roots
-- The jobs that it all began with show what became of their items: their revisions grow.
WITH held AS MATERIALIZED (
    SELECT j.job_id FROM jobs j
    WHERE j.tenant_id = $1 AND j.job_id = ANY ($2::uuid[])
    ORDER BY j.job_id
    FOR NO KEY UPDATE
)
UPDATE jobs j
SET revision = j.revision + 1
WHERE j.tenant_id = $1 AND j.job_id = ANY (ARRAY(SELECT h.job_id FROM held h));

-- name: insert_attempt
-- The job that sends dead letters again: its items are decided, and so many of them pending for each destination.
WITH effect AS (
    INSERT INTO effects (tenant_id, job_id, destination_id, pending)
    SELECT :tenant_id, :job_id, e.destination_id, e.items
    FROM unnest(:destination_ids::int[], :items::int[]) AS e(destination_id, items)
    ORDER BY e.destination_id
)
INSERT INTO jobs (
    tenant_id, job_id, kind, type, state, root_job_id, request_id, trace_context, key_id, total, succeeded, failed, retry,
    results, items, started_at, applied_at
)
VALUES (
    :tenant_id, :job_id, :kind, :type, 'syncing', :root_job_id, :request_id, :trace_context, :key_id, :total, :total, 0, 0,
    jsonb_build_object('unchanged', :total::int), :total, now(), now()
);

-- name: insert_attempt_chunk
INSERT INTO job_chunks (tenant_id, job_id, first_index, item_count, outcomes) VALUES (:tenant_id, :job_id, :first_index, :item_count, :outcomes);

-- name: insert_attempt_deliveries
-- What one destination is sent again: columns that are cut at first positions (lows) and last ones (highs); each delivery
-- is due after its seconds.
INSERT INTO deliveries (
    tenant_id, destination_id, type_id, job_id, request_id, first_index, last_index, record_ids, versions, indexes, dead_letters,
    states, next_attempt_at
)
SELECT
    :tenant_id, :destination_id, :type_id, :job_id, :request_id, (:indexes::int[])[c.low], (:indexes::int[])[c.high],
    (:record_ids::text[])[c.low:c.high], (:versions::bigint[])[c.low:c.high], (:indexes::int[])[c.low:c.high], (:dead_letters::bigint[])[c.low:c.high], repeat('p', c.high - c.low + 1),
    now() + c.seconds * interval '1 second'
FROM unnest(:lows::int[], :highs::int[], :seconds::float8[]) AS c(low, high, seconds)
ORDER BY c.low;

-- name: paced_until
-- Seconds until the last delivery of earlier retries and replays that waits until it is due is due. Only the latest
-- thousand are looked at; who waits after an attempt has another reason to.
SELECT extract(epoch FROM max(w.next_attempt_at) - now())::float8
FROM (
    SELECT d.next_attempt_at, d.dead_letters, d.attempt
    FROM deliveries d
    WHERE d.tenant_id = $1 AND d.destination_id = $2 AND d.state = 'pending' AND d.next_attempt_at > now()
    ORDER BY d.next_attempt_at DESC, d.delivery_id DESC
    LIMIT 1000
) w
WHERE w.dead_letters IS NOT NULL AND w.attempt = 0;

-- name: attempt_job
SELECT j.kind, j.state, j.root_job_id FROM jobs j WHERE j.tenant_id = $1 AND j.job_id = $2;

-- name: make_due
-- Deliveries of a job and its retries to these destinations that wait after an attempt are due now. One that nobody
-- has tried waits until it is due, because a replay is paced; one that somebody holds is being seen to. IS TRUE and the
-- LIMIT, which none reaches, keep the planner from walking through all that a tenant has due.
WITH waiting AS MATERIALIZED (
    SELECT d.delivery_id
    FROM (
        {{job_and_retries}}
    ) f
    CROSS JOIN unnest(:destination_ids::int[]) AS p(destination_id)
    CROSS JOIN LATERAL (
        SELECT x.delivery_id FROM deliveries x
        WHERE x.tenant_id = :tenant_id AND x.job_id = f.job_id AND x.destination_id = p.destination_id
            AND x.state <> 'done' AND (x.state = 'pending') IS TRUE AND x.attempt > 0 AND x.next_attempt_at > now()
        LIMIT 1000000
    ) d
),
held AS MATERIALIZED (
    SELECT d.delivery_id, count_state(d.states, 'p') + count_state(d.states, 'r') + count_state(d.states, 'u') AS items
    FROM deliveries d
    WHERE d.tenant_id = :tenant_id AND d.delivery_id = ANY (ARRAY(SELECT w.delivery_id FROM waiting w))
        AND (d.state = 'pending') IS TRUE
    ORDER BY d.delivery_id
    FOR UPDATE SKIP LOCKED
),
moved AS (
    UPDATE deliveries d
    SET next_attempt_at = now()
    WHERE d.tenant_id = :tenant_id AND d.delivery_id = ANY (ARRAY(SELECT h.delivery_id FROM held h))
)
SELECT coalesce(sum(h.items), 0)::int FROM held h;

-- name: running_attempt
-- The newest job of a family that still has something to do at one of these destinations, and at which.
SELECT j.job_id, j.kind, j.state, j.root_job_id, e.destination_ids
FROM (
    {{job_and_retries}}
    UNION
    -- Replays that have taken its dead letters; of very many the latest are looked at.
    SELECT r.replay_job_id
    FROM (
        SELECT l.replay_job_id FROM dead_letters l
        WHERE l.tenant_id = :tenant_id AND l.root_job_id = :job_id AND l.destination_id = ANY (:destination_ids::int[])
        ORDER BY l.dead_letter_id DESC
        LIMIT 1000
    ) r
    WHERE r.replay_job_id IS NOT NULL
) f
JOIN jobs j ON j.tenant_id = :tenant_id AND j.job_id = f.job_id
CROSS JOIN LATERAL (
    SELECT array_agg(x.destination_id) AS destination_ids FROM effects x
    WHERE x.tenant_id = :tenant_id AND x.job_id = f.job_id AND x.destination_id = ANY (:destination_ids::int[])
        AND x.pending + x.retry + x.unknown > 0
) e
WHERE j.state = 'syncing' AND (j.kind <> 'undo' OR j.job_id = :job_id) AND e.destination_ids IS NOT NULL
ORDER BY j.job_id DESC
LIMIT 1;

-- name: supersede_settled
-- Dead letters of the same records in the same or earlier versions ($5) need nobody any more. $6 are those being settled.
UPDATE dead_letters l
SET resolution = 'superseded', resolved_at = now(), resolved_by = $7, note = 'a later version was settled as delivered'
WHERE l.tenant_id = $1 AND l.resolution IS NULL
    AND l.dead_letter_id = ANY (ARRAY(
        SELECT o.dead_letter_id
        FROM unnest($2::int[], $3::int[], $4::text[], $5::bigint[]) AS t(destination_id, type_id, record_id, version)
        CROSS JOIN LATERAL (
            SELECT x.dead_letter_id FROM dead_letters x
            WHERE x.tenant_id = $1 AND x.destination_id = t.destination_id AND x.type_id = t.type_id
                AND x.record_id = t.record_id AND x.version <= t.version AND x.resolution IS NULL
                AND x.dead_letter_id <> ALL ($6::bigint[])
            LIMIT 100
        ) o
        ORDER BY o.dead_letter_id
    ));

-- name: settle_syncs
-- An operator says that the destinations $2 hold the records $4 of the types $3 at the versions $5.
INSERT INTO record_syncs AS s (
    tenant_id, destination_id, type_id, record_id, synced_version, synced_at, state, state_version
)
SELECT $1, t.destination_id, t.type_id, t.record_id, t.version, now(), 'ok', t.version
FROM unnest($2::int[], $3::int[], $4::text[], $5::bigint[]) AS t(destination_id, type_id, record_id, version)
ORDER BY t.destination_id, t.type_id, t.record_id
ON CONFLICT (tenant_id, destination_id, type_id, record_id) DO UPDATE
SET
    synced_version = greatest(s.synced_version, excluded.synced_version),
    synced_at = excluded.synced_at,
    state = CASE WHEN s.state_version <= excluded.state_version THEN 'ok' ELSE s.state END,
    state_version = greatest(s.state_version, excluded.state_version),
    error_code = CASE WHEN s.state_version > excluded.state_version THEN s.error_code END,
    error_detail = CASE WHEN s.state_version > excluded.state_version THEN s.error_detail END;

-- name: note_decision
-- What an operator decided, a row for each subject.
INSERT INTO audit_log (tenant_id, actor, action, subject, detail)
SELECT $1, $2, $3, t.subject, t.detail::jsonb
FROM unnest($4::text[], $5::text[]) AS t(subject, detail);
