-- That a record was erased, and when; who it was is not stored: the hash of its id is keyed.
CREATE TABLE erased_records (
    tenant_id integer     NOT NULL,
    type_id   smallint    NOT NULL,
    id_hash   bytea       NOT NULL,
    erased_at timestamptz NOT NULL,
    job_id    uuid        NOT NULL,
    PRIMARY KEY (tenant_id, type_id, id_hash)
);
-- A tenant's key for these hashes, encrypted with TRANCHE_SECRET_KEY.
CREATE TABLE erasure_keys (
    tenant_id integer PRIMARY KEY,
    sealed    bytea   NOT NULL
);
