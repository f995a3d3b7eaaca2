-- The spine: tenants, keys, contacts and their ledger, jobs, deliveries.
--
-- Every primary key and every index leads with tenant_id: a tenant's rows lie together, a query cannot forget
-- its tenant without being slow in tests, and tenant_id can distribute the tables over Citus as they stand.
-- Business keys compare byte by byte (COLLATE "C"), so that PostgreSQL and Python sort them alike; both sides
-- lock rows in that order, which is what keeps writers from deadlocking.

CREATE TABLE tenants (
    tenant_id  integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text COLLATE "C" NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- The token itself is never stored: secret_hash is SHA-256 of its random half, which has 160 bits, so no slow
-- password hash is needed.
CREATE TABLE api_keys (
    tenant_id   integer NOT NULL REFERENCES tenants,
    key_id      text COLLATE "C" NOT NULL,
    secret_hash bytea NOT NULL,
    scopes      text[] NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    revoked_at  timestamptz,
    PRIMARY KEY (tenant_id, key_id)
);

-- blocked_until: while a circuit is open or the CRM asked for silence, nothing of this destination is due. One
-- row says it for thousands of deliveries, and it is what a waiting item shows as its reason and its seconds.
CREATE TABLE destinations (
    tenant_id      integer NOT NULL REFERENCES tenants,
    destination_id integer GENERATED ALWAYS AS IDENTITY,
    name           text COLLATE "C" NOT NULL,
    kind           text NOT NULL,
    base_url       text NOT NULL,
    credentials    bytea NOT NULL,               -- AES-256-GCM: nonce, ciphertext, tag
    options        jsonb NOT NULL DEFAULT '{}',
    state          text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'paused', 'removed')),
    blocked_until  timestamptz,
    blocked_code   text,
    blocked_detail text,
    created_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, destination_id)
);
-- A removed destination keeps its history under its own id; its name is free again.
CREATE UNIQUE INDEX destinations_name ON destinations (tenant_id, name) WHERE state <> 'removed';

-- The last seven columns let one INSERT … ON CONFLICT DO UPDATE … RETURNING do an import's whole work: what the SET
-- clause needs to know of an item must be a column of the proposed row, and what the ledger needs of the row
-- before must be a column of the new one.
CREATE TABLE contacts (
    tenant_id       integer NOT NULL,
    contact_id      text COLLATE "C" NOT NULL,
    version         bigint NOT NULL,
    source_version  bigint,                      -- the sender's own ordering; an older one is superseded
    email           text NOT NULL,
    first_name      text,
    last_name       text,
    phone           text,
    company         text,
    attributes      jsonb NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    job_id          uuid NOT NULL,               -- who made this version: the newest ledger row
    item_index      integer NOT NULL,
    prev_job_id     uuid,                        -- who made the version before
    prev_item_index integer,
    mask            smallint NOT NULL,           -- the fields that the newest item named (app.resources.decoding)
    removed         jsonb,                       -- the attribute keys that it removed
    expected        bigint,                      -- the version that it expected (if_version)
    PRIMARY KEY (tenant_id, contact_id)
) WITH (fillfactor = 90);

-- One row a version: who made it (the job and the item in it) and the contact as it then stood. What stood before
-- is the row of the version before.
-- The key follows the job, so new rows go to the end of the index; a key by contact would cost a second random
-- index insert an item, a third of the import's speed. A contact's history is a chain instead: the contact names
-- its newest row, each row the one before (prev_job_id, prev_item_index).
CREATE TABLE ledger (
    tenant_id       integer NOT NULL,
    job_id          uuid NOT NULL,
    item_index      integer NOT NULL,
    contact_id      text COLLATE "C" NOT NULL,
    version         bigint NOT NULL,
    changed_at      timestamptz NOT NULL DEFAULT now(),
    prev_job_id     uuid,
    prev_item_index integer,
    source_version  bigint,
    email           text NOT NULL,
    first_name      text,
    last_name       text,
    phone           text,
    company         text,
    attributes      jsonb NOT NULL,
    PRIMARY KEY (tenant_id, job_id, item_index)
);

-- revision grows with every change that a reader could see; it is the ETag.
CREATE TABLE jobs (
    tenant_id    integer NOT NULL,
    job_id       uuid NOT NULL,                  -- UUIDv7, so the primary key is also the order of time
    kind         text NOT NULL,
    state        text NOT NULL,
    root_job_id  uuid NOT NULL,
    request_id   text NOT NULL,
    key_id       text NOT NULL,                  -- the API key that asked
    options      jsonb NOT NULL DEFAULT '{}',
    total        integer NOT NULL,
    succeeded    integer NOT NULL,
    failed       integer NOT NULL,
    retry        integer NOT NULL,
    results      jsonb NOT NULL DEFAULT '{}',    -- succeeded, by result
    revision     bigint NOT NULL DEFAULT 1,
    created_at   timestamptz NOT NULL DEFAULT now(),
    finished_at  timestamptz,
    PRIMARY KEY (tenant_id, job_id)
);

-- The local outcomes of a run of items, as one value: a row an item would cost more than the contacts do.
-- failures counts them by code with sample indexes, so that nobody must unpack outcomes to name what is wrong.
CREATE TABLE job_chunks (
    tenant_id   integer NOT NULL,
    job_id      uuid NOT NULL,
    first_index integer NOT NULL,
    item_count  integer NOT NULL,
    failures    jsonb NOT NULL DEFAULT '{}',
    outcomes    bytea NOT NULL,                  -- JSON array as answered, zstd
    PRIMARY KEY (tenant_id, job_id, first_index)
);
ALTER TABLE job_chunks ALTER COLUMN outcomes SET STORAGE EXTERNAL;

