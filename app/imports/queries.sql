-- The queries of the accept transaction, in the order it runs them.

-- name: claim_key
-- Tries to be the one request that runs this key, and returns what is stored under it already.
-- The lock only saves a second request from waiting on the unique index with a connection in its hand; that
-- nothing happens twice is the primary key's doing. $2 is the lock's number, made of tenant, route and key.
SELECT
    pg_try_advisory_xact_lock($2::bigint) AS claimed,
    k.fingerprint,
    k.status,
    k.answer,
    k.expires_at <= now() AS expired,
    greatest(extract(epoch FROM k.answering_until - now()), 0)::float8 AS answering,
    k.job_id,
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

-- name: existing_contacts
-- Which of these contacts there are. Contacts are never deleted, so nobody has to hold what is found.
SELECT c.contact_id FROM contacts c WHERE c.tenant_id = $1 AND c.contact_id = ANY ($2::text[]);

-- part: enter_in_ledger
-- The end of every statement `written` that gives contacts a new version, made by items of the job :job_id: the version is
-- entered in the ledger.
RETURNING
        c.contact_id, c.version, c.item_index, c.prev_job_id, c.prev_item_index, c.source_version, {{fields c}}, c.attributes, c.cleared
),
entered AS (
    INSERT INTO ledger (
        tenant_id, job_id, item_index, contact_id, version, prev_job_id, prev_item_index, source_version,
        {{each field: NAME}}, attributes, cleared
    )
    SELECT
        :tenant_id, :job_id, w.item_index, w.contact_id, w.version, w.prev_job_id, w.prev_item_index, w.source_version,
        {{fields w}}, w.attributes, w.cleared
    FROM written w
)

