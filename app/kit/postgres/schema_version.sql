-- The query of the schema's revision.

-- name: read_schema_version
SELECT version_num FROM schema_version;

-- name: probe_write
-- Locks a row, which is a write for a moment: refused by a server that only reads, and committed through its log.
SELECT tenant_id FROM tenants LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED;
