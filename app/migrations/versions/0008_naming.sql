-- A destination is told only what was said. A field with a value was named; one without was cleared if `cleared` has its
-- name, and never named otherwise. Of rows that were there before this revision, a field without a value counts as never
-- named, unless a destination is still owed its clearing (below).

-- cleared: name → version in which it was cleared by null (app.resources.field_states); NULL: nothing was.
-- withdrawn: names that an undo took back to "never named", with the versions that named them and took them back.
ALTER TABLE contacts
    ADD COLUMN cleared   jsonb,
    ADD COLUMN withdrawn jsonb;
ALTER TABLE ledger ADD COLUMN cleared jsonb;

-- created: whether a call of ours made the record there; NULL: not known, or there is none.
-- prior_version: the version that was held before synced_version, so that the call that brought it can be made again as
-- it was.
-- not_restored: name → version of the undo that could not give back there what stood before.
ALTER TABLE contact_syncs
    ADD COLUMN created       boolean,
    ADD COLUMN prior_version bigint NOT NULL DEFAULT 0,
    ADD COLUMN not_restored  jsonb;

-- not_restored: of an undo, by position: the fields that could not be given back there, and who made the record.
ALTER TABLE deliveries ADD COLUMN not_restored jsonb;

-- Names as what was cleared in a version.
CREATE FUNCTION cleared_at(names text[], version bigint) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN jsonb_object(names, array_fill(version::text, ARRAY[cardinality(names)]));

-- What contacts have lost since the version that some destination holds is owed there still.
WITH RECURSIVE behind AS (
    SELECT s.tenant_id, s.contact_id, min(s.synced_version) AS held
    FROM contact_syncs s
    JOIN contacts c ON c.tenant_id = s.tenant_id AND c.contact_id = s.contact_id
    WHERE c.email <> '' AND s.synced_version < c.version
        AND (s.synced_version > 0 OR s.state = 'unknown' OR s.error_code = 'OUTCOME_UNKNOWN')
    GROUP BY s.tenant_id, s.contact_id
),
past AS (
    SELECT b.tenant_id, b.contact_id, b.held, c.prev_job_id, c.prev_item_index, ARRAY[]::text[] AS names
    FROM behind b
    JOIN contacts c ON c.tenant_id = b.tenant_id AND c.contact_id = b.contact_id
    UNION ALL
    SELECT
        p.tenant_id, p.contact_id, p.held, l.prev_job_id, l.prev_item_index,
        array_remove(ARRAY[
            CASE WHEN l.first_name IS NOT NULL THEN 'first_name' END,
            CASE WHEN l.last_name IS NOT NULL THEN 'last_name' END,
            CASE WHEN l.phone IS NOT NULL THEN 'phone' END,
            CASE WHEN l.company IS NOT NULL THEN 'company' END
        ], NULL) || ARRAY(SELECT 'attributes.' || jsonb_object_keys(l.attributes))
    FROM past p
    JOIN ledger l ON l.tenant_id = p.tenant_id AND l.job_id = p.prev_job_id AND l.item_index = p.prev_item_index
    WHERE l.version >= p.held
),
lost AS (
    SELECT p.tenant_id, p.contact_id, array_agg(DISTINCT n.name) AS names
    FROM past p
    CROSS JOIN unnest(p.names) AS n(name)
    JOIN contacts c ON c.tenant_id = p.tenant_id AND c.contact_id = p.contact_id
    WHERE NOT (
        n.name = 'first_name' AND c.first_name IS NOT NULL
        OR n.name = 'last_name' AND c.last_name IS NOT NULL
        OR n.name = 'phone' AND c.phone IS NOT NULL
        OR n.name = 'company' AND c.company IS NOT NULL
        OR starts_with(n.name, 'attributes.') AND c.attributes ? substr(n.name, 12)
    )
    GROUP BY p.tenant_id, p.contact_id
)
UPDATE contacts c
SET cleared = cleared_at(l.names, c.version)
FROM lost l
WHERE c.tenant_id = l.tenant_id AND c.contact_id = l.contact_id;
