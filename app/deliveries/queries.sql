-- The queries of delivery: find what is due, claim it, record what became of it.

-- name: due_destinations
-- Destinations with something to do now, whichever worker asks; one row a destination, so that a tenant with ten
-- thousand deliveries counts no more than one with a single one.
SELECT d.tenant_id, d.destination_id
FROM destinations d
JOIN tenants t ON t.tenant_id = d.tenant_id AND t.disabled_at IS NULL
WHERE (d.state = 'removed' OR d.state = 'active' AND (d.blocked_until IS NULL OR d.blocked_until <= now()))
    AND EXISTS (
        SELECT FROM deliveries x
        WHERE x.tenant_id = d.tenant_id AND x.destination_id = d.destination_id
            AND x.state = 'pending' AND x.next_attempt_at <= now()
    );

-- name: read_destination
SELECT
    d.tenant_id, d.destination_id, t.name AS tenant, d.name, d.kind, d.base_url, d.credentials, d.options, d.state, d.types
FROM destinations d
JOIN tenants t ON t.tenant_id = d.tenant_id
WHERE d.tenant_id = $1 AND d.destination_id = $2;

-- name: lock_destination
-- The gate through which claims of one destination pass one at a time. Only a statement after this one sees what
-- the claim before it did, hence two statements.
SELECT
    t.disabled_at IS NULL AND (
        d.state = 'removed' OR d.state = 'active' AND (d.blocked_until IS NULL OR d.blocked_until <= now())
    ) AS open,
    d.state = 'removed' AS removed,
    d.blocked_until IS NOT NULL AS blocked_before
FROM destinations d
JOIN tenants t ON t.tenant_id = d.tenant_id
WHERE d.tenant_id = $1 AND d.destination_id = $2
FOR NO KEY UPDATE OF d;

-- name: claim_deliveries
-- Due deliveries, the oldest first, that share no record with one another nor with any that is being sent: versions
-- at the CRM must not go backwards.
-- `concurrency`: most deliveries in flight; `limit`: of this claim; `removed`, `blocked_before`: what lock_destination said.
-- Records of different types share nothing, whatever their ids. All claims of a destination wait for this one. IS TRUE keeps the look-up among busy records a hash table, and the
-- rows are named by values, not by a join: no plan that was made while the table was empty can then read all of it.
WITH sending AS MATERIALIZED (
    SELECT s.type_id, s.record_ids
    FROM deliveries s
    WHERE s.tenant_id = :tenant_id AND s.destination_id = :destination_id AND s.state = 'sending'
),
busy AS MATERIALIZED (
    SELECT s.type_id, unnest(s.record_ids) AS record_id FROM sending s
    UNION ALL
    -- A job of the CRM's own may be writing these, whoever looks after it.
    SELECT p.type_id, unnest(p.record_ids)
    FROM deliveries p
    WHERE p.tenant_id = :tenant_id AND p.destination_id = :destination_id AND p.task IS NOT NULL AND p.state = 'pending'
),
free AS MATERIALIZED (
    SELECT d.delivery_id, d.next_attempt_at, d.type_id, d.record_ids
    FROM deliveries d
    WHERE d.tenant_id = :tenant_id AND d.destination_id = :destination_id AND d.state = 'pending' AND d.next_attempt_at <= now()
        AND (SELECT count(*) FROM sending) < :concurrency::int
        AND (d.task IS NOT NULL OR NOT EXISTS (
            SELECT FROM unnest(d.record_ids) AS k(record_id)
            WHERE ((d.type_id, k.record_id) IN (SELECT b.type_id, b.record_id FROM busy b)) IS TRUE
        ))
    ORDER BY d.next_attempt_at, d.delivery_id
    LIMIT greatest(least(:limit::int, :concurrency::int - (SELECT count(*) FROM sending)::int), 0)
    FOR UPDATE SKIP LOCKED
),
queued AS MATERIALIZED (
    SELECT f.delivery_id, f.type_id, f.record_ids, row_number() OVER (ORDER BY f.next_attempt_at, f.delivery_id) AS place
    FROM free f
),
shared AS MATERIALIZED (
    SELECT q.type_id, k.record_id, min(q.place) AS first
    FROM queued q
    CROSS JOIN unnest(q.record_ids) AS k(record_id)
    WHERE (SELECT count(*) FROM queued) > 1
    GROUP BY q.type_id, k.record_id
    HAVING count(*) > 1
),
claimed AS (
    UPDATE deliveries d
    SET state = 'sending', lease_token = :token, lease_until = now() + :lease::interval, attempt = d.attempt + 1
    WHERE d.tenant_id = :tenant_id AND d.delivery_id = ANY (ARRAY(
        SELECT q.delivery_id FROM queued q
        WHERE NOT EXISTS (
            SELECT FROM shared s WHERE s.first < q.place AND s.type_id = q.type_id AND s.record_id = ANY (q.record_ids)
        )
    ))
    RETURNING
        d.tenant_id, d.destination_id, d.type_id, d.delivery_id, d.lease_token, d.job_id, d.request_id, d.record_ids,
        d.versions, d.indexes, d.states, d.errors, d.attempt, d.lost, d.dead_letters, d.created_at, d.absent_since,
        d.unknown_since, d.forced, d.verify, d.drift, d.listing, d.task
)
SELECT
    d.tenant_id, d.destination_id, d.type_id, d.delivery_id, d.lease_token AS token, d.job_id, d.request_id,
    (SELECT j.trace_context FROM jobs j WHERE j.tenant_id = :tenant_id AND j.job_id = d.job_id), d.record_ids, d.versions,
    d.indexes, d.states, d.errors, d.attempt, d.lost, :removed::boolean AS removed, :blocked_before::boolean AS blocked_before,
    d.dead_letters IS NOT NULL OR d.forced AS resent, d.forced, d.verify, d.drift, d.listing, d.task,
    extract(epoch FROM now() - d.created_at)::float8 AS age,
    extract(epoch FROM now() - d.absent_since)::float8 AS absent_for,
    extract(epoch FROM d.absent_since)::float8 AS absent_since,
    extract(epoch FROM now() - d.unknown_since)::float8 AS unknown_for
