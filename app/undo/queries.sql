-- Taking back what a job changed: the state before each of its items becomes a new version, unless somebody changed the
-- record since.

-- name: lock_undoable
-- A job that shall be undone. The lock makes two who ask at once one after the other.
SELECT j.kind, j.state, j.root_job_id, coalesce((j.options ->> 'dry_run')::boolean, false) AS dry_run,
    j.history_trimmed
FROM jobs j
WHERE j.tenant_id = $1 AND j.job_id = $2
FOR NO KEY UPDATE;

-- name: find_undo
-- A statement of its own: one that waited for the lock would still see what was there before it.
SELECT u.job_id FROM jobs u WHERE u.tenant_id = $1 AND u.undo_of = $2;

-- name: resume_undo
-- A job that takes something back, and failed, takes up its work where it ended. No row: it did not fail. The saga of an
-- undo is about the undo job, that of a consistency about the import, and looks at all its items once more: an operator may
-- have had some sent again meanwhile, which were refused again.
WITH taken AS (
    UPDATE jobs j
    SET
        state = CASE WHEN j.total > 0 THEN 'running' ELSE 'queued' END, error = NULL, finished_at = NULL,
        revision = j.revision + 1
    WHERE j.tenant_id = $1 AND j.job_id = $2 AND j.state = 'failed' AND j.kind = 'undo'
    RETURNING j.job_id, j.undo_of, j.root_job_id
)
UPDATE sagas s
SET
    state = 'running', step = 0, attempts = 0, due_at = now(), error = NULL, finished_at = NULL,
    dropped_at = NULL,
    data = CASE WHEN t.undo_of IS NULL THEN s.data #- '{tally,before}' ELSE s.data END
FROM taken t
WHERE s.tenant_id = $1 AND s.finished_at IS NOT NULL
    AND s.workflow = CASE WHEN t.undo_of IS NULL THEN 'consistency' ELSE 'undo' END
    AND s.subject = CASE WHEN t.undo_of IS NULL THEN t.root_job_id ELSE t.job_id END
RETURNING 1;

-- name: insert_undo
-- The job that takes something back: of `undo_of`, or of items (NULL) of `retakes` or its root. The job that is taken back
-- shows it.
WITH shown AS (
    UPDATE jobs SET revision = revision + 1
    WHERE tenant_id = :tenant_id AND job_id = coalesce(:undo_of::uuid, :retakes::uuid, :root_job_id::uuid)
)
INSERT INTO jobs (
    tenant_id, job_id, kind, type, state, root_job_id, request_id, trace_context, key_id, undo_of, total, succeeded, failed,
    retry, items, retakes
)
SELECT
    :tenant_id, :job_id, 'undo', j.type, 'queued', :root_job_id, :request_id, :trace_context, :key_id, :undo_of, 0, 0, 0,
    0, :items, :retakes
FROM jobs j
WHERE j.tenant_id = :tenant_id AND j.job_id = coalesce(:undo_of::uuid, :retakes::uuid, :root_job_id::uuid);

-- name: grow_undo
-- So many items more were found to be taken back.
UPDATE jobs SET items = items + $3 WHERE tenant_id = $1 AND job_id = $2;

-- name: read_undo
SELECT
    j.job_id, j.kind, j.undo_of, j.retakes, j.root_job_id, j.type, j.state, j.request_id, j.trace_context, j.key_id,
    j.finished_at IS NOT NULL AS finished
FROM jobs j
WHERE j.tenant_id = $1 AND j.job_id = $2;

-- name: lock_records
-- Records as they are now, held until the transaction ends; locked in key order, like every writer does.
SELECT
    r.record_id, r.version, r.source_version, r.job_id, r.item_index, r.prev_job_id, r.prev_item_index, r.document,
    r.cleared, r.withdrawn
FROM records r
WHERE r.tenant_id = $1 AND r.type_id = $2 AND r.record_id = ANY ($3::text[])
ORDER BY r.record_id
FOR NO KEY UPDATE;

-- name: read_makers
-- Who was behind these jobs.
SELECT j.job_id, j.kind, j.key_id, j.request_id
FROM jobs j
WHERE j.tenant_id = $1 AND j.job_id = ANY ($2::uuid[]);

