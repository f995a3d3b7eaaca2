CREATE FUNCTION public.add_counts(a jsonb, b jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (SELECT COALESCE(jsonb_object_agg(t.key, t.sum), '{}'::jsonb) AS "coalesce" FROM (SELECT e.key, sum((e.value)::bigint) AS sum FROM (SELECT jsonb_each_text.key, jsonb_each_text.value FROM jsonb_each_text(add_counts.a) jsonb_each_text(key, value) UNION ALL SELECT jsonb_each_text.key, jsonb_each_text.value FROM jsonb_each_text(add_counts.b) jsonb_each_text(key, value)) e GROUP BY e.key) t);

CREATE FUNCTION public.cleared_at(names text[], version bigint) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN jsonb_object(names, array_fill((version)::text, ARRAY[cardinality(names)]));

CREATE FUNCTION public.count_state(states text, state text) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (length(states) - length(replace(states, state, ''::text)));

CREATE FUNCTION public.emit_event(tenant integer, event_type text, event_data jsonb) RETURNS bigint
    LANGUAGE sql
    AS $$
        WITH event AS MATERIALIZED (SELECT gen_random_uuid() AS event_id),
        notified AS (
            INSERT INTO webhook_messages (tenant_id, endpoint_id, event_id, type, body)
            SELECT
                tenant, w.endpoint_id, e.event_id, event_type,
                jsonb_build_object(
                    'type', event_type,
                    'timestamp', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                    'data', event_data
                )::text
            FROM webhook_endpoints w
            CROSS JOIN event e
            WHERE w.tenant_id = tenant AND w.state = 'active' AND event_type = ANY (w.events)
            RETURNING 1
        )
        SELECT count(*) FROM notified
    $$;

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
    trimmed_at timestamp with time zone,
    undo_of uuid,
    waiting jsonb,
    type text COLLATE pg_catalog."C",
    history_trimmed boolean DEFAULT false NOT NULL,
    dead_letters_trimmed boolean DEFAULT false NOT NULL,
    bare boolean DEFAULT false NOT NULL,
    trace_context text,
    sync jsonb,
    retakes uuid
);

CREATE FUNCTION public.emit_job_finished(job public.jobs) RETURNS bigint
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

CREATE FUNCTION public.split_column(joined text, separator text, null_mark text) RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN (joined = ''::text) THEN ARRAY[''::text] ELSE string_to_array(joined, separator, null_mark) END;

