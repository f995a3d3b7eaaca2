-- The next $1 rows of the ledger in the order of their keys, after the last that is there already, as rows of
-- record_versions; versions are not packed yet. A row holds what a chunk of a job made, at most 1,000 versions: a chunk that
-- is still to be processed gets a row between those of others, and each is found by its first index.
WITH page AS (
    SELECT
        o.*,
        greatest(o.item_index / 1000 * 1000, (
            SELECT k.first_index FROM job_chunks k
            WHERE k.tenant_id = o.tenant_id AND k.job_id = o.job_id AND k.first_index <= o.item_index
            ORDER BY k.first_index DESC LIMIT 1
        )) AS chunk
    FROM old_ledger o
    WHERE (o.tenant_id, o.job_id, o.item_index) > (
        coalesce((
            SELECT v.tenant_id FROM record_versions v ORDER BY v.tenant_id DESC, v.job_id DESC, v.first_index DESC LIMIT 1
        ), 0),
        coalesce((
            SELECT v.job_id FROM record_versions v ORDER BY v.tenant_id DESC, v.job_id DESC, v.first_index DESC LIMIT 1
        ), '00000000-0000-0000-0000-000000000000'),
        coalesce((
            SELECT v.indexes[cardinality(v.indexes)] FROM record_versions v
            ORDER BY v.tenant_id DESC, v.job_id DESC, v.first_index DESC LIMIT 1
        ), -1)
    )
    ORDER BY o.tenant_id, o.job_id, o.item_index
    LIMIT $1
)
SELECT
    o.tenant_id, o.job_id, min(o.item_index) AS first_index, min(o.changed_at) AS changed_at,
    array_agg(o.item_index ORDER BY o.item_index) AS indexes,
    CASE WHEN count(o.prev_job_id) > 0 THEN array_agg(o.prev_job_id ORDER BY o.item_index) END AS prev_job_ids,
    CASE WHEN count(o.prev_job_id) > 0 THEN array_agg(o.prev_item_index ORDER BY o.item_index) END AS prev_item_indexes,
    array_agg(json_build_array(
        o.contact_id, o.version, o.source_version, o.email = '', {document}, o.cleared
    )::text ORDER BY o.item_index) AS versions
FROM page o
GROUP BY o.tenant_id, o.job_id, o.chunk
ORDER BY o.tenant_id, o.job_id, o.chunk;
