-- A test of a destination that somebody asked for. Handlers never call a CRM: a worker makes the test and writes down what
-- it saw. A row is kept for a day, and goes when the tenant asks for another test.
CREATE TABLE destination_tests (
    tenant_id      integer NOT NULL,
    test_id        uuid NOT NULL,
    destination_id integer NOT NULL,
    canary         boolean NOT NULL, -- write a record, read it back and take it away
    request_id     text NOT NULL,
    state          text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'done')),
    created_at     timestamptz NOT NULL DEFAULT now(),
    lease_until    timestamptz, -- of the worker that makes it
    finished_at    timestamptz,
    steps          jsonb NOT NULL DEFAULT '[]', -- app.destinations.testing.rules.Step
    PRIMARY KEY (tenant_id, test_id)
);
CREATE INDEX destination_tests_open ON destination_tests (tenant_id, created_at) WHERE state <> 'done';
