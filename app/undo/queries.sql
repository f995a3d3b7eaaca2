-- Taking back what a job changed: the state before each of its items becomes a new version, unless somebody changed the
-- contact since.

-- name: lock_undoable
-- A job that shall be undone. The lock makes two who ask at once one after the other.
SELECT j.kind, j.state, j.root_job_id, coalesce((j.options ->> 'dry_run')::boolean, false) AS dry_run
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
    data = CASE WHEN t.undo_of IS NULL THEN s.data #- '{tally,before}' ELSE s.data END
FROM taken t
WHERE s.tenant_id = $1 AND s.finished_at IS NOT NULL
    AND s.workflow = CASE WHEN t.undo_of IS NULL THEN 'consistency' ELSE 'undo' END
    AND s.subject = CASE WHEN t.undo_of IS NULL THEN t.root_job_id ELSE t.job_id END
RETURNING 1;

-- name: count_changes
SELECT count(*)::int FROM ledger l WHERE l.tenant_id = $1 AND l.job_id = $2;

-- name: insert_undo
-- The job that takes something back: of `undo_of`, or of items of its root (NULL). The job that is taken back shows it.
WITH shown AS (
    UPDATE jobs SET revision = revision + 1
    WHERE tenant_id = :tenant_id AND job_id = coalesce(:undo_of::uuid, :root_job_id::uuid)
)
INSERT INTO jobs (
    tenant_id, job_id, kind, state, root_job_id, request_id, key_id, undo_of, total, succeeded, failed, retry, items
)
VALUES (:tenant_id, :job_id, 'undo', 'queued', :root_job_id, :request_id, :key_id, :undo_of, 0, 0, 0, 0, :items);

-- name: grow_undo
-- So many items more were found to be taken back.
UPDATE jobs SET items = items + $3 WHERE tenant_id = $1 AND job_id = $2;

-- name: read_undo
SELECT j.job_id, j.undo_of, j.root_job_id, j.state, j.request_id, j.key_id, j.finished_at IS NOT NULL AS finished
FROM jobs j
WHERE j.tenant_id = $1 AND j.job_id = $2;

-- name: undo_items
-- What a job changed, the last item before $3 first.
SELECT l.item_index, l.contact_id, l.version, l.source_version, l.prev_job_id, l.prev_item_index
FROM ledger l
WHERE l.tenant_id = $1 AND l.job_id = $2 AND l.item_index < $3
ORDER BY l.item_index DESC
LIMIT $4;

-- name: undo_items_at
-- The same of these items ($3).
SELECT l.item_index, l.contact_id, l.version, l.source_version, l.prev_job_id, l.prev_item_index
FROM ledger l
WHERE l.tenant_id = $1 AND l.job_id = $2 AND l.item_index = ANY ($3::int[])
ORDER BY l.item_index DESC;

-- name: lock_contacts
-- Contacts as they are now, held until the transaction ends; locked in key order, like every writer does.
SELECT
    c.contact_id, c.version, c.source_version, c.job_id, c.item_index, c.prev_job_id, c.prev_item_index,
    {{fields c}}, ARRAY(SELECT jsonb_object_keys(c.attributes)) AS keys,
    c.cleared, c.withdrawn
FROM contacts c
WHERE c.tenant_id = $1 AND c.contact_id = ANY ($2::text[])
ORDER BY c.contact_id
FOR NO KEY UPDATE;

-- name: read_makers
-- Who was behind these jobs.
SELECT j.job_id, j.kind, j.key_id, j.request_id
FROM jobs j
WHERE j.tenant_id = $1 AND j.job_id = ANY ($2::uuid[]);

-- name: find_own
-- Which of these versions, made by items $3 of undo jobs $2, are what item $4 of job $5 had made, restored by one undo
-- or several: then nobody changed the contact since. An undo's version is that before the one it took back, which lies
-- further down the chain (seek) where undos lie above it.
WITH RECURSIVE back AS (
    SELECT t.place, t.job_id, t.item_index, NULL::uuid AS seek
    FROM unnest($2::uuid[], $3::int[]) WITH ORDINALITY AS t(job_id, item_index, place)
    UNION ALL
    SELECT
        b.place, l.prev_job_id, l.prev_item_index,
        CASE WHEN b.seek IS NULL THEN j.taken WHEN b.seek <> b.job_id THEN b.seek END
    FROM back b
    CROSS JOIN LATERAL (
        SELECT x.prev_job_id, x.prev_item_index FROM ledger x
        WHERE x.tenant_id = $1 AND x.job_id = b.job_id AND x.item_index = b.item_index LIMIT 1
    ) l
    CROSS JOIN LATERAL (
        SELECT x.kind, coalesce(x.undo_of, x.root_job_id) AS taken FROM jobs x
        WHERE x.tenant_id = $1 AND x.job_id = b.job_id LIMIT 1
    ) j
    WHERE (b.seek IS NOT NULL OR j.kind = 'undo') AND l.prev_job_id IS NOT NULL
)
SELECT DISTINCT b.place
FROM back b
JOIN unnest($4::int[]) WITH ORDINALITY AS t(item_index, place) ON t.place = b.place AND t.item_index = b.item_index
WHERE b.seek IS NULL AND b.job_id = $5;

-- name: read_befores
-- The versions before, by who made them: $2 jobs, $3 items; a tombstone is none.
SELECT
    t.place, b.contact_id, b.source_version, {{fields b}}, b.attributes,
    b.cleared
FROM unnest($2::uuid[], $3::int[]) WITH ORDINALITY AS t(job_id, item_index, place)
CROSS JOIN LATERAL (
    SELECT l.* FROM ledger l
    WHERE l.tenant_id = $1 AND l.job_id = t.job_id AND l.item_index = t.item_index AND l.email <> ''
    LIMIT 1
) b;

-- name: restore_contacts
-- Contacts that are locked, in the order of their ids, get back what was there before, as a new version that items of the
-- job make. Where there was nothing before the contact becomes a tombstone (an empty e-mail address).
WITH past AS MATERIALIZED (
    SELECT
        t.contact_id, t.item_index, t.cleared, t.withdrawn, b.source_version, coalesce(b.email, '') AS email,
        {{each optional: b.NAME}}, coalesce(b.attributes, '{}') AS attributes
    FROM unnest(
        :contact_ids::text[], :places::int[], :prev_job_ids::uuid[], :prev_item_indexes::int[], :cleared::text[],
        :withdrawn::text[]
    ) AS t(contact_id, item_index, prev_job_id, prev_item_index, cleared, withdrawn)
    LEFT JOIN LATERAL (
        SELECT l.* FROM ledger l
        WHERE l.tenant_id = :tenant_id AND l.job_id = t.prev_job_id AND l.item_index = t.prev_item_index
        LIMIT 1
    ) b ON true
),
written AS (
    UPDATE contacts c
    SET
        version = c.version + 1,
        source_version = p.source_version,
        {{each field: NAME = p.NAME}},
        attributes = p.attributes,
        updated_at = now(),
        job_id = :job_id,
        item_index = p.item_index,
        prev_job_id = c.job_id,
        prev_item_index = c.item_index,
        mask = 0,
        removed = NULL,
        expected = NULL,
        cleared = p.cleared::jsonb,
        withdrawn = p.withdrawn::jsonb
    FROM past p
    WHERE c.tenant_id = :tenant_id AND c.contact_id = ANY (:contact_ids::text[]) AND c.contact_id = p.contact_id
    {{enter_in_ledger}}
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

