-- Syncs: jobs that send to one destination what it lacks, or everything. A worker that takes the next records of one holds
-- its job's row until the transaction ends that books them.

-- name: find_destination_to_sync
-- One sync of a destination is asked for at a time.
SELECT d.destination_id, d.kind, d.options FROM destinations d
WHERE d.tenant_id = $1 AND d.name = $2 AND d.state <> 'removed'
FOR NO KEY UPDATE;

-- name: takes_records
-- Whether records of the type go to the destination.
SELECT EXISTS (
    SELECT FROM destinations d
    WHERE d.tenant_id = :tenant_id AND d.destination_id = :destination_id AND {{takes_type}}
);

-- name: count_records
-- Of these types, up to $3.
SELECT count(*)::int FROM (
    SELECT FROM records r WHERE r.tenant_id = $1 AND r.type_id = ANY ($2::smallint[]) AND NOT r.deleted LIMIT $3
) r;

-- name: types_with_records
-- Those of these types of which there are records, or were.
SELECT t.type_id
FROM unnest($2::smallint[]) AS t(type_id)
WHERE EXISTS (SELECT FROM records r WHERE r.tenant_id = $1 AND r.type_id = t.type_id)
ORDER BY t.type_id;

-- name: running_sync
-- The sync of a destination that is not at its end, if there is one.
SELECT j.job_id
FROM effects e
JOIN jobs j ON j.tenant_id = e.tenant_id AND j.job_id = e.job_id
WHERE e.tenant_id = $1 AND e.destination_id = $2 AND j.tenant_id = $1 AND j.kind = 'sync' AND j.finished_at IS NULL
ORDER BY j.job_id DESC
LIMIT 1;

-- name: insert_sync
WITH effect AS (
    INSERT INTO effects (tenant_id, job_id, destination_id) VALUES (:tenant_id, :job_id, :destination_id)
)
INSERT INTO jobs (
    tenant_id, job_id, kind, type, state, root_job_id, request_id, trace_context, key_id, total, succeeded, failed, retry,
    options, started_at, sync
)
VALUES (
    :tenant_id, :job_id, 'sync', :type, 'running', :job_id, :request_id, :trace_context, :key_id, 0, 0, 0, 0,
    :options::text::jsonb, now(), :cursor::text::jsonb
);

-- name: working_syncs
-- Those of which records are still to be taken, whichever worker asks.
SELECT w.tenant_id, w.job_id
FROM (SELECT DISTINCT j.tenant_id FROM jobs j WHERE j.state IN ('receiving', 'queued', 'running')) b
JOIN tenants t ON t.tenant_id = b.tenant_id
CROSS JOIN LATERAL (
    SELECT j.tenant_id, j.job_id FROM jobs j
    WHERE j.tenant_id = b.tenant_id AND j.state IN ('receiving', 'queued', 'running') AND j.sync IS NOT NULL
    ORDER BY j.job_id LIMIT 50
) w
WHERE t.disabled_at IS NULL;

-- name: lock_sync_effects
-- Before claim_sync: whoever records a delivery of the job holds these before the job, too. In the other order each would
-- wait for the other.
SELECT FROM effects e WHERE e.tenant_id = $1 AND e.job_id = $2 FOR NO KEY UPDATE;

-- name: claim_sync
-- No row: somebody else has it, or it was canceled.
SELECT
    j.sync, j.request_id, j.total, d.kind, d.state = 'removed' AS removed
FROM jobs j
LEFT JOIN destinations d ON d.tenant_id = j.tenant_id AND d.destination_id = (j.sync ->> 'destination_id')::int
WHERE j.tenant_id = $1 AND j.job_id = $2 AND j.state = 'running' AND j.sync IS NOT NULL
FOR NO KEY UPDATE OF j SKIP LOCKED;

-- name: open_deliveries
-- How many deliveries of the job are not done, up to $3.
SELECT count(*)::int FROM (
    SELECT FROM deliveries d WHERE d.tenant_id = $1 AND d.job_id = $2 AND d.state <> 'done' LIMIT $3
) o;

-- name: records_to_sync
-- The next records that the destination has in no version or an older one, or, for `all`, every one. A deletion is sent
-- where the destination may have had the record. LATERAL: a plan made while record_syncs was empty would else read all of
-- a destination's rows.
SELECT r.record_id, r.version
FROM records r
LEFT JOIN LATERAL (
    SELECT x.synced_version FROM record_syncs x
    WHERE x.tenant_id = :tenant_id AND x.destination_id = :destination_id AND x.type_id = :type_id
        AND x.record_id = r.record_id
    LIMIT 1
) s ON true
WHERE r.tenant_id = :tenant_id AND r.type_id = :type_id AND r.record_id > :after
    AND (NOT r.deleted OR s.synced_version IS NOT NULL)
    AND (:everything::boolean OR s.synced_version IS NULL OR s.synced_version < r.version)
