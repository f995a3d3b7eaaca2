-- The versions of records. A row has those that a chunk of a job made: the indexes of the items, who made the version
-- before each (NULL: there was none), and the versions in blocks of 128 (app.history.versions).

-- part: version_at
-- What is kept of the version that AT (job_id, item_index) made: its block, and its place in there from 0.
CROSS JOIN LATERAL (
    SELECT
        v.changed_at, v.prev_job_ids[p.place] AS prev_job_id, v.prev_item_indexes[p.place] AS prev_item_index,
        v.versions[1 + (p.place - 1) / 128] AS block, (p.place - 1) % 128 AS place
    FROM (
        SELECT x.changed_at, x.indexes, x.prev_job_ids, x.prev_item_indexes, x.versions FROM record_versions x
        WHERE x.tenant_id = :tenant_id AND x.job_id = AT.job_id AND x.first_index <= AT.item_index
        ORDER BY x.first_index DESC LIMIT 1
    ) v
    CROSS JOIN LATERAL (SELECT array_position(v.indexes, AT.item_index) AS place) p
    WHERE p.place IS NOT NULL
)

-- part: chunks_of_items
-- Those with what these items of these jobs made.
SELECT DISTINCT t.job_id, f.first_index
    FROM unnest(:job_ids::uuid[], :item_indexes::int[]) AS t(job_id, item_index)
    CROSS JOIN LATERAL (
        SELECT x.first_index FROM record_versions x
        WHERE x.tenant_id = :tenant_id AND x.job_id = t.job_id AND x.first_index <= t.item_index
        ORDER BY x.first_index DESC LIMIT 1
    ) f

-- name: chunks_with_versions
-- The chunks with what these items of these jobs made.
WITH chunks AS (
    {{chunks_of_items}}
)
SELECT v.job_id, v.first_index, v.indexes, v.prev_job_ids, v.prev_item_indexes, v.versions AS blocks
FROM chunks c
JOIN record_versions v ON v.tenant_id = :tenant_id AND v.job_id = c.job_id AND v.first_index = c.first_index;

-- name: hold_chunks
-- The same, for this transaction alone.
WITH chunks AS MATERIALIZED (
    {{chunks_of_items}}
)
SELECT v.first_index, v.job_id, v.indexes, v.prev_job_ids, v.prev_item_indexes, v.versions AS blocks
FROM chunks c
JOIN record_versions v ON v.tenant_id = :tenant_id AND v.job_id = c.job_id AND v.first_index = c.first_index
ORDER BY v.job_id, v.first_index
FOR UPDATE OF v;

-- name: rewrite_chunk
-- What is left of a chunk of which versions were removed.
UPDATE record_versions
SET
    indexes = :version_indexes::text::int[], prev_job_ids = :prev_job_ids::text::uuid[],
    prev_item_indexes = :prev_item_indexes::text::int[], versions = :version_blocks::bytea[],
    signatures = :signatures::text::int[]
WHERE tenant_id = :tenant_id AND job_id = :job_id AND first_index = :first_index;

-- name: drop_chunks_of_versions
DELETE FROM record_versions v
USING unnest($2::uuid[], $3::int[]) AS t(job_id, first_index)
WHERE v.tenant_id = $1 AND v.job_id = t.job_id AND v.first_index = t.first_index;

-- name: forget_priors
-- The versions before those of these chunks are gone.
UPDATE record_versions v
SET prev_job_ids = NULL, prev_item_indexes = NULL
FROM unnest($2::uuid[], $3::int[]) AS t(job_id, first_index)
WHERE v.tenant_id = $1 AND v.job_id = t.job_id AND v.first_index = t.first_index;

-- name: hold_makers
-- Those of these jobs that are finished, and are not being undone: nobody reads what they have made in order to restore it.
SELECT j.job_id
FROM jobs j
WHERE j.tenant_id = $1 AND j.job_id = ANY ($2::uuid[]) AND j.finished_at IS NOT NULL
    AND NOT EXISTS (
        SELECT FROM jobs u WHERE u.tenant_id = j.tenant_id AND u.undo_of = j.job_id AND u.finished_at IS NULL
    )
ORDER BY j.job_id
FOR NO KEY UPDATE OF j;

-- name: note_removals
-- Versions of these jobs, or those before them, are gone; $3: so many that the jobs cannot be undone.
UPDATE jobs j
SET
    history_trimmed = j.history_trimmed OR $3, revision = j.revision + 1,
    bare = j.trimmed_at IS NOT NULL
        AND NOT EXISTS (SELECT FROM record_versions v WHERE v.tenant_id = $1 AND v.job_id = j.job_id)
WHERE j.tenant_id = $1 AND j.job_id = ANY ($2::uuid[]);

-- name: chunk_before
-- The last chunk of a job that begins before the item $3.
SELECT v.job_id, v.first_index, v.indexes, v.prev_job_ids, v.prev_item_indexes, v.versions AS blocks
FROM record_versions v
WHERE v.tenant_id = $1 AND v.job_id = $2 AND v.first_index < $3
ORDER BY v.first_index DESC
LIMIT 1;

-- name: count_versions
SELECT coalesce(sum(cardinality(v.indexes)), 0)::int FROM record_versions v WHERE v.tenant_id = $1 AND v.job_id = $2;

-- name: walk_back
-- The versions of records, each from its current one back to `oldest`, newest first.
WITH RECURSIVE past AS (
    SELECT r.record_id, r.job_id, r.item_index, r.version, t.oldest
    FROM unnest(:record_ids::text[], :oldest::bigint[]) AS t(record_id, oldest)
    JOIN records r ON r.tenant_id = :tenant_id AND r.type_id = :type_id AND r.record_id = t.record_id
    UNION ALL
    SELECT p.record_id, v.prev_job_id, v.prev_item_index, p.version - 1, p.oldest
    FROM past p
    {{version_at p}} v
    WHERE p.version > p.oldest AND v.prev_job_id IS NOT NULL
)
SELECT p.record_id, p.job_id, p.item_index, v.changed_at, v.block, v.place
FROM past p
{{version_at p}} v
ORDER BY p.record_id, p.version DESC;
