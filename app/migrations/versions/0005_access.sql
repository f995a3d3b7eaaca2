-- Who may do what: keys with a name, an end, a last use and a secret that can be renewed; tenants that can be disabled.

-- disabled_at: its keys are refused, and workers leave what is owed for it where it is until it is enabled again.
ALTER TABLE tenants ADD COLUMN disabled_at timestamptz;

-- previous_hash: after a rotation the secret before is good until previous_until, so that clients can be changed one
-- after the other. The key id stays, and with it the jobs that the key may follow.
ALTER TABLE api_keys
    ADD COLUMN name           text NOT NULL DEFAULT '',
    ADD COLUMN expires_at     timestamptz,
    ADD COLUMN last_used_at   timestamptz,          -- to about a minute
    ADD COLUMN previous_hash  bytea,
    ADD COLUMN previous_until timestamptz;

-- A key with the scope import alone lists its own jobs.
-- The condition holds for every row and is named by that list alone: nobody else is to find jobs by this index.
CREATE INDEX jobs_of_key ON jobs (tenant_id, key_id, job_id) WHERE key_id <> '';

-- waiting: what keeps an unfinished job from going on, a full disk say; {"code", "detail"}.
ALTER TABLE jobs ADD COLUMN waiting jsonb;
