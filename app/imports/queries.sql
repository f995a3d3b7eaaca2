-- The queries of the accept transaction, in the order it runs them.

-- part: takes_type
-- Whether records of the type go to the destination d: where that lists types, if it is among them; where the type names
-- destinations, if this is one; else if its kind has a place for the type (app.destinations.kinds.Reach). A path or
-- a table that does not contain the name of the type is for contacts alone.
CASE
            WHEN d.types IS NOT NULL THEN :type = ANY (d.types)
            WHEN :named::text[] IS NOT NULL THEN d.name = ANY (:named) AND d.kind = ANY (:kinds::text[])
            ELSE d.kind = ANY (:kinds)
                AND (
                    :type = 'contacts' OR (
                        coalesce(d.options ->> 'path', '{type}') LIKE '%{type}%'
                        AND coalesce(d.options ->> 'read_path', '{type}') LIKE '%{type}%'
                        AND coalesce(d.options ->> 'archive_path', '{type}') LIKE '%{type}%'
                        AND coalesce(d.options ->> 'table', '{type}') LIKE '%{type}%'
                    )
                )
        END

-- name: claim_key
-- Tries to be the one request that runs this key, and returns what is stored under it already.
-- The lock only saves a second request from waiting on the unique index with a connection in its hand; that
-- nothing happens twice is the primary key's doing. `lock` is a number, made of tenant, route and key. `type_version`:
-- of the tenant's declaration of the type; 0: there is none.
SELECT
    pg_try_advisory_xact_lock(:lock::bigint) AS claimed,
    k.fingerprint,
    k.status,
    k.answer,
    k.expires_at <= now() AS expired,
    greatest(extract(epoch FROM k.answering_until - now()), 0)::float8 AS answering,
    k.job_id,
    ARRAY(
        SELECT d.destination_id FROM destinations d
        WHERE d.tenant_id = :tenant_id AND d.state <> 'removed' AND {{takes_type}} ORDER BY d.destination_id
    ) AS destination_ids,
    ARRAY(
        SELECT d.name FROM destinations d
        WHERE d.tenant_id = :tenant_id AND d.state <> 'removed' AND {{takes_type}} ORDER BY d.destination_id
    ) AS destination_names,
    coalesce((SELECT t.version FROM resource_types t WHERE t.tenant_id = :tenant_id AND t.name = :type), 0) AS type_version
FROM (SELECT) one
LEFT JOIN idempotency_keys k ON k.tenant_id = :tenant_id AND k.route = :route AND k.key = :key;

-- name: existing_records
-- Which of these records there are. An erasure cannot remove what is found until it is written; other writers are not kept
-- from it.
SELECT r.record_id FROM records r
WHERE r.tenant_id = $1 AND r.type_id = $2 AND r.record_id = ANY ($3::text[])
ORDER BY r.record_id
FOR KEY SHARE;

-- part: merged_document
-- An item's document over the stored one, which is the item's where that names all that is there: merging costs several
-- times as much as to find out. `attributes` among the names that it clears are all attributes that are there.
CASE
            WHEN excluded.deleted THEN excluded.document
            WHEN excluded.document ?& :names::text[] AND r.document - :names::text[] = '{}' THEN excluded.document
            WHEN excluded.cleared ? 'attributes' THEN without_attributes(r.document) || excluded.document
            ELSE r.document || excluded.document
        END