FROM claimed d;

-- name: give_back
-- What a claim took whose answer never came; nobody has begun with it.
UPDATE deliveries
SET state = 'pending', lease_token = NULL, lease_until = NULL, attempt = attempt - 1
WHERE tenant_id = $1 AND destination_id = $2 AND state = 'sending' AND lease_token = $3;

-- name: renew_lease
UPDATE deliveries
SET lease_until = now() + :lease::interval
WHERE tenant_id = :tenant_id AND delivery_id = :delivery_id AND lease_token = :token AND state = 'sending'
RETURNING 1;

-- name: records_to_send
-- Records as they are now, with what the destination already holds of them: doubtful if it may hold a later version
-- than it is known to, refused if it did not take the last one. LATERAL: a plan made while record_syncs was empty, which
-- a first large import always meets, would else read all of a destination's rows for every record.
SELECT
    r.record_id, r.version, r.document, r.deleted, r.cleared, r.withdrawn,
    coalesce(s.synced_version, 0) AS synced_version,
    coalesce(s.state = 'unknown' OR s.error_code = 'OUTCOME_UNKNOWN', false) AS doubtful,
    extract(epoch FROM s.doubted_at)::float8 AS doubted_at,
    coalesce(s.state = 'failed', false) AS refused,
    s.remote_id,
    coalesce(s.state_version, 0) AS tried_version,
    coalesce(s.state <> 'ok', false) AS troubled, s.created, coalesce(s.prior_version, 0) AS prior_version,
    s.not_restored, s.before_image, coalesce(s.adopted_at > s.synced_at, s.adopted_at IS NOT NULL, false) AS adopted
FROM records r
LEFT JOIN LATERAL (
    SELECT
        x.synced_version, x.state, x.state_version, x.error_code, x.remote_id, x.doubted_at, x.created,
        x.prior_version, x.not_restored, x.before_image, x.adopted_at, x.synced_at
    FROM record_syncs x
    WHERE x.tenant_id = $1 AND x.destination_id = $2 AND x.type_id = $3 AND x.record_id = r.record_id
    LIMIT 1
) s ON true
WHERE r.tenant_id = $1 AND r.type_id = $3 AND r.record_id = ANY ($4::text[]);

