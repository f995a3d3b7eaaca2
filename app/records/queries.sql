-- A record as it is, and its history: a chain of versions from the newest back.

-- part: record_columns
r.record_id, r.version, r.source_version, r.deleted, r.document, r.job_id, r.created_at, r.updated_at, r.cleared, r.withdrawn

-- name: list_records
-- A page of the records that there are, in the order of their ids, after one of them.
SELECT
    {{record_columns}}
FROM records r
WHERE r.tenant_id = :tenant_id AND r.type_id = :type_id AND r.record_id > :after AND NOT r.deleted
ORDER BY r.record_id
LIMIT :limit;

-- name: records_by_id
-- Those of these records that there are.
SELECT
    {{record_columns}}
FROM records r
WHERE r.tenant_id = :tenant_id AND r.type_id = :type_id AND r.record_id = ANY (:record_ids::text[]) AND NOT r.deleted
ORDER BY r.record_id;

-- name: next_changes
-- The next run of versions that a job with records of a type has made, after one of them; with a :signature, one that may
-- have a value with that (a run without signatures is older than they are). Its versions are NULL where :most were looked
-- at and none was such a run.
SELECT l.changed_at, l.job_id, l.first_index, CASE WHEN l.found THEN v.versions END AS versions
FROM (
    SELECT
        x.changed_at, x.job_id, x.first_index, row_number() OVER () = :most AS last,
        (:signature::int IS NULL OR x.signatures IS NULL OR :signature = ANY (x.signatures))
            AND (SELECT j.type FROM jobs j WHERE j.tenant_id = :tenant_id AND j.job_id = x.job_id) = :type AS found
    FROM (
        SELECT v.changed_at, v.job_id, v.first_index, v.signatures
        FROM record_versions v
        WHERE v.tenant_id = :tenant_id
            AND (v.changed_at, v.job_id, v.first_index) > (:after_time, :after_job, :after_index)
        ORDER BY v.changed_at, v.job_id, v.first_index
        LIMIT :most
    ) x
) l
JOIN record_versions v ON v.tenant_id = :tenant_id AND v.job_id = l.job_id AND v.first_index = l.first_index
WHERE l.found OR l.last
ORDER BY l.changed_at, l.job_id, l.first_index
LIMIT 1;

-- name: current_records
-- Those of these records that are as these items of a job left them, tombstones too; with a :value of the field :name,
-- those that have it.
SELECT
    {{record_columns}}
FROM records r
WHERE r.tenant_id = :tenant_id AND r.type_id = :type_id AND r.record_id = ANY (:record_ids::text[]) AND r.job_id = :job_id
    AND (:value::text IS NULL OR r.document ->> :name::text = :value)
ORDER BY r.item_index;

-- name: attribute_keys
-- The keys of all attributes of a type, up to a limit.
SELECT DISTINCT k.key
FROM records r
CROSS JOIN LATERAL jsonb_object_keys(r.document) AS k(key)
WHERE r.tenant_id = $1 AND r.type_id = $2 AND NOT r.deleted AND starts_with(k.key, 'attributes.')
ORDER BY k.key
LIMIT $3;

-- name: record_exists
-- Also a tombstone is one: its history is kept.
SELECT EXISTS (SELECT FROM records r WHERE r.tenant_id = $1 AND r.type_id = $2 AND r.record_id = $3);

-- name: read_history
-- :limit versions, newest first, after the one that item :after_item of job :after_job made (NULL: from the newest); who
-- made each, and which undo took it back. The chain is walked from its newest version on, since only those record undos.
WITH RECURSIVE past AS (
    SELECT r.job_id, r.item_index, 1 AS depth, CASE WHEN :after_job::uuid IS NULL THEN 1 ELSE 0 END AS place
    FROM records r
    WHERE r.tenant_id = :tenant_id AND r.type_id = :type_id AND r.record_id = :record_id
    UNION ALL
    SELECT
        v.prev_job_id, v.prev_item_index, p.depth + 1,
        CASE
            WHEN p.place > 0 THEN p.place + 1 WHEN p.job_id = :after_job AND p.item_index = :after_item::int THEN 1 ELSE 0
        END
    FROM past p
    {{version_at p}} v
    WHERE p.place < :limit::int AND v.prev_job_id IS NOT NULL
),
undone AS MATERIALIZED (
    SELECT p.depth, p.job_id, j.taken
    FROM past p
    CROSS JOIN LATERAL (
        SELECT coalesce(x.undo_of, x.retakes, x.root_job_id) AS taken FROM jobs x
        WHERE x.tenant_id = :tenant_id AND x.job_id = p.job_id AND x.kind = 'undo' LIMIT 1
    ) j
)
SELECT
    v.changed_at, p.job_id, p.item_index, v.block, v.place, j.kind, j.key_id, j.request_id,
    (
        SELECT u.job_id FROM undone u WHERE u.taken = p.job_id AND u.depth < p.depth ORDER BY u.depth DESC LIMIT 1
    ) AS undone_by
FROM past p
{{version_at p}} v
LEFT JOIN LATERAL (
    SELECT x.kind, x.key_id, x.request_id FROM jobs x WHERE x.tenant_id = :tenant_id AND x.job_id = p.job_id LIMIT 1
) j ON true
WHERE p.place > 0
ORDER BY p.depth;

-- name: read_record
SELECT
    {{record_columns}}
FROM records r
WHERE r.tenant_id = $1 AND r.type_id = $2 AND r.record_id = $3;

-- name: read_record_syncs
-- Every destination that records of the type go to, with what it holds of one record.
SELECT
    d.name, d.state = 'paused' AS paused, d.created_at, d.blocked_code, d.blocked_detail,
    greatest(extract(epoch FROM d.blocked_until - now()), 0)::float8 AS blocked_for,
    s.synced_version, s.synced_at, s.remote_id, s.state, s.state_version, s.error_code, s.error_detail, s.created,
    s.not_restored
FROM destinations d
LEFT JOIN record_syncs s
    ON s.tenant_id = d.tenant_id AND s.destination_id = d.destination_id AND s.type_id = :type_id AND s.record_id = :record_id
WHERE d.tenant_id = :tenant_id AND d.state <> 'removed' AND {{takes_type}}
ORDER BY d.name;
