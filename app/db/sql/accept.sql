-- The queries of the accept transaction, in the order it runs them.

-- name: claim_key
-- Tries to be the one request that runs this key, and tells what stands under it already.
-- The lock only saves a second request from waiting on the unique index with a connection in its hand; that
-- nothing happens twice is the primary key's doing. $2 is the lock's number, made of tenant, route and key.
SELECT
    pg_try_advisory_xact_lock($2::bigint) AS claimed,
    k.fingerprint,
    k.status,
    k.answer,
    k.expires_at <= now() AS expired,
    greatest(extract(epoch FROM k.answering_until - now()), 0)::float8 AS answering,
    ARRAY(
        SELECT d.destination_id FROM destinations d
        WHERE d.tenant_id = $1 AND d.state <> 'removed' ORDER BY d.destination_id
    ) AS destination_ids,
    ARRAY(
        SELECT d.name FROM destinations d
        WHERE d.tenant_id = $1 AND d.state <> 'removed' ORDER BY d.destination_id
    ) AS destination_names
FROM (SELECT) one
LEFT JOIN idempotency_keys k ON k.tenant_id = $1 AND k.route = $3 AND k.key = $4;

-- name: upsert_contacts
-- One statement decides and writes every item; contact ids come sorted and unique.
--   $3 ids  $4 masks  $5 email  $6 first_name  $7 last_name  $8 phone  $9 company  $10 attributes (JSON patch)
--   $11 if_version  $12 source_version  $13 item indexes  $14 atomic  $15 write (false: tell what would happen)
-- Mask bits (app.domain.rows): 4 first_name, 8 last_name, 16 phone, 32 company, 64 attributes; 256: keys are removed.
-- `before` locks what exists in key order, so that writers queue up instead of deadlocking. A key that another
-- transaction inserts meanwhile is missing from `before` and violates the primary key: the caller runs the
-- transaction again. (ON CONFLICT would say so more gently and descend the index once more for every item.)
-- `touched` is `unchanged` to the sender, but its newer source_version must be kept, or an older one could win later.
-- Returns one row: `results`, a letter an item in the order given (c u t n s x: created, updated, touched, unchanged,
-- superseded, conflict), and their `versions`.
WITH before AS MATERIALIZED (
    SELECT
        c.ctid AS place, c.contact_id, c.version, c.source_version, c.email, c.first_name, c.last_name, c.phone,
        c.company, c.attributes, c.job_id, c.item_index
    FROM contacts c
    WHERE c.tenant_id = $1 AND c.contact_id = ANY ($3::text[])
    ORDER BY c.contact_id
    FOR NO KEY UPDATE
),
merged AS (
    SELECT
        i.position, contact_id, i.item_index, i.if_version,
        coalesce(i.source_version, b.source_version) AS source_version,
        coalesce(b.version, 0) AS version,
        i.source_version < b.source_version AS superseded,
        i.email,
        CASE WHEN i.mask & 4 <> 0 THEN i.first_name ELSE b.first_name END AS first_name,
        CASE WHEN i.mask & 8 <> 0 THEN i.last_name ELSE b.last_name END AS last_name,
        CASE WHEN i.mask & 16 <> 0 THEN i.phone ELSE b.phone END AS phone,
        CASE WHEN i.mask & 32 <> 0 THEN i.company ELSE b.company END AS company,
        CASE
            WHEN i.mask & 64 = 0 THEN coalesce(b.attributes, '{}')
            WHEN i.patch IS NULL THEN '{}'
            WHEN i.mask & 256 <> 0 THEN
                (coalesce(b.attributes, '{}') || i.patch::jsonb)
                - ARRAY(SELECT p.key FROM jsonb_each(i.patch::jsonb) p WHERE p.value = 'null')
            WHEN b.contact_id IS NULL THEN i.patch::jsonb
            ELSE b.attributes || i.patch::jsonb
        END AS attributes,
        b.place, b.source_version AS b_source_version, b.email AS b_email, b.first_name AS b_first_name,
        b.last_name AS b_last_name, b.phone AS b_phone, b.company AS b_company, b.attributes AS b_attributes,
        b.job_id AS b_job_id, b.item_index AS b_item_index
    FROM unnest(
        $3::text[], $4::int[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[],
        $11::bigint[], $12::bigint[], $13::int[]
    ) WITH ORDINALITY AS i(
        contact_id, mask, email, first_name, last_name, phone, company, patch, if_version, source_version,
        item_index, position
    )
    -- FULL, though `before` is a part of the items: it rules out a nested loop of 1,000 x 1,000 in a generic plan.
    FULL JOIN before b USING (contact_id)
),
decided AS MATERIALIZED (
    SELECT
        m.*,
        CASE
            WHEN m.if_version <> m.version THEN 'x'
            WHEN m.version = 0 THEN 'c'
            WHEN m.superseded THEN 's'
            WHEN (m.email, m.first_name, m.last_name, m.phone, m.company, m.attributes)
                IS DISTINCT FROM (m.b_email, m.b_first_name, m.b_last_name, m.b_phone, m.b_company, m.b_attributes)
                THEN 'u'
            WHEN m.source_version IS DISTINCT FROM m.b_source_version THEN 't'
            ELSE 'n'
        END AS result
    FROM merged m
),
verdict AS MATERIALIZED (
    SELECT $15::bool AND NOT ($14::bool AND EXISTS (SELECT FROM decided WHERE result = 'x')) AS writes
),
inserted AS (
    INSERT INTO contacts AS c (
        tenant_id, contact_id, version, source_version, email, first_name, last_name, phone, company, attributes,
        job_id, item_index
    )
    SELECT
        $1, d.contact_id, 1, d.source_version, d.email, d.first_name, d.last_name, d.phone, d.company, d.attributes,
        $2, d.item_index
    FROM decided d
    WHERE d.result = 'c' AND (SELECT writes FROM verdict)
    ORDER BY d.contact_id
),
updated AS (
    UPDATE contacts c
    SET
        version = d.version + CASE d.result WHEN 'u' THEN 1 ELSE 0 END,
        source_version = d.source_version,
        email = d.email,
        first_name = d.first_name,
        last_name = d.last_name,
        phone = d.phone,
        company = d.company,
        attributes = d.attributes,
        job_id = CASE d.result WHEN 'u' THEN $2 ELSE c.job_id END,
        item_index = CASE d.result WHEN 'u' THEN d.item_index ELSE c.item_index END,
        updated_at = CASE d.result WHEN 'u' THEN now() ELSE c.updated_at END
    FROM decided d
    WHERE c.tenant_id = $1 AND c.contact_id = d.contact_id
        AND d.result IN ('u', 't') AND (SELECT writes FROM verdict)
),
written AS (
    INSERT INTO ledger (
        tenant_id, contact_id, version, job_id, item_index, before_job_id, before_item_index, before_source_version,
        before_email, before_first_name, before_last_name, before_phone, before_company, before_attributes
    )
    SELECT
        $1, d.contact_id, d.version + 1, $2, d.item_index, d.b_job_id, d.b_item_index, d.b_source_version,
        d.b_email, d.b_first_name, d.b_last_name, d.b_phone, d.b_company, d.b_attributes
    FROM decided d
    WHERE d.result IN ('c', 'u') AND (SELECT writes FROM verdict)
)
SELECT
    string_agg(d.result, '' ORDER BY d.position) AS results,
    array_agg(d.version + CASE WHEN d.result IN ('c', 'u') THEN 1 ELSE 0 END ORDER BY d.position) AS versions
FROM decided d;

-- name: insert_import
-- Everything else that the import leaves behind: the job, its outcomes, what each destination is owed, and the
-- answer under its key. Deliveries cut the flat arrays $14 ids, $15 versions, $16 indexes at $17 (first positions)
-- and $18 (last positions), once for each destination in $13.
WITH job AS (
    INSERT INTO jobs (
        tenant_id, job_id, kind, state, root_job_id, request_id, key_id, options,
        total, succeeded, failed, retry, results, finished_at
    )
    VALUES (
        $1, $2, 'import', $3, $2, $4, $5, $6::text::jsonb, $7, $8, $9, $10, $11::text::jsonb,
        CASE WHEN $3 = 'syncing' THEN NULL ELSE now() END
    )
),
chunk AS (
    INSERT INTO job_chunks (tenant_id, job_id, first_index, item_count, failures, outcomes)
    VALUES ($1, $2, 0, $7, $19::text::jsonb, $12)
),
delivery AS (
    INSERT INTO deliveries (
        tenant_id, destination_id, job_id, request_id, first_index, last_index, contact_ids, versions, indexes, states
    )
    SELECT
        $1, d.destination_id, $2, $4, ($16::int[])[c.lo], ($16::int[])[c.hi],
        ($14::text[])[c.lo:c.hi], ($15::bigint[])[c.lo:c.hi], ($16::int[])[c.lo:c.hi], repeat('p', c.hi - c.lo + 1)
    FROM unnest($13::int[]) AS d(destination_id)
    CROSS JOIN unnest($17::int[], $18::int[]) AS c(lo, hi)
    ORDER BY c.lo, d.destination_id
),
effect AS (
    INSERT INTO effects (tenant_id, job_id, destination_id, pending)
    SELECT $1, $2, d.destination_id, cardinality($14::text[])
    FROM unnest($13::int[]) AS d(destination_id)
    WHERE cardinality($14::text[]) > 0
)
INSERT INTO idempotency_keys (
    tenant_id, route, key, fingerprint, job_id, status, answer, expires_at, answering_until
)
VALUES (
    $1, $20, $21, $22, $2, $23, $24, now() + $25::interval,
    CASE WHEN $26::interval IS NULL THEN NULL ELSE now() + $26::interval END
);

-- name: settle_answer
-- The answer that was held back (Prefer: wait) takes the place of the one committed with the import, unless its
-- time is over: then others may have seen the first one already, and it stands.
UPDATE idempotency_keys
SET answer = $4, answering_until = NULL
WHERE tenant_id = $1 AND route = $2 AND key = $3 AND answering_until > now()
RETURNING 1;
