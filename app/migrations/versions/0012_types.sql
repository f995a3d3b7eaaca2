-- A tenant's own types, and what it adds to those of the product. type_id: as in records.
CREATE TABLE resource_types (
    tenant_id  int NOT NULL,
    type_id    smallint NOT NULL,
    name       text COLLATE pg_catalog."C" NOT NULL,
    version    int NOT NULL DEFAULT 1,
    definition json NOT NULL, -- not jsonb: it keeps the order of the fields
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, type_id),
    UNIQUE (tenant_id, name)
);

-- A database that was at 0010 before that revision made the table as it is now.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'records'::regclass AND attname = 'type_id') THEN
        ALTER TABLE records ADD COLUMN type_id smallint NOT NULL DEFAULT 1;
        ALTER TABLE records ALTER COLUMN type_id DROP DEFAULT;
        ALTER TABLE records DROP CONSTRAINT records_pkey;
        ALTER TABLE records ADD PRIMARY KEY (tenant_id, type_id, record_id);
        -- Of a tombstone that an undo made there is always what it withdrew; without it, an item has deleted the record.
        UPDATE records SET withdrawn = '{}' WHERE deleted AND withdrawn IS NULL;
    END IF;
END
$$;

ALTER TABLE record_syncs ADD COLUMN type_id smallint NOT NULL DEFAULT 1;
ALTER TABLE record_syncs ALTER COLUMN type_id DROP DEFAULT;
ALTER TABLE record_syncs DROP CONSTRAINT record_syncs_pkey;
ALTER TABLE record_syncs ADD PRIMARY KEY (tenant_id, destination_id, type_id, record_id);

ALTER TABLE deliveries ADD COLUMN type_id smallint NOT NULL DEFAULT 1;
ALTER TABLE deliveries ALTER COLUMN type_id DROP DEFAULT;

ALTER TABLE dead_letters ADD COLUMN type_id smallint NOT NULL DEFAULT 1;
ALTER TABLE dead_letters ALTER COLUMN type_id DROP DEFAULT;
DROP INDEX dead_letters_record;
CREATE INDEX dead_letters_record ON dead_letters (tenant_id, destination_id, type_id, record_id) WHERE resolution IS NULL;
DROP INDEX dead_letters_history;
CREATE INDEX dead_letters_history ON dead_letters (tenant_id, type_id, record_id);

-- The name of the type of its items; NULL: they have several (a replay of dead letters).
ALTER TABLE jobs ADD COLUMN type text COLLATE pg_catalog."C" DEFAULT 'contacts';
ALTER TABLE jobs ALTER COLUMN type DROP DEFAULT;

-- The types that go there; NULL: those that its kind has a place for.
ALTER TABLE destinations ADD COLUMN types text[];

CREATE OR REPLACE FUNCTION emit_job_finished(job jobs) RETURNS bigint
    LANGUAGE sql
    AS $$
        SELECT CASE WHEN job.finished_at IS NOT NULL THEN emit_event(
            job.tenant_id,
            'job.finished',
            jsonb_build_object(
                'job_id', job.job_id, 'kind', job.kind, 'type', job.type, 'root_job_id', job.root_job_id,
                'state', job.state,
                'summary', jsonb_build_object(
                    'total', job.total, 'succeeded', job.succeeded, 'failed', job.failed, 'retry', job.retry
                )
            )
        ) END
    $$;

-- For lists of what changed since a moment.
CREATE INDEX record_versions_time ON record_versions (tenant_id, changed_at, job_id, first_index);

-- Fields that lists search by. A BRIN index costs an import next to nothing, and from PostgreSQL 16 on an update that
-- leaves all other indexes alone can still be a HOT one; before, it could not, and lists search without. One index of
-- both fields is one visit for each record that changes, not two.
DO $$
BEGIN
    IF current_setting('server_version_num')::int >= 160000 THEN
        CREATE INDEX records_searched ON records
            USING brin ((document ->> 'email') text_bloom_ops, (document ->> 'domain') text_bloom_ops)
            WITH (pages_per_range = 64, autosummarize = on);
    END IF;
END
$$;
