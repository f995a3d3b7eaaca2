-- The query of the schema's revision.

-- name: read_schema_version
SELECT version_num FROM schema_version;

-- name: is_read_only
-- Also of a standby, whatever its settings say.
SELECT current_setting('transaction_read_only') = 'on';
