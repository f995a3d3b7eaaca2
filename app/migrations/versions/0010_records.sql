-- document: name → value. A name is that of a field, or `attributes.` and an attribute's key; null: it was cleared. A name
-- that is absent was never named (app.resources.documents).
-- deleted: a tombstone; its document is empty.
-- prev_item_index: means nothing without a prev_job_id.
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
    PRIMARY KEY (tenant_id, record_id)
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

-- Of the columns that there were. A name that is kept as cleared means nothing once it has a value.
CREATE FUNCTION pg_temp.document_of(
    email text, first_name text, last_name text, phone text, company text, attributes jsonb, cleared jsonb
) RETURNS jsonb
    LANGUAGE sql IMMUTABLE
    AS $$
        SELECT CASE
            WHEN email = '' THEN '{}'
            ELSE coalesce((
                SELECT jsonb_object_agg(k.name, NULL) FROM jsonb_object_keys(cleared) AS k(name)
            ), '{}') || jsonb_strip_nulls(jsonb_build_object(
                'email', email, 'first_name', first_name, 'last_name', last_name, 'phone', phone, 'company', company
            )) || coalesce((
                SELECT jsonb_object_agg('attributes.' || a.key, a.value) FROM jsonb_each(attributes) AS a(key, value)
            ), '{}')
        END
    $$;

INSERT INTO records (
    tenant_id, record_id, version, source_version, deleted, document, created_at, updated_at, job_id, item_index,
    prev_job_id, prev_item_index, cleared, withdrawn
)
SELECT
    c.tenant_id, c.contact_id, c.version, c.source_version, c.email = '',
    pg_temp.document_of(c.email, c.first_name, c.last_name, c.phone, c.company, c.attributes, c.cleared),
    c.created_at, c.updated_at, c.job_id, c.item_index, c.prev_job_id, c.prev_item_index, c.cleared, c.withdrawn
FROM contacts c;

-- A block that the database makes is JSON as it is.
WITH numbered AS (
    SELECT
        l.*, l.item_index / 1000 AS chunk,
        (row_number() OVER (PARTITION BY l.tenant_id, l.job_id, l.item_index / 1000 ORDER BY l.item_index) - 1) / 128
            AS block
    FROM ledger l
),
blocks AS (
    SELECT
        n.tenant_id, n.job_id, n.chunk, n.block,
        convert_to(jsonb_agg(jsonb_build_array(
            n.contact_id, n.version, n.source_version, n.email = '',
            pg_temp.document_of(n.email, n.first_name, n.last_name, n.phone, n.company, n.attributes, n.cleared), n.cleared
        ) ORDER BY n.item_index)::text, 'UTF8') AS versions
    FROM numbered n
    GROUP BY n.tenant_id, n.job_id, n.chunk, n.block
),
packed AS (
    SELECT b.tenant_id, b.job_id, b.chunk, array_agg(b.versions ORDER BY b.block) AS versions
    FROM blocks b
    GROUP BY b.tenant_id, b.job_id, b.chunk
)
INSERT INTO record_versions (
    tenant_id, job_id, first_index, changed_at, indexes, prev_job_ids, prev_item_indexes, versions
)
SELECT
    n.tenant_id, n.job_id, min(n.item_index), min(n.changed_at), array_agg(n.item_index ORDER BY n.item_index),
    array_agg(n.prev_job_id ORDER BY n.item_index), array_agg(n.prev_item_index ORDER BY n.item_index), p.versions
FROM numbered n
JOIN packed p ON p.tenant_id = n.tenant_id AND p.job_id = n.job_id AND p.chunk = n.chunk
GROUP BY n.tenant_id, n.job_id, n.chunk, p.versions;

DROP TABLE ledger;
DROP TABLE contacts;