-- name: record_delivery
-- What became of a claimed delivery, in one statement; no row comes back if the lease was lost.
--   attempts  that are spent
--   wait      before the next attempt; NULL: nothing is left to do
--   absence   the first one: 'keep', 'now' or 'clear'
--   failures  the errors counted by code
--   settled or tried records, each column as app.kit.postgres.column_codec joins them:
--     tried_ids (sorted) · tried_states (NULL: all ok) · tried_versions · held_versions (0: unknown) · remote_ids (empty: to
--     be forgotten) · codes · details · created, whether our call made the record ('t', 'f' or NULL) · left_there, what
--     could not be restored there (JSON or NULL)
--   not_restored  the same of the delivery's items, by position
-- What few deliveries need (dead letters, evidence) has statements of its own: were it here, PostgreSQL would find it cheaper
-- to plan anew each time, which costs more than to record a hundred records.
WITH held AS MATERIALIZED (
    SELECT d.delivery_id, d.destination_id, d.job_id, d.states
    FROM deliveries d
    WHERE d.tenant_id = :tenant_id AND d.delivery_id = :delivery_id AND d.lease_token = :token
        AND (d.state = 'sending') IS TRUE
    FOR UPDATE
),
recorded AS (
    UPDATE deliveries d
    SET
        states = :states,
        errors = :errors::text::jsonb,
        failures = :failures::text::jsonb,
        attempt = :attempts,
        state = CASE WHEN :wait::interval IS NULL THEN 'done' ELSE 'pending' END,
        next_attempt_at = greatest(now() + :wait::interval, CASE WHEN :wait::interval IS NULL THEN d.next_attempt_at END),
        finished_at = now() + CASE WHEN :wait::interval IS NULL THEN interval '0 seconds' END,
        absent_since = least(
            CASE WHEN :absence::text = 'keep' THEN d.absent_since END,
            now() + CASE WHEN :absence = 'now' THEN interval '0 seconds' END
        ),
        unknown_since = least(
            CASE WHEN :states LIKE '%u%' THEN d.unknown_since END,
            now() + CASE WHEN :states LIKE '%u%' THEN interval '0 seconds' END
        ),
        not_restored = CASE
            WHEN :not_restored::text IS NULL THEN d.not_restored
            ELSE coalesce(d.not_restored, '{}') || :not_restored::text::jsonb
        END,
        lost = 0,
        lease_token = NULL,
        lease_until = NULL
    WHERE d.tenant_id = :tenant_id AND d.delivery_id = (SELECT h.delivery_id FROM held h)
),
synced AS (
    INSERT INTO record_syncs AS s (
        tenant_id, destination_id, type_id, record_id, synced_version, synced_at, remote_id, state, state_version,
        error_code, error_detail, doubted_at, created, not_restored
    )
    SELECT
        :tenant_id, h.destination_id, :type_id, t.record_id, t.held, CASE WHEN t.held > 0 THEN now() END, t.remote_id,
        coalesce(t.state, 'ok'), t.version, t.error_code, t.error_detail,
        -- An attempt that only looked, and did not find it, has left nothing on its way.
        CASE WHEN t.state = 'unknown' AND :absence = 'clear' THEN now() END,
        CASE WHEN t.created = 't' THEN true WHEN t.created = 'f' THEN false END,
        t.not_restored::jsonb
    FROM held h
    CROSS JOIN unnest(
        split_column(:tried_ids, :separator, :null), split_column(:tried_states, :separator, :null),
        :tried_versions::text::bigint[], :held_versions::text::bigint[], split_column(:remote_ids, :separator, :null),
        split_column(:codes, :separator, :null), split_column(:details, :separator, :null),
        split_column(:created, :separator, :null), split_column(:left_there, :separator, :null)
    ) AS t(record_id, state, version, held, remote_id, error_code, error_detail, created, not_restored)
    ORDER BY t.record_id
    ON CONFLICT (tenant_id, destination_id, type_id, record_id) DO UPDATE
    SET
        synced_version = greatest(s.synced_version, excluded.synced_version),
        synced_at = coalesce(excluded.synced_at, s.synced_at),
        remote_id = nullif(coalesce(excluded.remote_id, s.remote_id), ''),
        state = excluded.state,
        state_version = excluded.state_version,
        error_code = excluded.error_code,
        error_detail = excluded.error_detail,
        doubted_at = coalesce(excluded.doubted_at, s.doubted_at),
        prior_version = CASE
            WHEN excluded.synced_version > s.synced_version THEN s.synced_version ELSE s.prior_version
        END,
        -- That it was there before us is sure only of the first write; after one whose answer was lost, nobody knows
        -- which of them made it. Another id is another record.
        created = CASE
            WHEN excluded.remote_id = '' THEN NULL
            WHEN excluded.created THEN true
            WHEN excluded.remote_id <> s.remote_id THEN excluded.created
            WHEN s.created IS NULL AND s.synced_version = 0 AND s.doubted_at IS NULL THEN excluded.created
            ELSE s.created
        END,
        not_restored = CASE
            WHEN excluded.remote_id = '' THEN NULL
            WHEN excluded.not_restored IS NULL THEN s.not_restored
            ELSE coalesce(s.not_restored, '{}') || excluded.not_restored
        END,
        -- They are those of the record that had this id.
        before_image = CASE
            WHEN excluded.remote_id IS NULL OR excluded.remote_id = s.remote_id THEN s.before_image
        END,
        adopted_at = CASE
            WHEN excluded.remote_id IS NULL OR excluded.remote_id = s.remote_id THEN s.adopted_at
        END
    WHERE excluded.state_version >= s.state_version
),
counted AS (
    UPDATE effects e
    SET
        pending = e.pending + count_state(:states, 'p') - count_state(h.states, 'p'),
        ok = e.ok + count_state(:states, 'o') - count_state(h.states, 'o'),
        retry = e.retry + count_state(:states, 'r') - count_state(h.states, 'r'),
        failed = e.failed + count_state(:states, 'f') - count_state(h.states, 'f'),
        unknown = e.unknown + count_state(:states, 'u') - count_state(h.states, 'u'),
        dead = e.dead + count_state(:states, 'd') - count_state(h.states, 'd'),
        skipped = e.skipped + count_state(:states, 's') - count_state(h.states, 's')
    FROM held h
    WHERE e.tenant_id = :tenant_id AND e.job_id = h.job_id AND e.destination_id = h.destination_id
    RETURNING e.pending + e.retry + e.unknown AS open
),
revised AS (
    -- Also the lock that makes the last two recordings of a job see one another in finish_job.
    UPDATE jobs j
    SET revision = j.revision + 1
    WHERE j.tenant_id = :tenant_id AND j.job_id = (SELECT h.job_id FROM held h)
)
SELECT h.job_id, c.open
FROM held h
CROSS JOIN counted c;

