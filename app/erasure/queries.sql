-- Erasure. Where it has to look through all that a tenant has, a page of a table at a time, in the order of its key.

-- name: read_erasure_key
SELECT k.sealed FROM erasure_keys k WHERE k.tenant_id = $1;

-- name: add_erasure_key
INSERT INTO erasure_keys (tenant_id, sealed) VALUES ($1, $2) ON CONFLICT DO NOTHING;

-- name: find_erased
SELECT e.erased_at, e.job_id FROM erased_records e WHERE e.tenant_id = $1 AND e.type_id = $2 AND e.id_hash = $3;

-- name: insert_erasure
INSERT INTO jobs (
    tenant_id, job_id, kind, type, state, root_job_id, request_id, key_id, total, succeeded, failed, retry, items
)
VALUES (
    :tenant_id, :job_id, 'erase', :type, 'queued', :job_id, :request_id, :key_id, 0, 0, 0, 0, :items
);

-- name: read_erasure
SELECT j.type, j.request_id FROM jobs j WHERE j.tenant_id = $1 AND j.job_id = $2;

-- name: running_transactions
-- Those of clients of this database. What they have written is not seen yet, and neither are the jobs they begin.
SELECT l.virtualxid
FROM pg_locks l
JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'virtualxid' AND l.mode = 'ExclusiveLock' AND a.datname = current_database() AND a.usesysid IS NOT NULL;

-- name: is_older_work_open
-- Whether a job that was asked for before may still bring these records, or has staged rows that do.
SELECT
    EXISTS (
        SELECT FROM jobs j
        WHERE j.tenant_id = $1 AND j.state IN ('receiving', 'queued', 'running') AND j.job_id < $2 AND j.kind <> 'erase'
    )
    OR EXISTS (SELECT FROM staged_chunks s WHERE s.tenant_id = $1 AND s.job_id < $2)
    OR EXISTS (SELECT FROM staged_repeats r WHERE r.tenant_id = $1 AND r.job_id < $2);

-- name: older_records
-- Those of these records that were last changed by a job before this one: live ones, and tombstones that a destination of
-- $5 has not archived as far as is known.
SELECT r.record_id, r.version, r.deleted FROM records r
WHERE r.tenant_id = $1 AND r.type_id = $2 AND r.record_id = ANY ($3::text[]) AND r.job_id < $4
    AND (NOT r.deleted OR EXISTS (
        SELECT FROM record_syncs s
        WHERE s.tenant_id = $1 AND s.type_id = $2 AND s.record_id = r.record_id AND s.destination_id = ANY ($5::int[])
            AND s.synced_version < r.version
    ))
ORDER BY r.record_id;

-- name: is_delivery_open
-- Whether anything of these records is still to be sent, or under way.
SELECT EXISTS (
    SELECT FROM deliveries d
    WHERE d.tenant_id = $1 AND d.state <> 'done' AND d.type_id = $2 AND d.record_ids && $3::text[]
);

-- name: close_dead_letters
-- Dead letters of these records name nobody, and are not to be sent again. What a later undo could not restore is from
-- before, too.
UPDATE dead_letters l
SET
    record_id = '', error_detail = :note, note = :note, resolution = coalesce(l.resolution, 'dropped'),
    resolved_by = coalesce(l.resolved_by, :actor), resolved_at = least(l.resolved_at, now()),
    conflict = l.conflict - 'before'
