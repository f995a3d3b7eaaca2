-- What every import ends with, one answered at once and a chunk of a file alike.

-- name: record_chunk
-- The outcomes of a run of items, and what each destination is owed. Deliveries cut the columns of ids, versions and
-- indexes at the first and last positions, once for each destination. For the separator and the mark of NULL see
-- app.kit.postgres.column_codec.
WITH outbox AS MATERIALIZED (
    SELECT
        split_column(:outbox_ids, :separator, :null) AS contact_ids, :outbox_versions::text::bigint[] AS versions,
        :outbox_indexes::text::int[] AS indexes
),
delivery AS (
    INSERT INTO deliveries (
        tenant_id, destination_id, job_id, request_id, first_index, last_index, contact_ids, versions, indexes, states
    )
    SELECT
        :tenant_id, d.destination_id, :job_id, :request_id, o.indexes[c.lo], o.indexes[c.hi],
        o.contact_ids[c.lo:c.hi], o.versions[c.lo:c.hi], o.indexes[c.lo:c.hi], repeat('p', c.hi - c.lo + 1)
    FROM outbox o
    CROSS JOIN unnest(:destination_ids::int[]) AS d(destination_id)
    CROSS JOIN unnest(:firsts::int[], :lasts::int[]) AS c(lo, hi)
    ORDER BY c.lo, d.destination_id
),
effect AS (
    INSERT INTO effects AS e (tenant_id, job_id, destination_id, pending)
    SELECT :tenant_id, :job_id, d.destination_id, cardinality(o.contact_ids)
    FROM outbox o
    CROSS JOIN unnest(:destination_ids::int[]) AS d(destination_id)
    WHERE o.contact_ids IS NOT NULL
    ORDER BY d.destination_id
    ON CONFLICT (tenant_id, job_id, destination_id) DO UPDATE SET pending = e.pending + excluded.pending
)
INSERT INTO job_chunks (tenant_id, job_id, first_index, item_count, failures, outcomes, sources)
VALUES (:tenant_id, :job_id, :first_index, :item_count, :failures::text::jsonb, :outcomes, :sources);