-- name: awaited_records
-- Which of these records another delivery to the destination is still to bring, or brings now.
SELECT DISTINCT k.record_id
FROM (
    SELECT p.delivery_id, p.type_id, p.record_ids, p.verify FROM deliveries p
    WHERE p.tenant_id = :tenant_id AND p.destination_id = :destination_id AND p.state = 'pending'
    UNION ALL
    SELECT s.delivery_id, s.type_id, s.record_ids, s.verify FROM deliveries s
    WHERE s.tenant_id = :tenant_id AND s.destination_id = :destination_id AND s.state = 'sending'
) d
CROSS JOIN unnest(d.record_ids) AS k(record_id)
WHERE d.type_id = :type_id AND NOT d.verify AND k.record_id = ANY (:record_ids::text[]);

-- name: note_drift
-- What a verification found (JSON, by position), before anything is sent because of it; no row: the lease was lost.
UPDATE deliveries d SET drift = coalesce(d.drift, '{}') || :drift::text::jsonb
WHERE d.tenant_id = :tenant_id AND d.delivery_id = :delivery_id AND d.lease_token = :token AND d.state = 'sending'
RETURNING 1;

-- name: note_task
-- The job that writes the records of a claimed delivery, before it is started; NULL: it has ended. No row: the lease was lost.
UPDATE deliveries d SET task = :task
WHERE d.tenant_id = :tenant_id AND d.delivery_id = :delivery_id AND d.lease_token = :token AND d.state = 'sending'
RETURNING 1;