-- name: upsert_records
-- One pass over the index creates, merges or leaves alone every item; record ids come sorted and unique, so writers lock
-- rows in one order and queue up instead of deadlocking.
-- `cleared` are the names that the item clears (app.resources.field_states), in version 1; NULL for none. `expected`, the
-- version that the record must have, travels in prev_item_index, which a new record has no other use for.
-- `names`: those of the first item; most often all items have the same.
-- `plain`: no item has a value that is an object or an array, clears all attributes or deletes its record; then it is
-- enough to look whether a record contains what the item says. `deleted`: items that do, NULL for none. What the record
-- had is cleared by that, as is what an undo had taken back: a destination that knows nothing of the deletion shall not
-- keep it, if there is such a record again.
-- Returns the items that wrote something: of new records their indexes, of others also what they are now, for the
-- history; an empty document is that of the item. A record that is missing there is locked and as it was: at another
-- version than expected, unchanged, or superseded.
WITH item AS MATERIALIZED (
    SELECT
        i.record_id, i.document::jsonb AS document, i.source_version, i.item_index, i.expected, i.cleared::jsonb AS cleared,
        i.item_index = ANY (:deleted::int[]) IS TRUE AS deleted
    FROM unnest(
        split_column(:record_ids, :separator, :null), split_column(:documents, :separator, :null),
        :source_versions::text::bigint[], :indexes::text::int[], :expected::text::int[],
        split_column(:cleared, :separator, :null)
    ) AS i(record_id, document, source_version, item_index, expected, cleared)
),
written AS (
    INSERT INTO records AS r (
        tenant_id, type_id, record_id, version, source_version, deleted, document, job_id, item_index, prev_item_index, cleared
    )
    SELECT
        :tenant_id, :type_id, i.record_id, 1, i.source_version, i.deleted, i.document, :job_id, i.item_index, i.expected,
        i.cleared
    FROM item i
    ON CONFLICT (tenant_id, type_id, record_id) DO UPDATE
    SET
        version = r.version + 1,
        source_version = coalesce(excluded.source_version, r.source_version),
        deleted = excluded.deleted,
        document = {{merged_document}},
        updated_at = excluded.updated_at,
        job_id = excluded.job_id,
        item_index = excluded.item_index,
        prev_job_id = r.job_id,
        prev_item_index = r.item_index,
        withdrawn = CASE WHEN NOT excluded.deleted THEN r.withdrawn END,
        cleared = CASE
            WHEN excluded.deleted THEN coalesce(r.cleared, '{}') || cleared_at(
                ARRAY(SELECT k.key FROM jsonb_object_keys(r.document || coalesce(r.withdrawn, '{}')) AS k(key)), r.version + 1
            )
            WHEN excluded.cleared IS NULL THEN r.cleared
            ELSE coalesce(r.cleared, '{}') || cleared_at(
                ARRAY(SELECT k.key FROM jsonb_object_keys(excluded.cleared) AS k(key) WHERE k.key <> 'attributes') || ARRAY(
                    SELECT k.key FROM jsonb_each(r.document) AS k(key, value)
                    WHERE excluded.cleared ? 'attributes' AND starts_with(k.key, 'attributes.') AND k.value <> 'null'
                ),
                r.version + 1
            )
        END
    WHERE (excluded.prev_item_index = r.version) IS NOT FALSE
        AND (excluded.source_version >= r.source_version) IS NOT FALSE
        AND CASE
            WHEN r.deleted OR excluded.deleted THEN NOT (r.deleted AND excluded.deleted)
            WHEN :plain THEN NOT r.document @> excluded.document
            ELSE r.document <> {{merged_document}}
        END
    RETURNING
        r.item_index, r.version, r.source_version, r.prev_job_id, r.prev_item_index,
        CASE WHEN r.version > 1 THEN r.document END AS document, CASE WHEN r.version > 1 THEN r.cleared END AS cleared
)
SELECT
    array_agg(w.item_index) FILTER (WHERE w.version = 1) AS created,
    array_agg(w.item_index) FILTER (WHERE w.version > 1) AS updated,
    array_agg(w.version) FILTER (WHERE w.version > 1) AS versions,
    array_agg(w.source_version) FILTER (WHERE w.version > 1) AS source_versions,
    string_agg(w.prev_job_id::text, ',') FILTER (WHERE w.version > 1) AS prev_job_ids,
    array_agg(w.prev_item_index) FILTER (WHERE w.version > 1) AS prev_item_indexes,
    string_agg(CASE WHEN w.document = i.document THEN '' ELSE w.document::text END, chr(31)) FILTER (WHERE w.version > 1)
        AS documents,
    string_agg(coalesce(w.cleared::text, ''), chr(31)) FILTER (WHERE w.version > 1) AS cleared
FROM written w
JOIN item i ON i.item_index = w.item_index;

-- name: name_cleared_attributes
-- New records have no attributes that could be meant by all of them.
UPDATE records r SET cleared = nullif(r.cleared - 'attributes', '{}')
WHERE r.tenant_id = $1 AND r.type_id = $2 AND r.record_id = ANY ($3::text[]);

-- name: unwritten_records
-- Records that the upsert left as they were, and so holds locked.
SELECT r.record_id, r.version, r.source_version
FROM records r
WHERE r.tenant_id = $1 AND r.type_id = $2 AND r.record_id = ANY ($3::text[]);

-- name: touch_records
-- Unchanged to the sender, but its newer source_version must be kept, or an older one could win later.
UPDATE records r
SET source_version = t.source_version
FROM unnest($3::text[], $4::bigint[]) AS t(record_id, source_version)
WHERE r.tenant_id = $1 AND r.type_id = $2 AND r.record_id = t.record_id;

