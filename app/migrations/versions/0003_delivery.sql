-- Delivery in full. A contact without an e-mail address is a tombstone: its creation was undone. An import always brings
-- an address, so it revives a tombstone without a word about it in the statement that every import runs.

-- circuit_wish: what an operator asked of the destination's circuits ({"state", "until" (epoch), "by", "at"}); the next
-- worker that comes by does it. The API knows no circuits: it meets the workers here.
ALTER TABLE destinations ADD COLUMN circuit_wish jsonb;

-- undo_of: the job whose changes this one takes back; there is at most one.
ALTER TABLE jobs ADD COLUMN undo_of uuid;
CREATE UNIQUE INDEX jobs_undo ON jobs (tenant_id, undo_of) WHERE undo_of IS NOT NULL;
CREATE INDEX jobs_root ON jobs (tenant_id, root_job_id, job_id) WHERE root_job_id <> job_id;

-- letters: the dead letters that a retry or replay answers for, one an item; NULL for an import.
-- unknown_since: some of its items are unknown, and for how long; lost: workers in a row that did not come back from it.
ALTER TABLE deliveries
    ADD COLUMN letters       bigint[],
    ADD COLUMN unknown_since timestamptz,
    ADD COLUMN lost          integer NOT NULL DEFAULT 0;
CREATE INDEX deliveries_unknown ON deliveries (tenant_id, destination_id, unknown_since)
    WHERE unknown_since IS NOT NULL;

-- When a write of the contact was last left without an answer: what was looked for before then proves nothing about it.
ALTER TABLE contact_syncs ADD COLUMN doubted_at timestamptz;

-- Evidence: a call to a CRM that did not end well for all of its items, so that an unknown outcome and a dead letter can
-- be explained. Calls that did are in the log alone.
CREATE TABLE delivery_calls (
    tenant_id    integer NOT NULL,
    delivery_id  bigint NOT NULL,
    attempt      integer NOT NULL,               -- of the delivery
    call         integer NOT NULL,               -- within the attempt, from 0
    asked        text NOT NULL CHECK (asked IN ('push', 'archive', 'read_back')),
    event_id     text NOT NULL,                  -- X-Event-ID of the call; its Idempotency-Key where the CRM knows one
    positions    integer[],                      -- of the delivery's items that went along; NULL: all of them
    sent_at      timestamptz NOT NULL,
    milliseconds integer NOT NULL,
    status       integer,                        -- that was answered; NULL: no answer
    detail       text NOT NULL,
    PRIMARY KEY (tenant_id, delivery_id, attempt, call)
);

-- resolution: how the letter came to its end, NULL while it waits for a human.
-- chain_id: the first letter of the same item at the same destination, which a replay that failed again has added a link
-- to; NULL: this one is the first.
-- root_job_id: the import that it all began with.
ALTER TABLE dead_letters
    ADD COLUMN root_job_id   uuid,
    ADD COLUMN chain_id      bigint,
    ADD COLUMN resolution    text CHECK (resolution IN ('replayed', 'delivered', 'dropped', 'superseded')),
    ADD COLUMN resolved_at   timestamptz,
    ADD COLUMN resolved_by   text,               -- the API key that did it, or 'tranche'
    ADD COLUMN note          text,               -- why, in the words of who did it
    ADD COLUMN replay_job_id uuid;
UPDATE dead_letters l SET root_job_id = l.job_id;
ALTER TABLE dead_letters ALTER COLUMN root_job_id SET NOT NULL;
-- Until now nobody told letters whose contact arrived later from those that need somebody.
UPDATE dead_letters l
SET resolution = 'superseded', resolved_at = now(), resolved_by = 'tranche', note = 'a later delivery arrived'
FROM contact_syncs s
WHERE s.tenant_id = l.tenant_id AND s.destination_id = l.destination_id AND s.contact_id = l.contact_id
    AND s.synced_version >= l.version;
CREATE INDEX dead_letters_open ON dead_letters (tenant_id, destination_id, error_code, dead_letter_id)
    WHERE resolution IS NULL;
CREATE INDEX dead_letters_contact ON dead_letters (tenant_id, destination_id, contact_id)
    WHERE resolution IS NULL;
-- What is listed: those that wait, newest first, and all that a contact ever had.
CREATE INDEX dead_letters_waiting ON dead_letters (tenant_id, dead_letter_id) WHERE resolution IS NULL;
CREATE INDEX dead_letters_history ON dead_letters (tenant_id, contact_id);
CREATE INDEX dead_letters_root ON dead_letters (tenant_id, root_job_id, destination_id, dead_letter_id);
CREATE INDEX dead_letters_chain ON dead_letters (tenant_id, chain_id, dead_letter_id) WHERE chain_id IS NOT NULL;