-- name: unknown_keys
-- Which of these keys no record here has. One of a record that was removed after it had been there is compared with the
-- records, and is not among these.
SELECT k.key
FROM unnest(:keys::text[]) AS k(key)
WHERE NOT EXISTS (
    SELECT FROM records r
    WHERE r.tenant_id = :tenant_id AND r.type_id = :type_id AND r.record_id = k.key
        AND (NOT r.deleted OR EXISTS (
            SELECT FROM record_syncs s
            WHERE s.tenant_id = :tenant_id AND s.destination_id = :destination_id AND s.type_id = :type_id
                AND s.record_id = k.key
        ))
)
ORDER BY k.key;

-- name: record_listing
-- What a list showed, or a part of it: the keys that nobody here knows, each with its drift (JSON, by position), and how far
-- it was read (JSON). `wait`: as in record_delivery. No row: the lease was lost.
UPDATE deliveries d
SET
    record_ids = d.record_ids || :found::text[],
    versions = d.versions || array_fill(0::bigint, ARRAY[cardinality(:found)]),
    states = d.states || repeat('s', cardinality(:found)),
    drift = nullif(coalesce(d.drift, '{}') || :drift::text::jsonb, '{}'),
    listing = :listing::text::jsonb,
    attempt = :attempts,
    state = CASE WHEN :wait::interval IS NULL THEN 'done' ELSE 'pending' END,
    next_attempt_at = greatest(now() + :wait::interval, CASE WHEN :wait::interval IS NULL THEN d.next_attempt_at END),
    finished_at = now() + CASE WHEN :wait::interval IS NULL THEN interval '0 seconds' END,
    lost = 0,
    lease_token = NULL,
    lease_until = NULL
WHERE d.tenant_id = :tenant_id AND d.delivery_id = :delivery_id AND d.lease_token = :token AND d.state = 'sending'
RETURNING 1;

-- name: keep_adoptions
-- Records that were found at the destination of a claimed delivery, with what they hold (JSON), before they are written to;
-- returns those that are kept. One that another record of ours has adopted is not, and none is if the lease was lost.
INSERT INTO record_syncs AS s (
    tenant_id, destination_id, type_id, record_id, remote_id, state, state_version, created, adopted_at, before_image
)
SELECT :tenant_id, d.destination_id, d.type_id, t.record_id, t.remote_id, 'ok', 0, false, now(), t.before_image
FROM deliveries d
CROSS JOIN unnest(:record_ids::text[], :remote_ids::text[], :before_images::text[]) AS t(record_id, remote_id, before_image)
WHERE d.tenant_id = :tenant_id AND d.delivery_id = :delivery_id AND d.lease_token = :token AND d.state = 'sending'
    AND NOT EXISTS (
        SELECT FROM record_syncs x
        WHERE x.tenant_id = :tenant_id AND x.destination_id = d.destination_id AND x.type_id = d.type_id
            AND x.remote_id = t.remote_id AND x.before_image IS NOT NULL AND x.record_id <> t.record_id
    )
ORDER BY t.record_id
ON CONFLICT (tenant_id, destination_id, type_id, record_id) DO UPDATE
SET
    remote_id = excluded.remote_id, created = excluded.created, adopted_at = excluded.adopted_at,
    before_image = excluded.before_image
RETURNING s.record_id;

-- name: insert_dead_letters
-- The dead letters (JSON) that an attempt leaves, after record_delivery in its transaction.
WITH named AS MATERIALIZED (
    SELECT
        d.destination_id, d.type_id, d.job_id, d.delivery_id, d.attempt, d.request_id, t.record_id, t.version, t.item_index,
        t.state, t.code, t.detail, d.dead_letters[array_position(d.indexes, t.item_index)] AS before_id
    FROM deliveries d
    CROSS JOIN jsonb_to_recordset(:dead_letters::text::jsonb)
        AS t(record_id text, version bigint, item_index int, state text, code text, detail text)
    WHERE d.tenant_id = :tenant_id AND d.delivery_id = :delivery_id
),
-- The dead letter before each, where this delivery was to answer for one.
before AS MATERIALIZED (
    SELECT x.dead_letter_id, x.chain_id, x.root_job_id FROM dead_letters x
    WHERE x.tenant_id = :tenant_id AND x.dead_letter_id = ANY (ARRAY(SELECT n.before_id FROM named n))
)
INSERT INTO dead_letters (
    tenant_id, destination_id, type_id, record_id, version, job_id, item_index, delivery_id, state, error_code, error_detail,
    attempts, request_id, root_job_id, chain_id
)
SELECT
    :tenant_id, n.destination_id, n.type_id, n.record_id, n.version, n.job_id, n.item_index, n.delivery_id, n.state, n.code,
    n.detail, n.attempt, n.request_id,
    coalesce(b.root_job_id, (SELECT j.root_job_id FROM jobs j WHERE j.tenant_id = :tenant_id AND j.job_id = n.job_id)),
    coalesce(b.chain_id, b.dead_letter_id)
