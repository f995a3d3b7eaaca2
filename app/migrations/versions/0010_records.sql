-- document: name → value. A name is that of a field, or `attributes.` and an attribute's key; null: it was cleared. A name
-- that is absent was never named (app.resources.documents).
-- deleted: a tombstone; its document is empty.
-- prev_item_index: means nothing without a prev_job_id.
-- type_id: 1 are contacts; below 100 are the product's (app.resources.types), from there on a tenant's own.
CREATE TABLE records (
    tenant_id       int NOT NULL,
    record_id       text COLLATE pg_catalog."C" NOT NULL,
    version         bigint NOT NULL,
    source_version  bigint,
    deleted         boolean NOT NULL DEFAULT false,
    document        jsonb NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    job_id          uuid NOT NULL,
    item_index      int NOT NULL,
    prev_job_id     uuid,
    prev_item_index int,
    cleared         jsonb,
    withdrawn       jsonb,
    type_id         smallint NOT NULL,
    PRIMARY KEY (tenant_id, type_id, record_id)
) WITH (fillfactor = 90);

-- The versions that a chunk of a job made, of its items `indexes`; who made the version before each (NULL: there was none);
-- and the versions themselves in blocks of 128 (app.history.versions).
CREATE TABLE record_versions (
    tenant_id         int NOT NULL,
    job_id            uuid NOT NULL,
    first_index       int NOT NULL,
    changed_at        timestamptz NOT NULL DEFAULT now(),
    indexes           int[] NOT NULL,
    prev_job_ids      uuid[],
    prev_item_indexes int[],
    versions          bytea[] NOT NULL,
    PRIMARY KEY (tenant_id, job_id, first_index)
);
-- Packed already.
ALTER TABLE record_versions ALTER COLUMN versions SET STORAGE EXTERNAL;

-- With every attribute cleared.
CREATE FUNCTION without_attributes(document jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (
        SELECT coalesce(jsonb_object_agg(
            e.key, CASE WHEN starts_with(e.key, 'attributes.') THEN 'null'::jsonb ELSE e.value END
        ), '{}')
        FROM jsonb_each(document) AS e(key, value)
    );

-- Contacts and their ledger are copied next, in many transactions (app.migrations.copying). From here on a process of an
-- older release finds the tables no more: it answers 503, and writes nothing that would be missed.
ALTER TABLE contacts RENAME TO old_contacts;
ALTER TABLE ledger RENAME TO old_ledger;
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM old_contacts) AND NOT EXISTS (SELECT FROM old_ledger) THEN
        DROP TABLE old_contacts, old_ledger;
    END IF;
END
$$;
