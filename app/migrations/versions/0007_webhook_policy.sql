ALTER TABLE webhook_endpoints
    ADD COLUMN policy text NOT NULL DEFAULT 'short' CHECK (policy IN ('short', 'standard')),
    ADD COLUMN failing_since timestamptz;        -- the first failed attempt after the last that went well