FROM named n
LEFT JOIN before b ON b.dead_letter_id = n.before_id
ON CONFLICT DO NOTHING;

-- name: supersede_dead_letters
-- Dead letters of records that arrived in these versions need nobody any more. Comes before record_delivery
-- in its transaction: whoever replays dead letters locks them first, too.
UPDATE dead_letters l
SET resolution = 'superseded', resolved_at = now(), resolved_by = 'tranche', note = 'a later delivery arrived'
WHERE l.tenant_id = :tenant_id AND l.resolution IS NULL
    AND l.dead_letter_id = ANY (ARRAY(
        SELECT o.dead_letter_id
        FROM unnest(:arrived_ids::text[], :arrived_versions::bigint[]) AS t(record_id, version)
        CROSS JOIN LATERAL (
            SELECT x.dead_letter_id FROM dead_letters x
            WHERE x.tenant_id = :tenant_id AND x.destination_id = :destination_id AND x.type_id = :type_id
                AND x.record_id = t.record_id
                AND x.version <= t.version AND x.resolution IS NULL
            LIMIT 100
        ) o
        ORDER BY o.dead_letter_id
    ))
    AND EXISTS (
        SELECT FROM deliveries d
        WHERE d.tenant_id = :tenant_id AND d.delivery_id = :delivery_id AND d.lease_token = :token AND d.state = 'sending'
    );

-- name: record_calls
-- Calls (JSON) of an attempt that did not end well. An attempt that was given back has the number of the next
-- one: their calls are counted on, and what waits for long at a closed door does not fill the table.
INSERT INTO delivery_calls (
    tenant_id, delivery_id, attempt, call, asked, event_id, positions, sent_at, milliseconds, status, detail
)
SELECT
    :tenant_id, :delivery_id, :attempt, coalesce(m.call + 1, 0) + (e.place - 1)::int, c.asked, c.event_id, c.positions, c.sent_at,
    c.milliseconds, c.status, c.detail
FROM jsonb_array_elements(:calls::text::jsonb) WITH ORDINALITY AS e(call, place)
CROSS JOIN LATERAL jsonb_to_record(e.call) AS c(
    asked text, event_id text, positions integer[], sent_at timestamptz, milliseconds integer, status integer,
    detail text, lost boolean
)
CROSS JOIN (
    SELECT max(x.call) AS call FROM delivery_calls x
    WHERE x.tenant_id = :tenant_id AND x.delivery_id = :delivery_id AND x.attempt = :attempt
) m
WHERE c.lost OR coalesce(m.call, 0) < 100;

-- name: lost_calls
-- The writing calls of a delivery, the latest first.
SELECT c.asked, c.event_id, c.positions
FROM delivery_calls c
WHERE c.tenant_id = :tenant_id AND c.delivery_id = :delivery_id AND c.asked <> 'read_back'
ORDER BY c.attempt DESC, c.call DESC;

