-- What every import ends with, one answered at once and a chunk of a file alike.

-- name: record_chunk
-- The outcomes of a run of items, and what each destination is owed. Deliveries cut the columns $10 ids, $11 versions,
-- $12 indexes at $13 (first positions) and $14 (last positions), once for each destination in $9. $15 separator, $16
-- mark of NULL (app.db.columns).
WITH owed AS MATERIALIZED (
    SELECT
        split_column($10, $15, $16) AS contact_ids, $11::text::bigint[] AS versions, $12::text::int[] AS indexes
),
delivery AS (
    INSERT INTO deliveries (
        tenant_id, destination_id, job_id, request_id, first_index, last_index, contact_ids, versions, indexes, states
    )
    SELECT
        $1, d.destination_id, $2, $3, o.indexes[c.lo], o.indexes[c.hi],
        o.contact_ids[c.lo:c.hi], o.versions[c.lo:c.hi], o.indexes[c.lo:c.hi], repeat('p', c.hi - c.lo + 1)
    FROM owed o
    CROSS JOIN unnest($9::int[]) AS d(destination_id)
    CROSS JOIN unnest($13::int[], $14::int[]) AS c(lo, hi)
    ORDER BY c.lo, d.destination_id
),
effect AS (
    INSERT INTO effects AS e (tenant_id, job_id, destination_id, pending)
    SELECT $1, $2, d.destination_id, cardinality(o.contact_ids)
    FROM owed o
    CROSS JOIN unnest($9::int[]) AS d(destination_id)
    WHERE o.contact_ids IS NOT NULL
    ORDER BY d.destination_id
    ON CONFLICT (tenant_id, job_id, destination_id) DO UPDATE SET pending = e.pending + excluded.pending
)
INSERT INTO job_chunks (tenant_id, job_id, first_index, item_count, failures, outcomes, sources)
VALUES ($1, $2, $4, $5, $6::text::jsonb, $7, $8);
