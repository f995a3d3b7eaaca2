-- Types that a tenant has declared, or has added to.

-- name: find_resource_type
-- By name or by id, one of them NULL. The definition only where it is not the version $4, which the caller has compiled.
SELECT t.type_id, t.name, t.version, CASE WHEN t.version <> $4 THEN t.definition END AS definition
FROM resource_types t
WHERE t.tenant_id = $1 AND (t.name = $2 OR t.type_id = $3);

-- name: list_resource_types
SELECT t.type_id, t.name, t.version, t.definition, t.created_at, t.updated_at
FROM resource_types t
WHERE t.tenant_id = $1
ORDER BY t.name;

-- name: lock_types
-- The gate through which the declarations of a tenant pass one at a time.
SELECT t.tenant_id FROM tenants t WHERE t.tenant_id = $1 FOR NO KEY UPDATE;

-- name: declare_type
INSERT INTO resource_types AS t (tenant_id, type_id, name, definition)
VALUES ($1, $2, $3, $4::text::json)
ON CONFLICT (tenant_id, type_id) DO UPDATE
SET definition = excluded.definition, version = t.version + 1, updated_at = excluded.updated_at;