-- name: notify_dead_letters
-- Reports the dead letters that a delivery has just left for these of its items, with our own sentence for each code
-- (JSON): what a CRM said may repeat people's data, and stays in the dead letter. The first items of up to so many bytes are
-- listed, so that the body stays small; `count` is how many there are, and `items_url` leads to all.
WITH notified AS (
    SELECT
        l.destination_id, l.job_id, l.root_job_id, l.item_index,
        jsonb_build_object(
            'index', l.item_index, 'type', :type::text, 'id', l.record_id, 'version', l.version, 'state', l.state,
            'code', l.error_code, 'detail', coalesce(:sentences::text::jsonb ->> l.error_code, ''),
            'dead_letter_id', l.dead_letter_id
        ) AS item
    FROM dead_letters l
    WHERE l.tenant_id = :tenant_id AND l.delivery_id = :delivery_id AND l.item_index = ANY (:item_indexes::int[])
),
measured AS (
    SELECT t.*, sum(octet_length(t.item::text)) OVER (PARTITION BY t.job_id ORDER BY t.item_index) AS bytes
    FROM notified t
),
event AS MATERIALIZED (
    SELECT
        gen_random_uuid() AS event_id, 'item.dead' AS type,
        jsonb_build_object(
            'kind', 'delivery',
            'destination', d.name,
            'job_id', m.job_id,
            'root_job_id', m.root_job_id,
            'count', count(*),
            'items', jsonb_agg(m.item ORDER BY m.item_index) FILTER (WHERE m.bytes <= :most_bytes::int),
            'items_url', '/v1/dead-letters?job_id=' || m.job_id || '&destination=' || d.name
        ) AS data
    FROM measured m
    JOIN destinations d ON d.tenant_id = :tenant_id AND d.destination_id = m.destination_id
    GROUP BY d.name, m.job_id, m.root_job_id
)
INSERT INTO webhook_messages {{event_messages}};

-- name: block_destination
-- Nothing of this destination is due for a while; never shortens a wait that somebody else has set.
UPDATE destinations d
SET
    blocked_until = greatest(d.blocked_until, now() + $3::interval),
    blocked_code = $4,
    blocked_detail = $5
WHERE d.tenant_id = $1 AND d.destination_id = $2
    AND (d.blocked_until IS NULL OR d.blocked_until < now() + $3::interval);

-- name: unblock_destination
UPDATE destinations
SET blocked_until = NULL, blocked_code = NULL, blocked_detail = NULL
WHERE tenant_id = $1 AND destination_id = $2 AND blocked_until <= now();

-- name: lost_deliveries
-- Claimed by a worker that did not come back.
SELECT d.tenant_id, d.delivery_id
FROM deliveries d
WHERE d.state = 'sending' AND d.lease_until < now()
    AND d.tenant_id = $1
ORDER BY d.lease_until
LIMIT 100;

-- name: tenants_sending
-- Tenants that may have lost deliveries; what is being sent is never much.
SELECT DISTINCT d.tenant_id FROM deliveries d WHERE d.state = 'sending' AND d.lease_until < now();