-- A saga: steps that are done one after the other, and undone in reverse if one fails. Its row is locked by whoever does a
-- step, in the transaction of that step: a step and the move to the next are one thing.
CREATE TABLE sagas (
    tenant_id   integer NOT NULL,
    saga_id     uuid NOT NULL,
    workflow    text NOT NULL,
    subject     uuid NOT NULL,                   -- the job that it is about
    state       text NOT NULL CHECK (state IN ('running', 'compensating', 'done', 'compensated', 'failed')),
    step        integer NOT NULL DEFAULT 0,      -- that is done or undone next
    data        jsonb NOT NULL DEFAULT '{}',     -- what the workflow must remember
    attempts    integer NOT NULL DEFAULT 0,      -- of the present step that ended in an error
    due_at      timestamptz NOT NULL DEFAULT now(),
    error       text,                            -- the last one
    actor       text NOT NULL,                   -- the API key that asked for it
    created_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    PRIMARY KEY (tenant_id, saga_id),
    UNIQUE (tenant_id, workflow, subject)
);
CREATE INDEX sagas_due ON sagas (tenant_id, due_at) WHERE finished_at IS NULL;

-- Who did what, when: steps of sagas and what humans decide.
CREATE TABLE audit_log (
    tenant_id integer NOT NULL,
    audit_id  bigint GENERATED ALWAYS AS IDENTITY,
    at        timestamptz NOT NULL DEFAULT now(),
    actor     text NOT NULL,                     -- an API key's id, or 'tranche'
    action    text NOT NULL,                     -- undo.restore, dead_letters.drop …
    subject   text NOT NULL,                     -- job:ID, destination:NAME …
    detail    jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (tenant_id, audit_id)
);
CREATE INDEX audit_log_subject ON audit_log (tenant_id, subject, audit_id);

-- Every change of a circuit on the way to a destination; the circuit of a CRM concerns all who use it.
CREATE TABLE circuit_changes (
    tenant_id      integer NOT NULL,
    destination_id integer NOT NULL,
    change_id      bigint GENERATED ALWAYS AS IDENTITY,
    at             timestamptz NOT NULL DEFAULT now(),
    circuit        text NOT NULL CHECK (circuit IN ('crm', 'connection')),
    before         text NOT NULL,
    after          text NOT NULL,
    opens          integer NOT NULL,             -- openings in a row, this one included
    seconds        double precision NOT NULL,    -- that it stays open
    detail         text NOT NULL,
    PRIMARY KEY (tenant_id, destination_id, circuit, change_id)
);
CREATE INDEX circuit_changes_time ON circuit_changes (tenant_id, at);

CREATE TABLE webhook_endpoints (
    tenant_id       integer NOT NULL REFERENCES tenants,
    endpoint_id     integer GENERATED ALWAYS AS IDENTITY,
    url             text NOT NULL,
    events          text[] NOT NULL,             -- types that it wants
    secret          bytea NOT NULL,              -- sealed like a destination's credentials
    previous_secret bytea,                       -- signs as well until previous_until, while receivers change over
    previous_until  timestamptz,
    state           text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'disabled', 'removed')),
    detail          text,                        -- why it is disabled
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, endpoint_id)
);

-- One event for one endpoint. body is the JSON to the byte, because it is signed; event_id stays the same over all
-- attempts, and is the same for every endpoint.
CREATE TABLE webhook_messages (
    tenant_id       integer NOT NULL,
    message_id      bigint GENERATED ALWAYS AS IDENTITY,
    endpoint_id     integer NOT NULL,
    event_id        uuid NOT NULL,
    type            text NOT NULL,
    body            text NOT NULL,
    state           text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'ok', 'failed', 'dead')),
    attempt         integer NOT NULL DEFAULT 0,
    attempts        jsonb NOT NULL DEFAULT '[]', -- when, status, milliseconds and detail of each
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    created_at      timestamptz NOT NULL DEFAULT now(),
    finished_at     timestamptz,
    PRIMARY KEY (tenant_id, message_id)
);
CREATE INDEX webhook_messages_due ON webhook_messages (tenant_id, endpoint_id, next_attempt_at) WHERE state = 'pending';
CREATE INDEX webhook_messages_endpoint ON webhook_messages (tenant_id, endpoint_id, message_id);
CREATE INDEX webhook_messages_state ON webhook_messages (tenant_id, endpoint_id, state, message_id);
CREATE INDEX webhook_messages_done ON webhook_messages (tenant_id, finished_at) WHERE finished_at IS NOT NULL;

-- Tells a tenant's endpoints of an event, in the transaction of what it tells of. Costs one look at a small table where
-- nobody listens. Returns how many will be told.
CREATE FUNCTION emit_event(tenant integer, event_type text, event_data jsonb) RETURNS bigint
    LANGUAGE sql VOLATILE
    AS $$
        WITH event AS MATERIALIZED (SELECT gen_random_uuid() AS event_id),
        told AS (
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
        SELECT count(*) FROM told
    $$;

-- Tells of a job that is at its end, and of no other.
CREATE FUNCTION emit_job_finished(job jobs) RETURNS bigint
    LANGUAGE sql VOLATILE
    AS $$
        SELECT CASE WHEN job.finished_at IS NOT NULL THEN emit_event(
            job.tenant_id,
            'job.finished',
            jsonb_build_object(
                'job_id', job.job_id, 'kind', job.kind, 'root_job_id', job.root_job_id, 'state', job.state,
                'summary', jsonb_build_object(
                    'total', job.total, 'succeeded', job.succeeded, 'failed', job.failed, 'retry', job.retry
                )
            )
        ) END
    $$;