WHERE l.tenant_id = :tenant_id AND l.type_id = :type_id AND l.record_id = ANY (:ids::text[])
    AND (l.job_id <= :job_id OR (l.conflict #>> '{before,job_id}')::uuid <= :job_id);

-- name: page_of_outcomes
-- After one chunk, of jobs with records of a type.
SELECT c.job_id, c.first_index, c.outcomes, c.sources
FROM job_chunks c
WHERE c.tenant_id = :tenant_id AND (c.job_id, c.first_index) > (:after_job, :after_index) AND c.job_id <= :job_id
    AND (SELECT coalesce(j.type, :type) FROM jobs j WHERE j.tenant_id = :tenant_id AND j.job_id = c.job_id) = :type
ORDER BY c.job_id, c.first_index
LIMIT 100;

-- name: rewrite_erased_outcomes
UPDATE job_chunks SET outcomes = $4, sources = $5 WHERE tenant_id = $1 AND job_id = $2 AND first_index = $3;

-- name: erase_deliveries
-- Of the next deliveries after one of them, those of these records name them no more; with the evidence of their calls.
-- Returns the last one that was looked at.
WITH page AS MATERIALIZED (
    SELECT d.delivery_id, d.type_id = :type_id AND d.record_ids && :ids::text[] AND d.job_id <= :job_id AS hit
    FROM deliveries d
    WHERE d.tenant_id = :tenant_id AND d.delivery_id > :after
    ORDER BY d.delivery_id
    LIMIT 2000
),
named AS (
    UPDATE deliveries d
    SET
        record_ids = ARRAY(
            SELECT CASE WHEN u.id = ANY (:ids) THEN '' ELSE u.id END
            FROM unnest(d.record_ids) WITH ORDINALITY AS u(id, place) ORDER BY u.place
        ),
        errors = d.errors - ARRAY(
            SELECT (u.place - 1)::text FROM unnest(d.record_ids) WITH ORDINALITY AS u(id, place) WHERE u.id = ANY (:ids)
        ),
        not_restored = d.not_restored - ARRAY(
            SELECT (u.place - 1)::text FROM unnest(d.record_ids) WITH ORDINALITY AS u(id, place) WHERE u.id = ANY (:ids)
        ),
        drift = d.drift - ARRAY(
            SELECT (u.place - 1)::text FROM unnest(d.record_ids) WITH ORDINALITY AS u(id, place) WHERE u.id = ANY (:ids)
        )
    WHERE d.tenant_id = :tenant_id AND d.delivery_id = ANY (ARRAY(SELECT p.delivery_id FROM page p WHERE p.hit))
),
called AS (
    UPDATE delivery_calls c SET detail = ''
    WHERE c.tenant_id = :tenant_id AND c.delivery_id = ANY (ARRAY(SELECT p.delivery_id FROM page p WHERE p.hit))
)
SELECT max(p.delivery_id) FROM page p;

-- name: erase_calls
-- Evidence of dead letters whose deliveries are gone.
UPDATE delivery_calls c SET detail = ''
WHERE c.tenant_id = :tenant_id AND c.delivery_id = ANY (ARRAY(
    SELECT l.delivery_id FROM dead_letters l
    WHERE l.tenant_id = :tenant_id AND l.type_id = :type_id AND l.record_id = ANY (:ids::text[]) AND l.job_id <= :job_id
));

-- name: page_of_messages
SELECT m.message_id, m.attempts, CASE WHEN m.type = 'item.dead' THEN m.body END AS body
FROM webhook_messages m
WHERE m.tenant_id = $1 AND m.message_id > $2
ORDER BY m.message_id
LIMIT 1000;

-- name: rewrite_message
-- With its attempts ($4), of which what a receiver answered may repeat it.
UPDATE webhook_messages SET body = coalesce($3, body), attempts = $4::text::jsonb WHERE tenant_id = $1 AND message_id = $2;

-- name: page_of_answers
SELECT k.route, k.key, k.answer FROM idempotency_keys k
WHERE k.tenant_id = :tenant_id AND (k.route, k.key) > (:after_route, :after_key) AND k.answer IS NOT NULL AND k.status = 207
    AND k.job_id <= :job_id
ORDER BY k.route, k.key
LIMIT 200;

-- name: drop_answer
UPDATE idempotency_keys SET answer = NULL, expires_at = least(expires_at, now())
WHERE tenant_id = $1 AND route = $2 AND key = $3;

-- name: page_of_audit
SELECT a.audit_id, a.subject, a.detail FROM audit_log a
WHERE a.tenant_id = $1 AND a.audit_id > $2
ORDER BY a.audit_id
LIMIT 2000;

-- name: rewrite_audit
UPDATE audit_log SET subject = $3, detail = $4::text::jsonb WHERE tenant_id = $1 AND audit_id = $2;

-- Texts that others wrote (a destination, an operator, an error), which may repeat what was erased: a page of rows after
-- the one of the key $2, a JSON array, each with its texts as JSON; and what is left of them.

-- name: circuit_texts
SELECT jsonb_build_array(c.destination_id, c.circuit, c.change_id) AS key, to_jsonb(c.detail) AS texts
FROM circuit_changes c
WHERE c.tenant_id = $1 AND (c.destination_id, c.circuit, c.change_id) > (
    ($2::text::jsonb ->> 0)::int, $2::text::jsonb ->> 1, ($2::text::jsonb ->> 2)::bigint
)
ORDER BY c.destination_id, c.circuit, c.change_id
LIMIT 2000;

-- name: rewrite_circuit_texts
UPDATE circuit_changes SET detail = $3::text::jsonb #>> '{}'
WHERE tenant_id = $1 AND destination_id = ($2::text::jsonb ->> 0)::int AND circuit = $2::text::jsonb ->> 1
    AND change_id = ($2::text::jsonb ->> 2)::bigint;

-- name: destination_texts
SELECT jsonb_build_array(d.destination_id) AS key, to_jsonb(d.blocked_detail) AS texts
FROM destinations d
WHERE d.tenant_id = $1 AND d.destination_id > ($2::text::jsonb ->> 0)::int
ORDER BY d.destination_id
LIMIT 2000;

-- name: rewrite_destination_texts
UPDATE destinations SET blocked_detail = $3::text::jsonb #>> '{}'
WHERE tenant_id = $1 AND destination_id = ($2::text::jsonb ->> 0)::int;

-- name: call_texts
SELECT jsonb_build_array(c.delivery_id, c.attempt, c.call) AS key, to_jsonb(c.detail) AS texts
FROM delivery_calls c
WHERE c.tenant_id = $1 AND (c.delivery_id, c.attempt, c.call) > (
    ($2::text::jsonb ->> 0)::bigint, ($2::text::jsonb ->> 1)::int, ($2::text::jsonb ->> 2)::int
)
ORDER BY c.delivery_id, c.attempt, c.call
LIMIT 2000;

-- name: rewrite_call_texts
UPDATE delivery_calls SET detail = $3::text::jsonb #>> '{}'
WHERE tenant_id = $1 AND delivery_id = ($2::text::jsonb ->> 0)::bigint AND attempt = ($2::text::jsonb ->> 1)::int
    AND call = ($2::text::jsonb ->> 2)::int;

-- name: dead_letter_texts
SELECT jsonb_build_array(l.dead_letter_id) AS key, jsonb_build_array(l.error_detail, l.note) AS texts
FROM dead_letters l
WHERE l.tenant_id = $1 AND l.dead_letter_id > ($2::text::jsonb ->> 0)::bigint
ORDER BY l.dead_letter_id
LIMIT 2000;

-- name: rewrite_dead_letter_texts
UPDATE dead_letters SET error_detail = $3::text::jsonb ->> 0, note = $3::text::jsonb ->> 1
WHERE tenant_id = $1 AND dead_letter_id = ($2::text::jsonb ->> 0)::bigint;

-- name: delivery_texts
SELECT jsonb_build_array(d.delivery_id) AS key, d.errors AS texts
FROM deliveries d
WHERE d.tenant_id = $1 AND d.delivery_id > ($2::text::jsonb ->> 0)::bigint
ORDER BY d.delivery_id
LIMIT 2000;

-- name: rewrite_delivery_texts
UPDATE deliveries SET errors = $3::text::jsonb WHERE tenant_id = $1 AND delivery_id = ($2::text::jsonb ->> 0)::bigint;

-- name: sync_texts
SELECT jsonb_build_array(s.destination_id, s.type_id, s.record_id) AS key, to_jsonb(s.error_detail) AS texts
FROM record_syncs s
WHERE s.tenant_id = $1 AND (s.destination_id, s.type_id, s.record_id) > (
    ($2::text::jsonb ->> 0)::int, ($2::text::jsonb ->> 1)::smallint, $2::text::jsonb ->> 2
)
ORDER BY s.destination_id, s.type_id, s.record_id
LIMIT 2000;

-- name: rewrite_sync_texts
UPDATE record_syncs SET error_detail = $3::text::jsonb #>> '{}'
WHERE tenant_id = $1 AND destination_id = ($2::text::jsonb ->> 0)::int AND type_id = ($2::text::jsonb ->> 1)::smallint
    AND record_id = $2::text::jsonb ->> 2;

-- name: saga_texts
SELECT jsonb_build_array(s.saga_id) AS key, to_jsonb(s.error) AS texts
FROM sagas s
WHERE s.tenant_id = $1 AND s.saga_id > ($2::text::jsonb ->> 0)::uuid
ORDER BY s.saga_id
LIMIT 2000;

-- name: rewrite_saga_texts
UPDATE sagas SET error = $3::text::jsonb #>> '{}' WHERE tenant_id = $1 AND saga_id = ($2::text::jsonb ->> 0)::uuid;

-- name: job_texts
SELECT jsonb_build_array(j.job_id) AS key, jsonb_build_array(j.error, j.waiting) AS texts
FROM jobs j
WHERE j.tenant_id = $1 AND j.job_id > ($2::text::jsonb ->> 0)::uuid
ORDER BY j.job_id
LIMIT 2000;

-- name: rewrite_job_texts
UPDATE jobs SET error = nullif($3::text::jsonb -> 0, 'null'), waiting = nullif($3::text::jsonb -> 1, 'null')
WHERE tenant_id = $1 AND job_id = ($2::text::jsonb ->> 0)::uuid;

-- name: hold_records
SELECT r.record_id, r.job_id, r.version, r.deleted FROM records r
WHERE r.tenant_id = $1 AND r.type_id = $2 AND r.record_id = ANY ($3::text[])
ORDER BY r.record_id
FOR UPDATE;

-- name: remove_records
-- Those that are gone, with what destinations hold of them.
WITH synced AS (
    DELETE FROM record_syncs WHERE tenant_id = $1 AND type_id = $2 AND record_id = ANY ($3::text[])
        AND destination_id = ANY (ARRAY(SELECT d.destination_id FROM destinations d WHERE d.tenant_id = $1))
)
DELETE FROM records WHERE tenant_id = $1 AND type_id = $2 AND record_id = ANY ($3::text[]);

-- name: renew_records
-- Those that there are again, by jobs that were asked for later: they begin with that.
WITH synced AS (
    UPDATE record_syncs s SET error_code = NULL, error_detail = NULL, not_restored = NULL, before_image = NULL
    WHERE s.tenant_id = $1 AND s.type_id = $2 AND s.record_id = ANY ($3::text[])
        AND s.destination_id = ANY (ARRAY(SELECT d.destination_id FROM destinations d WHERE d.tenant_id = $1))
)
UPDATE records SET cleared = NULL, withdrawn = NULL
WHERE tenant_id = $1 AND type_id = $2 AND record_id = ANY ($3::text[]);

-- name: note_erased
INSERT INTO erased_records (tenant_id, type_id, id_hash, erased_at, job_id)
SELECT :tenant_id, :type_id, h.id_hash, now(), :job_id FROM unnest(:hashes::bytea[]) AS h(id_hash)
ON CONFLICT (tenant_id, type_id, id_hash) DO UPDATE SET erased_at = excluded.erased_at, job_id = excluded.job_id;
