CREATE FUNCTION public.add_counts(a jsonb, b jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (SELECT COALESCE(jsonb_object_agg(t.key, t.sum), '{}'::jsonb) AS "coalesce" FROM (SELECT e.key, sum((e.value)::bigint) AS sum FROM (SELECT jsonb_each_text.key, jsonb_each_text.value FROM jsonb_each_text(add_counts.a) jsonb_each_text(key, value) UNION ALL SELECT jsonb_each_text.key, jsonb_each_text.value FROM jsonb_each_text(add_counts.b) jsonb_each_text(key, value)) e GROUP BY e.key) t);

CREATE FUNCTION public.letters(states text, letter text) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (length(states) - length(replace(states, letter, ''::text)));

CREATE FUNCTION public.split_column(joined text, separator text, null_mark text) RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN (joined = ''::text) THEN ARRAY[''::text] ELSE string_to_array(joined, separator, null_mark) END;

CREATE TABLE public.api_keys (
    tenant_id integer NOT NULL,
    key_id text NOT NULL COLLATE pg_catalog."C",
    secret_hash bytea NOT NULL,
    scopes text[] NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    revoked_at timestamp with time zone
);

CREATE TABLE public.contact_syncs (
    tenant_id integer NOT NULL,
    destination_id integer NOT NULL,
    contact_id text NOT NULL COLLATE pg_catalog."C",
    synced_version bigint DEFAULT 0 NOT NULL,
    synced_at timestamp with time zone,
    remote_id text,
    state text NOT NULL,
    state_version bigint NOT NULL,
    error_code text,
    error_detail text
)
WITH (fillfactor='90');

CREATE TABLE public.contacts (
    tenant_id integer NOT NULL,
    contact_id text NOT NULL COLLATE pg_catalog."C",
    version bigint NOT NULL,
    source_version bigint,
    email text NOT NULL,
    first_name text,
    last_name text,
    phone text,
    company text,
    attributes jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    job_id uuid NOT NULL,
    item_index integer NOT NULL,
    prev_job_id uuid,
    prev_item_index integer,
    mask smallint NOT NULL,
    removed jsonb,
    expected bigint
)
WITH (fillfactor='90');

CREATE TABLE public.dead_letters (
    tenant_id integer NOT NULL,
    dead_letter_id bigint NOT NULL,
    destination_id integer NOT NULL,
    contact_id text NOT NULL COLLATE pg_catalog."C",
    version bigint NOT NULL,
    job_id uuid NOT NULL,
    item_index integer NOT NULL,
    delivery_id bigint NOT NULL,
    state text NOT NULL,
    error_code text NOT NULL,
    error_detail text NOT NULL,
    attempts integer NOT NULL,
    request_id text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE public.dead_letters ALTER COLUMN dead_letter_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.dead_letters_dead_letter_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.deliveries (
    tenant_id integer NOT NULL,
    delivery_id bigint NOT NULL,
    destination_id integer NOT NULL,
    job_id uuid NOT NULL,
    request_id text NOT NULL,
    first_index integer NOT NULL,
    last_index integer NOT NULL,
    contact_ids text[] NOT NULL COLLATE pg_catalog."C",
    versions bigint[] NOT NULL,
    indexes integer[] NOT NULL,
    states text NOT NULL,
    errors jsonb DEFAULT '{}'::jsonb NOT NULL,
    state text DEFAULT 'pending'::text NOT NULL,
    attempt integer DEFAULT 0 NOT NULL,
    next_attempt_at timestamp with time zone DEFAULT now() NOT NULL,
    lease_token uuid,
    lease_until timestamp with time zone,
    absent_since timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    finished_at timestamp with time zone,
    failures jsonb DEFAULT '{}'::jsonb NOT NULL,
    CONSTRAINT deliveries_state_check CHECK ((state = ANY (ARRAY['pending'::text, 'sending'::text, 'done'::text])))
);

ALTER TABLE public.deliveries ALTER COLUMN delivery_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.deliveries_delivery_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.destinations (
    tenant_id integer NOT NULL,
    destination_id integer NOT NULL,
    name text NOT NULL COLLATE pg_catalog."C",
    kind text NOT NULL,
    base_url text NOT NULL,
    credentials bytea NOT NULL,
    options jsonb DEFAULT '{}'::jsonb NOT NULL,
    state text DEFAULT 'active'::text NOT NULL,
    blocked_until timestamp with time zone,
    blocked_code text,
    blocked_detail text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT destinations_state_check CHECK ((state = ANY (ARRAY['active'::text, 'paused'::text, 'removed'::text])))
);

ALTER TABLE public.destinations ALTER COLUMN destination_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.destinations_destination_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.effects (
    tenant_id integer NOT NULL,
    job_id uuid NOT NULL,
    destination_id integer NOT NULL,
    pending integer DEFAULT 0 NOT NULL,
    ok integer DEFAULT 0 NOT NULL,
    retry integer DEFAULT 0 NOT NULL,
    failed integer DEFAULT 0 NOT NULL,
    unknown integer DEFAULT 0 NOT NULL,
    dead integer DEFAULT 0 NOT NULL,
    skipped integer DEFAULT 0 NOT NULL
);

CREATE TABLE public.idempotency_keys (
    tenant_id integer NOT NULL,
    route text NOT NULL COLLATE pg_catalog."C",
    key text NOT NULL COLLATE pg_catalog."C",
    fingerprint bytea,
    job_id uuid NOT NULL,
    status smallint,
    answer bytea,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    answering_until timestamp with time zone
);
ALTER TABLE ONLY public.idempotency_keys ALTER COLUMN answer SET STORAGE EXTERNAL;

CREATE TABLE public.job_chunks (
    tenant_id integer NOT NULL,
    job_id uuid NOT NULL,
    first_index integer NOT NULL,
    item_count integer NOT NULL,
    failures jsonb DEFAULT '{}'::jsonb NOT NULL,
    outcomes bytea NOT NULL,
    sources bytea
);
ALTER TABLE ONLY public.job_chunks ALTER COLUMN outcomes SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.job_chunks ALTER COLUMN sources SET STORAGE EXTERNAL;

CREATE TABLE public.jobs (
    tenant_id integer NOT NULL,
    job_id uuid NOT NULL,
    kind text NOT NULL,
    state text NOT NULL,
    root_job_id uuid NOT NULL,
    request_id text NOT NULL,
    key_id text NOT NULL,
    options jsonb DEFAULT '{}'::jsonb NOT NULL,
    total integer NOT NULL,
    succeeded integer NOT NULL,
    failed integer NOT NULL,
    retry integer NOT NULL,
    results jsonb DEFAULT '{}'::jsonb NOT NULL,
    revision bigint DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    finished_at timestamp with time zone,
    step text,
    items integer,
    bytes bigint DEFAULT 0 NOT NULL,
    receiving_until timestamp with time zone,
    started_at timestamp with time zone,
    applied_at timestamp with time zone,
    form jsonb,
    error jsonb,
    trimmed_at timestamp with time zone
);

CREATE TABLE public.ledger (
    tenant_id integer NOT NULL,
    job_id uuid NOT NULL,
    item_index integer NOT NULL,
    contact_id text NOT NULL COLLATE pg_catalog."C",
    version bigint NOT NULL,
    changed_at timestamp with time zone DEFAULT now() NOT NULL,
    prev_job_id uuid,
    prev_item_index integer,
    source_version bigint,
    email text NOT NULL,
    first_name text,
    last_name text,
    phone text,
    company text,
    attributes jsonb NOT NULL
);

CREATE TABLE public.schema_version (
    version_num character varying(32) NOT NULL
);

CREATE TABLE public.spool_chunks (
    tenant_id integer NOT NULL,
    job_id uuid NOT NULL,
    first_index integer NOT NULL,
    item_count integer NOT NULL,
    step text NOT NULL,
    attempts smallint DEFAULT 0 NOT NULL,
    due_at timestamp with time zone DEFAULT now() NOT NULL,
    repeated boolean DEFAULT false NOT NULL,
    id_hashes bigint[] NOT NULL,
    rows bytea NOT NULL
);
ALTER TABLE ONLY public.spool_chunks ALTER COLUMN id_hashes SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.spool_chunks ALTER COLUMN rows SET STORAGE EXTERNAL;

CREATE TABLE public.spool_repeats (
    tenant_id integer NOT NULL,
    job_id uuid NOT NULL,
    item_index integer NOT NULL,
    contact_id text COLLATE pg_catalog."C",
    digest bytea,
    verdict text,
    leader integer,
    members integer,
    others integer[],
    outcome jsonb
);

CREATE TABLE public.tenants (
    tenant_id integer NOT NULL,
    name text NOT NULL COLLATE pg_catalog."C",
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE public.tenants ALTER COLUMN tenant_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.tenants_tenant_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT api_keys_pkey PRIMARY KEY (tenant_id, key_id);

ALTER TABLE ONLY public.contact_syncs
    ADD CONSTRAINT contact_syncs_pkey PRIMARY KEY (tenant_id, destination_id, contact_id);

ALTER TABLE ONLY public.contacts
    ADD CONSTRAINT contacts_pkey PRIMARY KEY (tenant_id, contact_id);

ALTER TABLE ONLY public.dead_letters
    ADD CONSTRAINT dead_letters_pkey PRIMARY KEY (tenant_id, dead_letter_id);

ALTER TABLE ONLY public.dead_letters
    ADD CONSTRAINT dead_letters_tenant_id_delivery_id_item_index_key UNIQUE (tenant_id, delivery_id, item_index);

ALTER TABLE ONLY public.deliveries
    ADD CONSTRAINT deliveries_pkey PRIMARY KEY (tenant_id, delivery_id);

ALTER TABLE ONLY public.destinations
    ADD CONSTRAINT destinations_pkey PRIMARY KEY (tenant_id, destination_id);

ALTER TABLE ONLY public.effects
    ADD CONSTRAINT effects_pkey PRIMARY KEY (tenant_id, job_id, destination_id);

ALTER TABLE ONLY public.idempotency_keys
    ADD CONSTRAINT idempotency_keys_pkey PRIMARY KEY (tenant_id, route, key);

ALTER TABLE ONLY public.job_chunks
    ADD CONSTRAINT job_chunks_pkey PRIMARY KEY (tenant_id, job_id, first_index);

ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT jobs_pkey PRIMARY KEY (tenant_id, job_id);

ALTER TABLE ONLY public.ledger
    ADD CONSTRAINT ledger_pkey PRIMARY KEY (tenant_id, job_id, item_index);

ALTER TABLE ONLY public.schema_version
    ADD CONSTRAINT schema_version_pkc PRIMARY KEY (version_num);

ALTER TABLE ONLY public.spool_chunks
    ADD CONSTRAINT spool_chunks_pkey PRIMARY KEY (tenant_id, job_id, first_index);

ALTER TABLE ONLY public.spool_repeats
    ADD CONSTRAINT spool_repeats_pkey PRIMARY KEY (tenant_id, job_id, item_index);

ALTER TABLE ONLY public.tenants
    ADD CONSTRAINT tenants_name_key UNIQUE (name);

ALTER TABLE ONLY public.tenants
    ADD CONSTRAINT tenants_pkey PRIMARY KEY (tenant_id);

CREATE INDEX deliveries_due ON public.deliveries USING btree (tenant_id, destination_id, next_attempt_at, delivery_id) WHERE (state = 'pending'::text);

CREATE INDEX deliveries_faulty ON public.deliveries USING btree (tenant_id, job_id, destination_id, first_index) WHERE (failures <> '{}'::jsonb);

CREATE INDEX deliveries_job ON public.deliveries USING btree (tenant_id, job_id, destination_id, first_index);

CREATE INDEX deliveries_open ON public.deliveries USING btree (tenant_id, job_id, destination_id, next_attempt_at) WHERE (state <> 'done'::text);

CREATE INDEX deliveries_sending ON public.deliveries USING btree (tenant_id, destination_id, lease_until) WHERE (state = 'sending'::text);

CREATE UNIQUE INDEX destinations_name ON public.destinations USING btree (tenant_id, name) WHERE (state <> 'removed'::text);

CREATE INDEX idempotency_keys_expiry ON public.idempotency_keys USING btree (tenant_id, expires_at);

CREATE INDEX job_chunks_faulty ON public.job_chunks USING btree (tenant_id, job_id, first_index) WHERE (failures <> '{}'::jsonb);

CREATE INDEX jobs_kept ON public.jobs USING btree (tenant_id, finished_at) WHERE ((finished_at IS NOT NULL) AND (trimmed_at IS NULL));

CREATE INDEX jobs_working ON public.jobs USING btree (tenant_id, job_id) WHERE (state = ANY (ARRAY['receiving'::text, 'queued'::text, 'running'::text]));

ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT api_keys_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(tenant_id);

ALTER TABLE ONLY public.destinations
    ADD CONSTRAINT destinations_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(tenant_id);