-- name: release_lost
-- What the lost worker sent is not known: its open items become `unknown`, and are read back before anything is
-- sent again; unless all that it had to do was to read. The attempt it spent stays spent.
WITH lost AS MATERIALIZED (
    SELECT
        d.delivery_id, d.destination_id, d.type_id, d.job_id, d.record_ids, d.versions, d.indexes, d.states, d.errors,
        CASE
            WHEN NOT d.verify THEN translate(d.states, 'pr', 'uu')
            WHEN NOT d.forced OR d.drift IS NULL THEN d.states
            -- What a verification sends it has noted before.
            ELSE (
                SELECT string_agg(
                    CASE
                        WHEN d.drift ? (p - 1)::text THEN translate(substr(d.states, p, 1), 'pr', 'uu')
                        ELSE substr(d.states, p, 1)
                    END,
                    '' ORDER BY p
                )
                FROM generate_series(1, length(d.states)) AS p
            )
        END AS new_states,
        now() AS at,
        format(
            'a worker took it up, as attempt %s, and stopped before %s without a word: whether and when it sent it is '
                || 'not known',
            d.attempt, to_char(d.lease_until AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
        ) AS detail
    FROM deliveries d
    WHERE d.tenant_id = $1 AND d.delivery_id = $2 AND d.state = 'sending' AND d.lease_until < now()
    FOR UPDATE SKIP LOCKED
),
doubts AS (
    SELECT
        l.errors || coalesce((
            SELECT jsonb_object_agg((p - 1)::text, jsonb_build_object(
                'code', 'OUTCOME_UNKNOWN', 'detail', l.detail
            ))
            FROM generate_series(1, length(l.new_states)) AS p
            WHERE substr(l.new_states, p, 1) = 'u'
        ), '{}') AS errors
    FROM lost l
),
clusters AS (
    SELECT
        e.value ->> 'code' AS code, count(*) AS count,
        (array_agg(l.indexes[e.key::int + 1] ORDER BY l.indexes[e.key::int + 1]))[1:5] AS samples
    FROM lost l
    CROSS JOIN doubts d
    CROSS JOIN jsonb_each(d.errors) e
    GROUP BY e.value ->> 'code'
),
released AS (
    UPDATE deliveries d
    SET
        state = 'pending', states = l.new_states, next_attempt_at = now(), absent_since = NULL,
        unknown_since = CASE WHEN l.new_states LIKE '%u%' THEN coalesce(d.unknown_since, l.at) END,
        lost = d.lost + 1,
        lease_token = NULL, lease_until = NULL,
        errors = n.errors,
        failures = coalesce((
            SELECT jsonb_object_agg(c.code, jsonb_build_object('count', c.count, 'samples', to_jsonb(c.samples)))
            FROM clusters c
        ), '{}')
    FROM lost l
    CROSS JOIN doubts n
    WHERE d.tenant_id = $1 AND d.delivery_id = l.delivery_id
),
doubted AS (
    INSERT INTO record_syncs AS s (
        tenant_id, destination_id, type_id, record_id, state, state_version, error_code, error_detail, doubted_at
    )
    SELECT
        $1, l.destination_id, l.type_id, i.record_id, 'unknown', i.version, 'OUTCOME_UNKNOWN', l.detail, now()
    FROM lost l
    CROSS JOIN unnest(l.record_ids, l.versions, string_to_array(l.new_states, NULL))
        AS i(record_id, version, state)
    WHERE i.state = 'u'
    ORDER BY i.record_id
    ON CONFLICT (tenant_id, destination_id, type_id, record_id) DO UPDATE
    SET
        state = excluded.state,
        -- The delivery names its own version, but sends the record as it is now: what was tried since may be in doubt too.
        state_version = greatest(excluded.state_version, s.state_version),
        error_code = excluded.error_code,
        error_detail = excluded.error_detail,
        doubted_at = excluded.doubted_at
    -- What the destination holds already was dropped, not sent.
    WHERE s.synced_version < excluded.state_version
),
counted AS (
    UPDATE effects e
    SET
        pending = e.pending + count_state(l.new_states, 'p') - count_state(l.states, 'p'),
        retry = e.retry + count_state(l.new_states, 'r') - count_state(l.states, 'r'),
        unknown = e.unknown + count_state(l.new_states, 'u') - count_state(l.states, 'u')
    FROM lost l
    WHERE e.tenant_id = $1 AND e.job_id = l.job_id AND e.destination_id = l.destination_id
    RETURNING 1
),
revised AS (
    UPDATE jobs j SET revision = j.revision + 1
    FROM lost l
    WHERE j.tenant_id = $1 AND j.job_id = l.job_id
)
-- Naming the counters makes them come before the job, as in record_delivery: one order of locks, no deadlock.
SELECT l.delivery_id FROM lost l LEFT JOIN counted ON true;

-- name: lacks_place
-- Whether something is due at a destination and all that keeps it is that $3 deliveries are under way already.
SELECT EXISTS (
    SELECT FROM destinations d
    WHERE d.tenant_id = $1 AND d.destination_id = $2
        AND (d.state = 'removed' OR d.state = 'active' AND (d.blocked_until IS NULL OR d.blocked_until <= now()))
        AND EXISTS (
            SELECT FROM deliveries x
            WHERE x.tenant_id = $1 AND x.destination_id = $2 AND x.state = 'pending' AND x.next_attempt_at <= now()
        )
        AND (
            SELECT count(*) FROM deliveries x
            WHERE x.tenant_id = $1 AND x.destination_id = $2 AND x.state = 'sending'
        ) >= $3::int
);

-- name: has_deliveries
-- Whether anything is to be sent to a destination ($2), whenever it is due, or is under way.
SELECT EXISTS (
    SELECT FROM deliveries x WHERE x.tenant_id = $1 AND x.destination_id = $2 AND x.state = 'pending'
) OR EXISTS (
    SELECT FROM deliveries x WHERE x.tenant_id = $1 AND x.destination_id = $2 AND x.state = 'sending'
);
