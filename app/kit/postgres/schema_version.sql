-- The query of the schema's revision.

-- name: read_schema_version
SELECT version_num FROM schema_version;
