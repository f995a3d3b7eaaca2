-- Large imports. A body is stored in chunks while it arrives, and each chunk is then processed in a transaction that
-- also deletes it: what is still spooled is exactly what is still to be done.

-- step: what the job's spooled chunks need next (app.vocabulary.states.Step); NULL unless it is queued or running.
ALTER TABLE jobs
    ADD COLUMN step            text,
    ADD COLUMN items           integer,          -- in the request; NULL while it arrives
    ADD COLUMN bytes           bigint NOT NULL DEFAULT 0,  -- of the body, inflated, as far as it is stored
    ADD COLUMN receiving_until timestamptz,      -- the API process that receives the body is taken for dead after it
    ADD COLUMN started_at      timestamptz,      -- the first chunk was processed
    ADD COLUMN applied_at      timestamptz,      -- the last one was: every item is decided
    ADD COLUMN form            jsonb,            -- how a file was written (app.files.readers.Kept)
    ADD COLUMN error           jsonb,            -- code and detail: why it failed or was canceled
    ADD COLUMN trimmed_at      timestamptz;      -- its items' outcomes are past their retention and gone
UPDATE jobs SET items = total, started_at = created_at, applied_at = created_at;
-- A handful of rows at any time: what the sweepers look at every two seconds.
CREATE INDEX jobs_working ON jobs (tenant_id, job_id) WHERE state IN ('receiving', 'queued', 'running');
CREATE INDEX jobs_kept ON jobs (tenant_id, finished_at) WHERE finished_at IS NOT NULL AND trimmed_at IS NULL;

-- rows: the items, or why a row is none (app.files.staging_codec), zstd.
-- id_hashes: one a row (NULL: no id could be read), so that ids that stand twice in a file are found without reading
-- it again.
CREATE TABLE spool_chunks (
    tenant_id   integer NOT NULL,
    job_id      uuid NOT NULL,
    first_index integer NOT NULL,
    item_count  integer NOT NULL,
    step        text NOT NULL,                   -- what this chunk needs next
    attempts    smallint NOT NULL DEFAULT 0,     -- that ended without a decision
    due_at      timestamptz NOT NULL DEFAULT now(),
    repeated    boolean NOT NULL DEFAULT false,  -- it has items in spool_repeats
    id_hashes   bigint[] NOT NULL,
    rows        bytea NOT NULL,
    PRIMARY KEY (tenant_id, job_id, first_index)
);
ALTER TABLE spool_chunks ALTER COLUMN id_hashes SET STORAGE EXTERNAL;
ALTER TABLE spool_chunks ALTER COLUMN rows SET STORAGE EXTERNAL;

-- Items whose id stands in a file more than once. The file is one batch, whatever chunks it is cut into: equal items
-- are applied once, differing ones fail or the last wins.
CREATE TABLE spool_repeats (
    tenant_id  integer NOT NULL,
    job_id     uuid NOT NULL,
    item_index integer NOT NULL,
    contact_id text COLLATE "C",                 -- NULL until it was read
    digest     bytea,                            -- of its content
    verdict    text,                             -- app.imports.batch.file_duplicates.Verdict; NULL until all were read
    leader     integer,                          -- the item that is applied for it
    members    integer,                          -- how many have its id
    others     integer[],                        -- some of them
    outcome    jsonb,                            -- the leader's, once it was applied
    PRIMARY KEY (tenant_id, job_id, item_index)
);

-- sources: of the items that are not ok here, as they were sent, so that they can be given back (zstd).
ALTER TABLE job_chunks ADD COLUMN sources bytea;
ALTER TABLE job_chunks ALTER COLUMN sources SET STORAGE EXTERNAL;
CREATE INDEX job_chunks_faulty ON job_chunks (tenant_id, job_id, first_index) WHERE failures <> '{}';

-- failures: the delivery's errors by code, with a count and sample item indexes, shaped like job_chunks.failures.
-- A poll adds up ten thousand of them instead of a million errors.
ALTER TABLE deliveries ADD COLUMN failures jsonb NOT NULL DEFAULT '{}';
UPDATE deliveries d
SET failures = (
    SELECT jsonb_object_agg(f.code, jsonb_build_object('count', f.count, 'samples', f.samples))
    FROM (
        SELECT
            e.value ->> 'code' AS code, count(*) AS count,
            to_jsonb((array_agg(d.indexes[e.key::int + 1] ORDER BY d.indexes[e.key::int + 1]))[1:5]) AS samples
        FROM jsonb_each(d.errors) e
        GROUP BY e.value ->> 'code'
    ) f
)
WHERE d.errors <> '{}';
CREATE INDEX deliveries_faulty ON deliveries (tenant_id, job_id, destination_id, first_index)
    WHERE failures <> '{}';
CREATE INDEX deliveries_open ON deliveries (tenant_id, job_id, destination_id, next_attempt_at)
    WHERE state <> 'done';

-- While a body arrives its key stands here without fingerprint, status and answer; answering_until is then the time
-- until which the receiving process is taken for alive.
ALTER TABLE idempotency_keys ALTER COLUMN fingerprint DROP NOT NULL;
ALTER TABLE idempotency_keys ALTER COLUMN status DROP NOT NULL;

-- Counters by name, added up.
CREATE FUNCTION add_counts(a jsonb, b jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (
        SELECT coalesce(jsonb_object_agg(t.key, t.sum), '{}')
        FROM (
            SELECT e.key, sum(e.value::bigint) AS sum
            FROM (SELECT * FROM jsonb_each_text(a) UNION ALL SELECT * FROM jsonb_each_text(b)) e
            GROUP BY e.key
        ) t
    );
