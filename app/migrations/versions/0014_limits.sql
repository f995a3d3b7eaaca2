-- Limits that differ from the defaults, by policy: {"items": {"quota": 60000, "window_seconds": 60}}.
ALTER TABLE api_keys ADD COLUMN limits jsonb NOT NULL DEFAULT '{}';
ALTER TABLE tenants ADD COLUMN limits jsonb NOT NULL DEFAULT '{}';
-- A tenant's share of the workers where several tenants wait for them.
ALTER TABLE tenants ADD COLUMN weight double precision NOT NULL DEFAULT 1;
ALTER TABLE tenants ADD CONSTRAINT tenants_weight_check CHECK (weight BETWEEN 0.01 AND 100);
-- Most pieces of its work in progress at a time in one worker. NULL: as many as the worker does.
ALTER TABLE tenants ADD COLUMN worker_cap int;
ALTER TABLE tenants ADD CONSTRAINT tenants_worker_cap_check CHECK (worker_cap > 0);
