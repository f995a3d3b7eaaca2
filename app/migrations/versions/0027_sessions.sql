-- Somebody signed in to the console with an API key: until it expires, the session may do what the key may, and it ends with
-- the key. Of its secret only the hash is stored, as of a key's.
CREATE TABLE api_sessions (
    tenant_id   integer NOT NULL,
    session_id  text COLLATE "C" NOT NULL,
    key_id      text COLLATE "C" NOT NULL,
    secret_hash bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, session_id)
);
CREATE INDEX api_sessions_expired ON api_sessions (tenant_id, expires_at);