-- name: upsert_contacts
-- One pass over the index creates, merges or leaves alone every item, and writes the ledger; contact ids come sorted
-- and unique, so writers lock rows in one order and queue up instead of deadlocking.
-- `cleared` are the names that the item clears (app.resources.field_states), in version 1; NULL for none.
-- Mask bits (app.vocabulary.contact_fields): those of the fields; 64 attributes; 256: the attributes are not a patch, they
-- replace all.
-- Returns what was written. A contact that is missing there is locked and as it was: at another version than expected,
-- unchanged, or superseded.
WITH written AS (
    INSERT INTO contacts AS c (
        tenant_id, contact_id, version, source_version, {{each field: NAME}}, attributes,
        job_id, item_index, mask, removed, expected, cleared
    )
    SELECT
        :tenant_id, i.contact_id, 1, i.source_version, {{fields i}},
        coalesce(i.attributes, '{}')::jsonb, :job_id, i.item_index, i.mask, i.removed::jsonb, i.expected,
        i.cleared::jsonb
    FROM unnest(
        split_column(:contact_ids, :separator, :null), :masks::text::smallint[],
        {{each field: split_column((:fields::text[])[NUMBER], :separator, :null)}},
        split_column(:attributes, :separator, :null), :source_versions::text::bigint[], :indexes::text::int[],
        split_column(:removed, :separator, :null), :expected::text::bigint[],
        split_column(:cleared, :separator, :null)
    ) AS i(
        contact_id, mask, {{each field: NAME}}, attributes, source_version, item_index, removed, expected, cleared
    )
    ON CONFLICT (tenant_id, contact_id) DO UPDATE
    SET
        version = c.version + 1,
        source_version = coalesce(excluded.source_version, c.source_version),
        email = excluded.email,
        {{each optional: NAME = CASE WHEN excluded.mask & BIT <> 0 THEN excluded.NAME ELSE c.NAME END}},
        attributes = CASE
            WHEN excluded.mask & 64 = 0 THEN c.attributes
            WHEN excluded.mask & 256 <> 0 THEN excluded.attributes
            WHEN excluded.removed IS NULL THEN c.attributes || excluded.attributes
            ELSE (c.attributes || excluded.attributes) - ARRAY(SELECT jsonb_array_elements_text(excluded.removed))
        END,
        updated_at = now(),
        job_id = excluded.job_id,
        item_index = excluded.item_index,
        prev_job_id = c.job_id,
        prev_item_index = c.item_index,
        mask = excluded.mask,
        removed = excluded.removed,
        expected = excluded.expected,
        cleared = CASE
            WHEN excluded.cleared IS NULL AND excluded.mask & 256 = 0 THEN c.cleared
            ELSE coalesce(c.cleared, '{}') || cleared_at(
                ARRAY(SELECT jsonb_object_keys(excluded.cleared)) || ARRAY(
                    SELECT 'attributes.' || k.key FROM jsonb_object_keys(c.attributes) AS k(key)
                    WHERE excluded.mask & 256 <> 0
                ),
                c.version + 1
            )
        END
    WHERE (excluded.expected = c.version) IS NOT FALSE
        AND (excluded.source_version >= c.source_version) IS NOT FALSE
        AND (
            excluded.email <> c.email
            OR {{each optional by OR: excluded.mask & BIT <> 0 AND excluded.NAME IS DISTINCT FROM c.NAME}}
            OR excluded.mask & 64 <> 0 AND c.attributes <> CASE
                WHEN excluded.mask & 256 <> 0 THEN excluded.attributes
                WHEN excluded.removed IS NULL THEN c.attributes || excluded.attributes
                ELSE (c.attributes || excluded.attributes) - ARRAY(SELECT jsonb_array_elements_text(excluded.removed))
            END
            -- A null for what was never named is news as well: destinations must clear it.
            OR excluded.cleared IS NOT NULL
                AND NOT coalesce(c.cleared, '{}') ?& ARRAY(SELECT jsonb_object_keys(excluded.cleared))
        )
    {{enter_in_ledger}}
SELECT array_agg(w.item_index) AS indexes, array_agg(w.version) AS versions
FROM written w;

-- name: unwritten_contacts
-- Contacts that the upsert left as they were, and so holds locked.
SELECT c.contact_id, c.version, c.source_version
FROM contacts c
WHERE c.tenant_id = $1 AND c.contact_id = ANY ($2::text[]);

-- name: touch_contacts
-- Unchanged to the sender, but its newer source_version must be kept, or an older one could win later.
UPDATE contacts c
SET source_version = t.source_version
FROM unnest($2::text[], $3::bigint[]) AS t(contact_id, source_version)
WHERE c.tenant_id = $1 AND c.contact_id = t.contact_id;

-- name: record_chunk
-- What every import ends with, one answered at once and a chunk of a file alike.
-- The outcomes of a run of items, and what is pending for each destination. Deliveries cut the columns of ids, versions and
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

-- name: insert_import
-- The job of an import that was decided within its request, and the answer under its key. Calling a function that
-- writes has its price, so it is called only where somebody listens.
WITH job AS (
    INSERT INTO jobs AS j (
        tenant_id, job_id, kind, state, root_job_id, request_id, key_id, options,
        total, succeeded, failed, retry, results, items, bytes, started_at, applied_at, finished_at, form
    )
    SELECT
        :tenant_id, :job_id, 'import', {{job_state}}, :job_id, :request_id, :key_id, :options::text::jsonb,
        j.total, j.succeeded, :failed, :retry, :results::text::jsonb, j.total, :body_bytes, now(), now(),
        CASE WHEN e.open = 0 THEN now() END, :form::text::jsonb
    FROM (VALUES (:total::int, :succeeded::int)) AS j(total, succeeded)
    CROSS JOIN (VALUES (:pending::boolean::int, 0)) AS e(open, lost)
    RETURNING CASE
        WHEN j.finished_at IS NOT NULL
            AND EXISTS (SELECT FROM webhook_endpoints w WHERE w.tenant_id = :tenant_id AND w.state = 'active')
        THEN emit_job_finished(j)
    END
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

-- name: expire_answers
-- Answers past their time go, a thousand at a time; the key stays and is refused until `forget_keys`. Workers share the work.
UPDATE idempotency_keys
SET answer = NULL
WHERE tenant_id = $1 AND (route, key) IN (
    SELECT k.route, k.key FROM idempotency_keys k
    WHERE k.tenant_id = $1 AND k.expires_at < now() AND k.answer IS NOT NULL
    ORDER BY k.expires_at LIMIT 1000
    FOR UPDATE SKIP LOCKED
);

-- name: forget_keys
-- A key under which a body is still arriving is as old as its first chunk, and gets its time anew with the answer.
DELETE FROM idempotency_keys
WHERE tenant_id = $1 AND (route, key) IN (
    SELECT k.route, k.key FROM idempotency_keys k
    WHERE k.tenant_id = $1 AND k.expires_at < now() - $2::interval
        AND (k.fingerprint IS NOT NULL OR k.answering_until < now())
    ORDER BY k.expires_at LIMIT 1000
    FOR UPDATE SKIP LOCKED
);