ORDER BY r.record_id
LIMIT :limit;

-- name: book_sync
-- The records that were taken are items of the job, and deliveries: columns that are cut at first positions (lows) and
-- last ones (highs). The job's row is held.
WITH chunk AS (
    INSERT INTO job_chunks (tenant_id, job_id, first_index, item_count, outcomes)
    VALUES (:tenant_id, :job_id, :first_index, cardinality(:record_ids::text[]), :outcomes)
),
effect AS (
    UPDATE effects e SET pending = e.pending + cardinality(:record_ids::text[])
    WHERE e.tenant_id = :tenant_id AND e.job_id = :job_id AND e.destination_id = :destination_id
),
job AS (
    UPDATE jobs j
    SET
        total = j.total + cardinality(:record_ids::text[]), succeeded = j.succeeded + cardinality(:record_ids::text[]),
        results = :results::text::jsonb,
        sync = :cursor::text::jsonb, revision = j.revision + 1
    WHERE j.tenant_id = :tenant_id AND j.job_id = :job_id
)
INSERT INTO deliveries (
    tenant_id, destination_id, type_id, job_id, request_id, first_index, last_index, record_ids, versions, indexes, states,
    forced, verify
)
SELECT
    :tenant_id, :destination_id, :type_id, :job_id, :request_id, :first_index + c.low - 1, :first_index + c.high - 1,
    (:record_ids::text[])[c.low:c.high], (:versions::bigint[])[c.low:c.high],
    ARRAY(SELECT generate_series(:first_index + c.low - 1, :first_index + c.high - 1)), repeat('p', c.high - c.low + 1),
    :forced, :verify
FROM unnest(:lows::int[], :highs::int[]) AS c(low, high)
ORDER BY c.low;

-- name: book_listing
-- A delivery that lists what the destination has of a type, from there on (JSON). It has no items yet. The job's row is held.
INSERT INTO deliveries (
    tenant_id, destination_id, type_id, job_id, request_id, first_index, last_index, record_ids, versions, indexes, states,
    verify, listing
)
VALUES (
    :tenant_id, :destination_id, :type_id, :job_id, :request_id, :first_index, :first_index - 1, '{}', '{}', '{}', '', true,
    :listing::text::jsonb
);

-- name: read_listing
-- The delivery that lists, and is the last of its job.
SELECT d.delivery_id, d.record_ids, d.listing, d.state = 'done' AS done
FROM deliveries d
WHERE d.tenant_id = :tenant_id AND d.job_id = :job_id AND d.destination_id = :destination_id AND d.listing IS NOT NULL
    AND d.first_index = :first_index;

-- name: book_unknown
-- What a list showed and nobody here knows are items of the job. The job's row is held.
WITH chunk AS (
    INSERT INTO job_chunks (tenant_id, job_id, first_index, item_count, outcomes)
    VALUES (:tenant_id, :job_id, :first_index, :count, :outcomes)
),
effect AS (
    UPDATE effects e SET skipped = e.skipped + :count
    WHERE e.tenant_id = :tenant_id AND e.job_id = :job_id AND e.destination_id = :destination_id
),
job AS (
    UPDATE jobs j
    SET total = j.total + :count, succeeded = j.succeeded + :count, results = :results::text::jsonb, revision = j.revision + 1
    WHERE j.tenant_id = :tenant_id AND j.job_id = :job_id
)
UPDATE deliveries d
SET
    last_index = :first_index + :count - 1,
    indexes = ARRAY(SELECT generate_series(:first_index, :first_index + :count - 1))
WHERE d.tenant_id = :tenant_id AND d.delivery_id = :delivery_id;

-- name: drop_listing
-- It found nothing that nobody here knows, and the next delivery begins at the same item.
DELETE FROM deliveries d WHERE d.tenant_id = $1 AND d.delivery_id = $2;

-- name: note_sync_error
-- A part of a sync could not be done (JSON).
UPDATE jobs j SET error = $3::text::jsonb WHERE j.tenant_id = $1 AND j.job_id = $2;

-- name: note_verification
UPDATE destinations d SET verified_at = now() WHERE d.tenant_id = $1 AND d.destination_id = $2;

-- name: due_verifications
-- Destinations whose records are to be compared again by now (option verify_every, in seconds).
SELECT d.tenant_id, d.destination_id, d.name
FROM destinations d
JOIN tenants t ON t.tenant_id = d.tenant_id AND t.disabled_at IS NULL
WHERE d.options ? 'verify_every' AND d.state = 'active'
    AND coalesce(d.verified_at, d.created_at) + (d.options ->> 'verify_every')::float8 * interval '1 second' <= now()
LIMIT 100;

-- name: move_sync
UPDATE jobs j SET sync = $3::text::jsonb, items = CASE WHEN $3::text IS NULL THEN j.total ELSE j.items END
WHERE j.tenant_id = $1 AND j.job_id = $2;