-- name: find_own
-- Which of these versions, made by items of undo jobs, are what an item of the job :of had made, restored by one undo
-- or several: then nobody changed the record since. An undo's version is that before the one it took back, which lies
-- further down the chain (seek) where undos lie above it.
WITH RECURSIVE back AS (
    SELECT t.place, t.job_id, t.item_index, NULL::uuid AS seek
    FROM unnest(:job_ids::uuid[], :item_indexes::int[]) WITH ORDINALITY AS t(job_id, item_index, place)
    UNION ALL
    SELECT
        b.place, v.prev_job_id, v.prev_item_index,
        CASE WHEN b.seek IS NULL THEN j.taken WHEN b.seek <> b.job_id THEN b.seek END
    FROM back b
    {{version_at b}} v
    CROSS JOIN LATERAL (
        SELECT x.kind, coalesce(x.undo_of, x.retakes, x.root_job_id) AS taken FROM jobs x
        WHERE x.tenant_id = :tenant_id AND x.job_id = b.job_id LIMIT 1
    ) j
    WHERE (b.seek IS NOT NULL OR j.kind = 'undo') AND v.prev_job_id IS NOT NULL
)
SELECT DISTINCT b.place
FROM back b
JOIN unnest(:own_indexes::int[]) WITH ORDINALITY AS t(item_index, place)
    ON t.place = b.place AND t.item_index = b.item_index
WHERE b.seek IS NULL AND b.job_id = :of;

-- name: restore_records
-- Records that are locked, in the order of their ids, get these documents, as new versions that items of the job make.
WITH written AS (
    UPDATE records r
    SET
        version = r.version + 1,
        source_version = t.source_version,
        deleted = t.deleted,
        document = t.document::jsonb,
        updated_at = now(),
        job_id = :job_id,
        item_index = t.item_index,
        prev_job_id = r.job_id,
        prev_item_index = r.item_index,
        cleared = t.cleared::jsonb,
        withdrawn = t.withdrawn::jsonb
    FROM unnest(
        :record_ids::text[], :item_indexes::int[], :source_versions::bigint[], :deleted::boolean[], :documents::text[],
        :cleared::text[], :withdrawn::text[]
    ) AS t(record_id, item_index, source_version, deleted, document, cleared, withdrawn)
    WHERE r.tenant_id = :tenant_id AND r.type_id = :type_id AND r.record_id = ANY (:record_ids::text[]) AND r.record_id = t.record_id
    RETURNING 1
)
SELECT count(*)::int FROM written;

-- name: read_unsettled
-- Whether anything of an import can still change at a destination: its own deliveries, or a retry or replay of them.
SELECT
    j.state IN ('receiving', 'queued', 'running')
    OR EXISTS (
        SELECT FROM effects e
        WHERE e.tenant_id = $1 AND e.job_id = $2 AND e.pending + e.retry + e.unknown > 0
    )
    OR EXISTS (
        SELECT FROM jobs r
        WHERE r.tenant_id = $1 AND r.root_job_id = $2 AND r.job_id <> r.root_job_id
            AND r.kind = 'retry' AND r.finished_at IS NULL
    )
    -- A replay takes dead letters of many imports, and is of none of their families: the dead letters know it.
    OR EXISTS (
        SELECT FROM dead_letters l
        CROSS JOIN LATERAL (
            SELECT FROM jobs r
            WHERE r.tenant_id = $1 AND r.job_id = l.replay_job_id AND r.finished_at IS NULL
            LIMIT 1
        ) r
        WHERE l.tenant_id = $1 AND l.root_job_id = $2 AND l.resolution = 'replayed'
    )
FROM jobs j
WHERE j.tenant_id = $1 AND j.job_id = $2;

-- name: last_refused
-- No item of the job from this one to $3 was finally refused anywhere; NULL: none before $3 was.
SELECT max(least(d.last_index, $3 - 1))
FROM deliveries d
WHERE d.tenant_id = $1 AND d.job_id = $2 AND d.failures <> '{}' AND d.first_index < $3;

-- name: refused_items
-- Items of a job from $3 to $4 that ended failed or dead at some destination, with the dead letters that are still open; one
-- that was delivered or decided about since has none and is left out.
SELECT l.item_index, array_agg(o.dead_letter_id ORDER BY o.dead_letter_id) AS dead_letters
FROM deliveries d
JOIN dead_letters l ON l.tenant_id = $1 AND l.delivery_id = d.delivery_id AND l.item_index BETWEEN $3 AND $4
CROSS JOIN LATERAL (
    SELECT x.dead_letter_id FROM dead_letters x
    WHERE x.tenant_id = $1 AND x.dead_letter_id = l.dead_letter_id AND x.resolution IS NULL
    UNION ALL
    SELECT x.dead_letter_id FROM dead_letters x
    WHERE x.tenant_id = $1 AND x.chain_id = l.dead_letter_id AND x.resolution IS NULL
) o
WHERE d.tenant_id = $1 AND d.job_id = $2 AND d.failures <> '{}' AND d.first_index <= $4 AND d.last_index >= $3
GROUP BY l.item_index
ORDER BY l.item_index DESC;

-- name: drop_dead_letters
-- What was taken back is not to be sent any more: $4 says why.
UPDATE dead_letters
SET resolution = 'dropped', resolved_at = now(), resolved_by = $3, note = $4
WHERE tenant_id = $1 AND dead_letter_id = ANY ($2::bigint[]) AND resolution IS NULL;