-- name: record_chunk
-- What every import ends with, one answered at once and a chunk of a file alike.
-- The outcomes of a run of items, the versions that they made, and what is pending for each destination. Deliveries cut the columns of ids, versions and
-- indexes into runs of :chunk_size, or as many as the kind of a destination has in :sizes, once for each destination. For
-- the separator and the mark of NULL see app.kit.postgres.column_codec.
WITH outbox AS MATERIALIZED (
    SELECT
        split_column(:outbox_ids, :separator, :null) AS record_ids, :outbox_versions::text::bigint[] AS versions,
        :outbox_indexes::text::int[] AS indexes
),
cut AS (
    SELECT d.destination_id, s.lo, least(s.lo + coalesce(z.size, :chunk_size::int), cardinality(o.record_ids) + 1) - 1 AS hi
    FROM outbox o
    CROSS JOIN destinations d
    LEFT JOIN unnest(:kinds::text[], :sizes::int[]) AS z(kind, size) ON z.kind = d.kind
    CROSS JOIN generate_series(1, cardinality(o.record_ids), coalesce(z.size, :chunk_size::int)) AS s(lo)
    WHERE d.tenant_id = :tenant_id AND d.destination_id = ANY (:destination_ids::int[])
),
delivery AS (
    INSERT INTO deliveries (
        tenant_id, destination_id, type_id, job_id, request_id, first_index, last_index, record_ids, versions, indexes, states
    )
    SELECT
        :tenant_id, c.destination_id, :type_id, :job_id, :request_id, o.indexes[c.lo], o.indexes[c.hi],
        o.record_ids[c.lo:c.hi], o.versions[c.lo:c.hi], o.indexes[c.lo:c.hi], repeat('p', c.hi - c.lo + 1)
    FROM outbox o
    CROSS JOIN cut c
    ORDER BY c.lo, c.destination_id
),
history AS (
    INSERT INTO record_versions (
        tenant_id, job_id, first_index, indexes, prev_job_ids, prev_item_indexes, versions, signatures
    )
    SELECT
        :tenant_id, :job_id, m.indexes[1], m.indexes, :prev_job_ids::text::uuid[], :prev_item_indexes::text::int[],
        :version_blocks::bytea[], :signatures::text::int[]
    FROM (SELECT :version_indexes::text::int[] AS indexes) m
    WHERE m.indexes IS NOT NULL
),
effect AS (
    INSERT INTO effects AS e (tenant_id, job_id, destination_id, pending)
    SELECT :tenant_id, :job_id, d.destination_id, cardinality(o.record_ids)
    FROM outbox o
    CROSS JOIN unnest(:destination_ids::int[]) AS d(destination_id)
    WHERE o.record_ids IS NOT NULL
    ORDER BY d.destination_id
    ON CONFLICT (tenant_id, job_id, destination_id) DO UPDATE SET pending = e.pending + excluded.pending
)
INSERT INTO job_chunks (tenant_id, job_id, first_index, item_count, failures, outcomes, sources)
VALUES (:tenant_id, :job_id, :first_index, :item_count, :failures::text::jsonb, :outcomes, :sources);

-- name: insert_import
-- The job of an import that was decided within its request, and the answer under its key.
WITH ended AS (
    INSERT INTO jobs AS j (
        tenant_id, job_id, kind, type, state, root_job_id, request_id, trace_context, key_id, options,
        total, succeeded, failed, retry, results, items, bytes, started_at, applied_at, finished_at, form
    )
    SELECT
        :tenant_id, :job_id, 'import', :type, {{job_state}}, :job_id, :request_id, :trace_context, :key_id,
        :options::text::jsonb, j.total, j.succeeded, :failed, :retry, :results::text::jsonb, j.total, :body_bytes, now(), now(),
        {{finished_at}}, :form::text::jsonb
    FROM (VALUES (:total::int, :succeeded::int)) AS j(total, succeeded)
    CROSS JOIN (VALUES (:pending::boolean::int, 0)) AS e(open, lost)
    RETURNING {{ended_job}}
),
{{finished_event}},
message AS (
    INSERT INTO webhook_messages {{event_messages}}
)
INSERT INTO idempotency_keys (
    tenant_id, route, key, fingerprint, job_id, status, answer, expires_at, answering_until
)
VALUES (
    :tenant_id, :route, :key, :fingerprint, :job_id, :status, :answer, now() + :retention::interval,
    now() + :holding::interval
);

-- name: settle_answer
-- The answer that was held back (Prefer: wait) takes the place of the one committed with the import, unless its
-- time is over: then others may have seen the first one already, and it remains.
UPDATE idempotency_keys
SET answer = $4, answering_until = NULL
WHERE tenant_id = $1 AND route = $2 AND key = $3 AND answering_until > now()
RETURNING 1;
