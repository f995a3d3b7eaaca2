-- Who did what, when.

-- name: write_audit
INSERT INTO audit_log (tenant_id, actor, action, subject, detail) VALUES ($1, $2, $3, $4, $5::text::jsonb);

-- name: read_audit
-- Newest first, before the entry $2 (NULL: from the newest).
SELECT a.audit_id, a.at, a.actor, a.action, a.subject, a.detail
FROM audit_log a
WHERE a.tenant_id = $1 AND a.audit_id < coalesce($2, 9223372036854775807)
ORDER BY a.audit_id DESC
LIMIT $3;

-- name: read_audit_of
-- The same of one subject ($4).
SELECT a.audit_id, a.at, a.actor, a.action, a.subject, a.detail
FROM audit_log a
WHERE a.tenant_id = $1 AND a.subject = $4 AND a.audit_id < coalesce($2, 9223372036854775807)
ORDER BY a.audit_id DESC
LIMIT $3;
