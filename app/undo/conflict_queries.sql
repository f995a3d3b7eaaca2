-- Dead letters of undos: records that somebody changed since, so that they were left as they are.

-- name: lock_conflicts
-- Open ones of these records ($3) and items of the job $4. Before the records themselves: who replays dead letters locks
-- them first, too.
SELECT
    l.dead_letter_id, coalesce(l.chain_id, l.dead_letter_id) AS chain_id, l.record_id,
    (l.conflict ->> 'item_index')::int AS item_index
FROM dead_letters l
WHERE l.tenant_id = $1 AND l.destination_id IS NULL AND l.type_id = $2 AND l.record_id = ANY ($3::text[])
    AND l.resolution IS NULL AND (l.conflict ->> 'job_id')::uuid = $4
ORDER BY l.dead_letter_id
FOR UPDATE;

-- name: insert_conflicts
INSERT INTO dead_letters (
    tenant_id, type_id, record_id, version, job_id, item_index, state, error_code, error_detail, attempts, request_id,
    root_job_id, chain_id, conflict
)
SELECT
    :tenant_id, :type_id, t.record_id, t.version, :job_id, t.item_index, 'failed', :code, t.detail, 1, :request_id,
    (SELECT j.root_job_id FROM jobs j WHERE j.tenant_id = :tenant_id AND j.job_id = :job_id), t.chain_id,
    t.conflict::jsonb
FROM unnest(
    :record_ids::text[], :versions::bigint[], :item_indexes::int[], :details::text[], :chain_ids::bigint[],
    :conflicts::text[]
) AS t(record_id, version, item_index, detail, chain_id, conflict)
ORDER BY t.item_index;

-- name: notify_conflicts
-- One event for what a range of items has just left; as in notify_dead_letters.
WITH notified AS (
    SELECT
        l.root_job_id, l.item_index,
        jsonb_build_object(
            'index', l.item_index, 'type', :type::text, 'id', l.record_id, 'version', l.version, 'state', l.state,
            'code', l.error_code, 'detail', :sentence::text, 'dead_letter_id', l.dead_letter_id
        ) AS item
    FROM dead_letters l
    WHERE l.tenant_id = :tenant_id AND l.destination_id IS NULL AND l.job_id = :job_id
        AND l.item_index = ANY (:item_indexes::int[])
),
measured AS (
    SELECT t.*, sum(octet_length(t.item::text)) OVER (ORDER BY t.item_index) AS bytes FROM notified t
),
event AS MATERIALIZED (
    SELECT
        gen_random_uuid() AS event_id, 'item.dead' AS type,
        jsonb_build_object(
            'kind', 'undo',
            'destination', NULL,
            'job_id', :job_id::uuid,
            'root_job_id', m.root_job_id,
            'count', count(*),
            'items', jsonb_agg(m.item ORDER BY m.item_index) FILTER (WHERE m.bytes <= :most_bytes::int),
            'items_url', '/v1/dead-letters?kind=undo&job_id=' || :job_id
        ) AS data
    FROM measured m
    GROUP BY m.root_job_id
)
INSERT INTO webhook_messages {{event_messages}};

-- name: supersede_conflicts
-- $3 says why.
UPDATE dead_letters
SET resolution = 'superseded', resolved_at = now(), resolved_by = 'tranche', note = $3
WHERE tenant_id = $1 AND dead_letter_id = ANY ($2::bigint[]) AND resolution IS NULL;

-- name: being_erased
-- Those of these records of a type that an erasure names which is not finished.
SELECT e.id
FROM sagas s
JOIN jobs j ON j.tenant_id = $1 AND j.job_id = s.subject AND j.type = $2
CROSS JOIN LATERAL jsonb_array_elements_text(s.data -> 'ids') AS e(id)
WHERE s.tenant_id = $1 AND s.finished_at IS NULL AND s.workflow = 'erase' AND e.id = ANY ($3::text[]);