-- The outbox: what a destination is owed. It names keys and versions, never contents: the worker sends the
-- contact as it stands, which makes late and repeated deliveries harmless.
-- states has one letter an item (app.vocabulary.states.STATE_LETTER); errors maps a position to its last error.
CREATE TABLE deliveries (
    tenant_id       integer NOT NULL,
    delivery_id     bigint GENERATED ALWAYS AS IDENTITY,
    destination_id  integer NOT NULL,
    job_id          uuid NOT NULL,
    request_id      text NOT NULL,
    first_index     integer NOT NULL,
    last_index      integer NOT NULL,
    contact_ids     text[] COLLATE "C" NOT NULL,
    versions        bigint[] NOT NULL,
    indexes         integer[] NOT NULL,
    states          text NOT NULL,
    errors          jsonb NOT NULL DEFAULT '{}',
    state           text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'sending', 'done')),
    attempt         integer NOT NULL DEFAULT 0,  -- attempts spent
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    lease_token     uuid,                        -- only its holder may record
    lease_until     timestamptz,
    absent_since    timestamptz,                 -- first read-back that did not find the unknown items
    created_at      timestamptz NOT NULL DEFAULT now(),
    finished_at     timestamptz,
    PRIMARY KEY (tenant_id, delivery_id)
);
CREATE INDEX deliveries_due ON deliveries (tenant_id, destination_id, next_attempt_at, delivery_id)
    WHERE state = 'pending';
CREATE INDEX deliveries_sending ON deliveries (tenant_id, destination_id, lease_until) WHERE state = 'sending';
CREATE INDEX deliveries_job ON deliveries (tenant_id, job_id, destination_id, first_index);

-- Counts of a job's items by state at a destination, kept by the transaction that records outcomes, so that a
-- status poll reads one row instead of every delivery.
CREATE TABLE effects (
    tenant_id      integer NOT NULL,
    job_id         uuid NOT NULL,
    destination_id integer NOT NULL,
    pending        integer NOT NULL DEFAULT 0,
    ok             integer NOT NULL DEFAULT 0,
    retry          integer NOT NULL DEFAULT 0,
    failed         integer NOT NULL DEFAULT 0,
    unknown        integer NOT NULL DEFAULT 0,
    dead           integer NOT NULL DEFAULT 0,
    skipped        integer NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, job_id, destination_id)
);

-- What a destination holds of a contact, as far as it is known.
CREATE TABLE contact_syncs (
    tenant_id      integer NOT NULL,
    destination_id integer NOT NULL,
    contact_id     text COLLATE "C" NOT NULL,
    synced_version bigint NOT NULL DEFAULT 0,    -- never goes back
    synced_at      timestamptz,
    remote_id      text,
    state          text NOT NULL,                -- of the newest version tried
    state_version  bigint NOT NULL,
    error_code     text,
    error_detail   text,
    PRIMARY KEY (tenant_id, destination_id, contact_id)
) WITH (fillfactor = 90);

-- What Tranche gave up on, with all a human needs to decide.
CREATE TABLE dead_letters (
    tenant_id      integer NOT NULL,
    dead_letter_id bigint GENERATED ALWAYS AS IDENTITY,
    destination_id integer NOT NULL,
    contact_id     text COLLATE "C" NOT NULL,
    version        bigint NOT NULL,
    job_id         uuid NOT NULL,
    item_index     integer NOT NULL,
    delivery_id    bigint NOT NULL,
    state          text NOT NULL,                -- failed or dead
    error_code     text NOT NULL,
    error_detail   text NOT NULL,
    attempts       integer NOT NULL,
    request_id     text NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, dead_letter_id),
    -- A delivery that is recorded twice after a lost lease leaves one letter.
    UNIQUE (tenant_id, delivery_id, item_index)
);

-- The answer lies beside its effect in one transaction; there is no "in progress" row to be orphaned.
-- answering_until: the first request still holds its answer back (Prefer: wait); until then others get 409.
CREATE TABLE idempotency_keys (
    tenant_id       integer NOT NULL,
    route           text COLLATE "C" NOT NULL,
    key             text COLLATE "C" NOT NULL,
    fingerprint     bytea NOT NULL,
    job_id          uuid NOT NULL,
    status          smallint NOT NULL,
    answer          bytea,                       -- zstd; NULL once expired, while the key is still refused
    created_at      timestamptz NOT NULL DEFAULT now(),
    expires_at      timestamptz NOT NULL,
    answering_until timestamptz,
    PRIMARY KEY (tenant_id, route, key)
);
ALTER TABLE idempotency_keys ALTER COLUMN answer SET STORAGE EXTERNAL;
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (tenant_id, expires_at);

-- How many items of a delivery are in a state.
CREATE FUNCTION letters(states text, letter text) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN length(states) - length(replace(states, letter, ''));

-- A column of an import, which comes as one text (app.kit.postgres.column_codec), taken apart. A single empty text is one value.
CREATE FUNCTION split_column(joined text, separator text, null_mark text) RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN joined = '' THEN ARRAY[''] ELSE string_to_array(joined, separator, null_mark) END;