CREATE FUNCTION public.without_attributes(document jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (SELECT COALESCE(jsonb_object_agg(e.key, CASE WHEN starts_with(e.key, 'attributes.'::text) THEN 'null'::jsonb ELSE e.value END), '{}'::jsonb) AS "coalesce" FROM jsonb_each(without_attributes.document) e(key, value));

CREATE TABLE public.api_keys (
    tenant_id integer NOT NULL,
    key_id text NOT NULL COLLATE pg_catalog."C",
    secret_hash bytea NOT NULL,
    scopes text[] NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    revoked_at timestamp with time zone,
    name text DEFAULT ''::text NOT NULL,
    expires_at timestamp with time zone,
    last_used_at timestamp with time zone,
    previous_hash bytea,
    previous_until timestamp with time zone,
    limits jsonb DEFAULT '{}'::jsonb NOT NULL
);

CREATE TABLE public.api_sessions (
    tenant_id integer NOT NULL,
    session_id text NOT NULL COLLATE pg_catalog."C",
    key_id text NOT NULL COLLATE pg_catalog."C",
    secret_hash bytea NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone NOT NULL
);

CREATE TABLE public.audit_log (
    tenant_id integer NOT NULL,
    audit_id bigint NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    subject text NOT NULL,
    detail jsonb DEFAULT '{}'::jsonb NOT NULL
);

ALTER TABLE public.audit_log ALTER COLUMN audit_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.audit_log_audit_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.circuit_changes (
    tenant_id integer NOT NULL,
    destination_id integer NOT NULL,
    change_id bigint NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    circuit text NOT NULL,
    before text NOT NULL,
    after text NOT NULL,
    opens integer NOT NULL,
    seconds double precision NOT NULL,
    detail text NOT NULL,
    CONSTRAINT circuit_changes_circuit_check CHECK ((circuit = ANY (ARRAY['crm'::text, 'connection'::text])))
);

ALTER TABLE public.circuit_changes ALTER COLUMN change_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.circuit_changes_change_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.dead_letters (
    tenant_id integer NOT NULL,
    dead_letter_id bigint NOT NULL,
    destination_id integer,
    record_id text CONSTRAINT dead_letters_contact_id_not_null NOT NULL COLLATE pg_catalog."C",
    version bigint NOT NULL,
    job_id uuid NOT NULL,
    item_index integer NOT NULL,
    delivery_id bigint,
    state text NOT NULL,
    error_code text NOT NULL,
    error_detail text NOT NULL,
    attempts integer NOT NULL,
    request_id text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    root_job_id uuid NOT NULL,
    chain_id bigint,
    resolution text,
    resolved_at timestamp with time zone,
    resolved_by text,
    note text,
    replay_job_id uuid,
    type_id smallint NOT NULL,
    conflict jsonb,
    CONSTRAINT dead_letters_resolution_check CHECK ((resolution = ANY (ARRAY['replayed'::text, 'delivered'::text, 'dropped'::text, 'superseded'::text])))
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
    record_ids text[] CONSTRAINT deliveries_contact_ids_not_null NOT NULL COLLATE pg_catalog."C",
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
    dead_letters bigint[],
    unknown_since timestamp with time zone,
    lost integer DEFAULT 0 NOT NULL,
    not_restored jsonb,
    type_id smallint NOT NULL,
    forced boolean DEFAULT false NOT NULL,
    verify boolean DEFAULT false NOT NULL,
    drift jsonb,
    listing jsonb,
    task text,
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

CREATE TABLE public.delivery_calls (
    tenant_id integer NOT NULL,
    delivery_id bigint NOT NULL,
    attempt integer NOT NULL,
    call integer NOT NULL,
    asked text NOT NULL,
    event_id text NOT NULL,
    positions integer[],
    sent_at timestamp with time zone NOT NULL,
    milliseconds integer NOT NULL,
    status integer,
    detail text NOT NULL,
    CONSTRAINT delivery_calls_asked_check CHECK ((asked = ANY (ARRAY['push'::text, 'archive'::text, 'read_back'::text])))
);

CREATE TABLE public.destination_tests (
    tenant_id integer NOT NULL,
    test_id uuid NOT NULL,
    destination_id integer NOT NULL,
    canary boolean NOT NULL,
    request_id text NOT NULL,
    state text DEFAULT 'queued'::text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    lease_until timestamp with time zone,
    finished_at timestamp with time zone,
    steps jsonb DEFAULT '[]'::jsonb NOT NULL,
    trace_context text,
    CONSTRAINT destination_tests_state_check CHECK ((state = ANY (ARRAY['queued'::text, 'running'::text, 'done'::text])))
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
    circuit_override jsonb,
    types text[],
    credentials_type text DEFAULT 'token'::text NOT NULL,
    access_expires_at timestamp with time zone,
    refresh_until timestamp with time zone,
    verified_at timestamp with time zone,
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

CREATE TABLE public.erased_records (
    tenant_id integer NOT NULL,
    type_id smallint NOT NULL,
    id_hash bytea NOT NULL,
    erased_at timestamp with time zone NOT NULL,
    job_id uuid NOT NULL
);

CREATE TABLE public.erasure_keys (
    tenant_id integer NOT NULL,
    sealed bytea NOT NULL
);

CREATE TABLE public.idempotency_keys (
    tenant_id integer NOT NULL,
    route text NOT NULL COLLATE pg_catalog."C",
    key text NOT NULL COLLATE pg_catalog."C",
    fingerprint bytea,
    job_id uuid,
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

CREATE TABLE public.record_syncs (
    tenant_id integer CONSTRAINT contact_syncs_tenant_id_not_null NOT NULL,
    destination_id integer CONSTRAINT contact_syncs_destination_id_not_null NOT NULL,
    record_id text CONSTRAINT contact_syncs_contact_id_not_null NOT NULL COLLATE pg_catalog."C",
    synced_version bigint DEFAULT 0 CONSTRAINT contact_syncs_synced_version_not_null NOT NULL,
    synced_at timestamp with time zone,
    remote_id text,
    state text CONSTRAINT contact_syncs_state_not_null NOT NULL,
    state_version bigint CONSTRAINT contact_syncs_state_version_not_null NOT NULL,
    error_code text,
    error_detail text,
    doubted_at timestamp with time zone,
    created boolean,
    prior_version bigint DEFAULT 0 CONSTRAINT contact_syncs_prior_version_not_null NOT NULL,
    not_restored jsonb,
    type_id smallint NOT NULL,
    before_image text,
    adopted_at timestamp with time zone
)
WITH (fillfactor='90');

CREATE TABLE public.record_versions (
    tenant_id integer NOT NULL,
    job_id uuid NOT NULL,
    first_index integer NOT NULL,
    changed_at timestamp with time zone DEFAULT now() NOT NULL,
    indexes integer[] NOT NULL,
    prev_job_ids uuid[],
    prev_item_indexes integer[],
    versions bytea[] NOT NULL,
    signatures integer[]
);
ALTER TABLE ONLY public.record_versions ALTER COLUMN versions SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.record_versions ALTER COLUMN signatures SET STORAGE EXTERNAL;

CREATE TABLE public.records (
    tenant_id integer NOT NULL,
    record_id text NOT NULL COLLATE pg_catalog."C",
    version bigint NOT NULL,
    source_version bigint,
    deleted boolean DEFAULT false NOT NULL,
    document jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    job_id uuid NOT NULL,
    item_index integer NOT NULL,
    prev_job_id uuid,
    prev_item_index integer,
    cleared jsonb,
    withdrawn jsonb,
    type_id smallint NOT NULL
)
WITH (fillfactor='90');

CREATE TABLE public.resource_types (
    tenant_id integer NOT NULL,
    type_id smallint NOT NULL,
    name text NOT NULL COLLATE pg_catalog."C",
    version integer DEFAULT 1 NOT NULL,
    definition json NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.sagas (
    tenant_id integer NOT NULL,
    saga_id uuid NOT NULL,
    workflow text NOT NULL,
    subject uuid NOT NULL,
    state text NOT NULL,
    step integer DEFAULT 0 NOT NULL,
    data jsonb DEFAULT '{}'::jsonb NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    due_at timestamp with time zone DEFAULT now() NOT NULL,
    error text,
    actor text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    finished_at timestamp with time zone,
    dropped_at timestamp with time zone,
    CONSTRAINT sagas_state_check CHECK ((state = ANY (ARRAY['running'::text, 'compensating'::text, 'done'::text, 'compensated'::text, 'failed'::text])))
);

CREATE TABLE public.schema_version (
    version_num character varying(32) NOT NULL
);

CREATE TABLE public.staged_chunks (
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
ALTER TABLE ONLY public.staged_chunks ALTER COLUMN id_hashes SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.staged_chunks ALTER COLUMN rows SET STORAGE EXTERNAL;

CREATE TABLE public.staged_repeats (
    tenant_id integer NOT NULL,
    job_id uuid NOT NULL,
    item_index integer NOT NULL,
    record_id text COLLATE pg_catalog."C",
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
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    disabled_at timestamp with time zone,
    limits jsonb DEFAULT '{}'::jsonb NOT NULL,
    weight double precision DEFAULT 1 NOT NULL,
    worker_cap integer,
    CONSTRAINT tenants_weight_check CHECK (((weight >= (0.01)::double precision) AND (weight <= (100)::double precision))),
    CONSTRAINT tenants_worker_cap_check CHECK ((worker_cap > 0))
);

ALTER TABLE public.tenants ALTER COLUMN tenant_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.tenants_tenant_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.webhook_endpoints (
    tenant_id integer NOT NULL,
    endpoint_id integer NOT NULL,
    url text NOT NULL,
    events text[] NOT NULL,
    secret bytea NOT NULL,
    previous_secret bytea,
    previous_until timestamp with time zone,
    state text DEFAULT 'active'::text NOT NULL,
    detail text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    policy text DEFAULT 'short'::text NOT NULL,
    failing_since timestamp with time zone,
    CONSTRAINT webhook_endpoints_policy_check CHECK ((policy = ANY (ARRAY['short'::text, 'standard'::text]))),
    CONSTRAINT webhook_endpoints_state_check CHECK ((state = ANY (ARRAY['active'::text, 'disabled'::text, 'removed'::text])))
);

ALTER TABLE public.webhook_endpoints ALTER COLUMN endpoint_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.webhook_endpoints_endpoint_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.webhook_messages (
    tenant_id integer NOT NULL,
    message_id bigint NOT NULL,
    endpoint_id integer NOT NULL,
    event_id uuid NOT NULL,
    type text NOT NULL,
    body text NOT NULL,
    state text DEFAULT 'pending'::text NOT NULL,
    attempt integer DEFAULT 0 NOT NULL,
    attempts jsonb DEFAULT '[]'::jsonb NOT NULL,
    next_attempt_at timestamp with time zone DEFAULT now() NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    finished_at timestamp with time zone,
    CONSTRAINT webhook_messages_state_check CHECK ((state = ANY (ARRAY['pending'::text, 'ok'::text, 'failed'::text, 'dead'::text])))
);

ALTER TABLE public.webhook_messages ALTER COLUMN message_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.webhook_messages_message_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT api_keys_pkey PRIMARY KEY (tenant_id, key_id);

ALTER TABLE ONLY public.api_sessions
    ADD CONSTRAINT api_sessions_pkey PRIMARY KEY (tenant_id, session_id);

ALTER TABLE ONLY public.audit_log
    ADD CONSTRAINT audit_log_pkey PRIMARY KEY (tenant_id, audit_id);

ALTER TABLE ONLY public.circuit_changes
    ADD CONSTRAINT circuit_changes_pkey PRIMARY KEY (tenant_id, destination_id, circuit, change_id);

ALTER TABLE ONLY public.dead_letters
    ADD CONSTRAINT dead_letters_pkey PRIMARY KEY (tenant_id, dead_letter_id);

ALTER TABLE ONLY public.dead_letters
    ADD CONSTRAINT dead_letters_tenant_id_delivery_id_item_index_key UNIQUE (tenant_id, delivery_id, item_index);

ALTER TABLE ONLY public.deliveries
    ADD CONSTRAINT deliveries_pkey PRIMARY KEY (tenant_id, delivery_id);

ALTER TABLE ONLY public.delivery_calls
    ADD CONSTRAINT delivery_calls_pkey PRIMARY KEY (tenant_id, delivery_id, attempt, call);

ALTER TABLE ONLY public.destination_tests
    ADD CONSTRAINT destination_tests_pkey PRIMARY KEY (tenant_id, test_id);

ALTER TABLE ONLY public.destinations
    ADD CONSTRAINT destinations_pkey PRIMARY KEY (tenant_id, destination_id);

ALTER TABLE ONLY public.effects
    ADD CONSTRAINT effects_pkey PRIMARY KEY (tenant_id, job_id, destination_id);

ALTER TABLE ONLY public.erased_records
    ADD CONSTRAINT erased_records_pkey PRIMARY KEY (tenant_id, type_id, id_hash);

ALTER TABLE ONLY public.erasure_keys
    ADD CONSTRAINT erasure_keys_pkey PRIMARY KEY (tenant_id);

ALTER TABLE ONLY public.idempotency_keys
    ADD CONSTRAINT idempotency_keys_pkey PRIMARY KEY (tenant_id, route, key);

ALTER TABLE ONLY public.job_chunks
    ADD CONSTRAINT job_chunks_pkey PRIMARY KEY (tenant_id, job_id, first_index);

ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT jobs_pkey PRIMARY KEY (tenant_id, job_id);

ALTER TABLE ONLY public.record_syncs
    ADD CONSTRAINT record_syncs_pkey PRIMARY KEY (tenant_id, destination_id, type_id, record_id);

ALTER TABLE ONLY public.record_versions
    ADD CONSTRAINT record_versions_pkey PRIMARY KEY (tenant_id, job_id, first_index);

ALTER TABLE ONLY public.records
    ADD CONSTRAINT records_pkey PRIMARY KEY (tenant_id, type_id, record_id);

ALTER TABLE ONLY public.resource_types
    ADD CONSTRAINT resource_types_pkey PRIMARY KEY (tenant_id, type_id);

ALTER TABLE ONLY public.resource_types
    ADD CONSTRAINT resource_types_tenant_id_name_key UNIQUE (tenant_id, name);

ALTER TABLE ONLY public.sagas
    ADD CONSTRAINT sagas_pkey PRIMARY KEY (tenant_id, saga_id);

ALTER TABLE ONLY public.sagas
    ADD CONSTRAINT sagas_tenant_id_workflow_subject_key UNIQUE (tenant_id, workflow, subject);

ALTER TABLE ONLY public.schema_version
    ADD CONSTRAINT schema_version_pkc PRIMARY KEY (version_num);

ALTER TABLE ONLY public.staged_chunks
    ADD CONSTRAINT staged_chunks_pkey PRIMARY KEY (tenant_id, job_id, first_index);

ALTER TABLE ONLY public.staged_repeats
    ADD CONSTRAINT staged_repeats_pkey PRIMARY KEY (tenant_id, job_id, item_index);

ALTER TABLE ONLY public.tenants
    ADD CONSTRAINT tenants_name_key UNIQUE (name);

ALTER TABLE ONLY public.tenants
    ADD CONSTRAINT tenants_pkey PRIMARY KEY (tenant_id);

ALTER TABLE ONLY public.webhook_endpoints
    ADD CONSTRAINT webhook_endpoints_pkey PRIMARY KEY (tenant_id, endpoint_id);

ALTER TABLE ONLY public.webhook_messages
    ADD CONSTRAINT webhook_messages_pkey PRIMARY KEY (tenant_id, message_id);

CREATE INDEX api_sessions_expired ON public.api_sessions USING btree (tenant_id, expires_at);

CREATE INDEX audit_log_subject ON public.audit_log USING btree (tenant_id, subject, audit_id);

CREATE INDEX audit_log_time ON public.audit_log USING btree (tenant_id, at);

CREATE INDEX circuit_changes_time ON public.circuit_changes USING btree (tenant_id, at);

CREATE INDEX dead_letters_chain ON public.dead_letters USING btree (tenant_id, chain_id, dead_letter_id) WHERE (chain_id IS NOT NULL);

CREATE UNIQUE INDEX dead_letters_conflict ON public.dead_letters USING btree (tenant_id, job_id, item_index) WHERE (destination_id IS NULL);

CREATE INDEX dead_letters_history ON public.dead_letters USING btree (tenant_id, type_id, record_id);

CREATE INDEX dead_letters_open ON public.dead_letters USING btree (tenant_id, destination_id, error_code, dead_letter_id) WHERE (resolution IS NULL);

CREATE INDEX dead_letters_record ON public.dead_letters USING btree (tenant_id, destination_id, type_id, record_id) WHERE (resolution IS NULL);

CREATE INDEX dead_letters_root ON public.dead_letters USING btree (tenant_id, root_job_id, destination_id, dead_letter_id);

CREATE INDEX dead_letters_settled ON public.dead_letters USING btree (tenant_id, resolved_at) WHERE (resolved_at IS NOT NULL);

CREATE INDEX dead_letters_waiting ON public.dead_letters USING btree (tenant_id, dead_letter_id) WHERE (resolution IS NULL);

CREATE INDEX deliveries_drifted ON public.deliveries USING btree (tenant_id, job_id, destination_id, first_index) WHERE (drift IS NOT NULL);

CREATE INDEX deliveries_due ON public.deliveries USING btree (tenant_id, destination_id, next_attempt_at, delivery_id) WHERE (state = 'pending'::text);

CREATE INDEX deliveries_faulty ON public.deliveries USING btree (tenant_id, job_id, destination_id, first_index) WHERE (failures <> '{}'::jsonb);

CREATE INDEX deliveries_job ON public.deliveries USING btree (tenant_id, job_id, destination_id, first_index);

CREATE INDEX deliveries_open ON public.deliveries USING btree (tenant_id, job_id, destination_id, next_attempt_at) WHERE (state <> 'done'::text);

CREATE INDEX deliveries_sending ON public.deliveries USING btree (tenant_id, destination_id, lease_until) WHERE (state = 'sending'::text);

CREATE INDEX deliveries_tasks ON public.deliveries USING btree (tenant_id, destination_id) WHERE (task IS NOT NULL);

CREATE INDEX deliveries_unknown ON public.deliveries USING btree (tenant_id, destination_id, unknown_since) WHERE (unknown_since IS NOT NULL);

CREATE INDEX destination_tests_open ON public.destination_tests USING btree (tenant_id, created_at) WHERE (state <> 'done'::text);

CREATE UNIQUE INDEX destinations_name ON public.destinations USING btree (tenant_id, name) WHERE (state <> 'removed'::text);

CREATE INDEX destinations_verified ON public.destinations USING btree (tenant_id, verified_at) WHERE (options ? 'verify_every'::text);

CREATE INDEX idempotency_keys_answers ON public.idempotency_keys USING btree (tenant_id, expires_at) WHERE (answer IS NOT NULL);

CREATE INDEX idempotency_keys_bare ON public.idempotency_keys USING btree (tenant_id, expires_at) WHERE (answer IS NULL);

CREATE INDEX job_chunks_faulty ON public.job_chunks USING btree (tenant_id, job_id, first_index) WHERE (failures <> '{}'::jsonb);

CREATE INDEX jobs_bare ON public.jobs USING btree (tenant_id, finished_at) WHERE bare;

CREATE INDEX jobs_kept ON public.jobs USING btree (tenant_id, finished_at) WHERE ((finished_at IS NOT NULL) AND (trimmed_at IS NULL));

CREATE INDEX jobs_of_key ON public.jobs USING btree (tenant_id, key_id, job_id) WHERE (key_id <> ''::text);

CREATE INDEX jobs_root ON public.jobs USING btree (tenant_id, root_job_id, job_id) WHERE (root_job_id <> job_id);

CREATE UNIQUE INDEX jobs_undo ON public.jobs USING btree (tenant_id, undo_of) WHERE (undo_of IS NOT NULL);

CREATE INDEX jobs_working ON public.jobs USING btree (tenant_id, job_id) WHERE (state = ANY (ARRAY['receiving'::text, 'queued'::text, 'running'::text]));

CREATE UNIQUE INDEX record_syncs_adopted ON public.record_syncs USING btree (tenant_id, destination_id, type_id, remote_id) WHERE (before_image IS NOT NULL);

CREATE INDEX record_syncs_images ON public.record_syncs USING btree (tenant_id, adopted_at) WHERE (before_image IS NOT NULL);

CREATE INDEX record_versions_prior ON public.record_versions USING btree (tenant_id, changed_at) WHERE (prev_job_ids IS NOT NULL);

CREATE INDEX record_versions_time ON public.record_versions USING btree (tenant_id, changed_at, job_id, first_index);

CREATE INDEX sagas_due ON public.sagas USING btree (tenant_id, due_at) WHERE (finished_at IS NULL);

CREATE INDEX sagas_failed ON public.sagas USING btree (tenant_id, finished_at) WHERE ((state = 'failed'::text) AND (dropped_at IS NULL));

CREATE INDEX webhook_messages_done ON public.webhook_messages USING btree (tenant_id, finished_at) WHERE (finished_at IS NOT NULL);

CREATE INDEX webhook_messages_due ON public.webhook_messages USING btree (tenant_id, endpoint_id, next_attempt_at) WHERE (state = 'pending'::text);

CREATE INDEX webhook_messages_endpoint ON public.webhook_messages USING btree (tenant_id, endpoint_id, message_id);

CREATE INDEX webhook_messages_state ON public.webhook_messages USING btree (tenant_id, endpoint_id, state, message_id);

ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT api_keys_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(tenant_id);

ALTER TABLE ONLY public.destinations
    ADD CONSTRAINT destinations_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(tenant_id);

ALTER TABLE ONLY public.webhook_endpoints
    ADD CONSTRAINT webhook_endpoints_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(tenant_id);
