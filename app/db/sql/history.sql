-- The history of a contact: its ledger rows, a chain from the newest back.

-- name: contact_exists
-- Also a tombstone is one: its history is kept.
SELECT EXISTS (SELECT FROM contacts c WHERE c.tenant_id = $1 AND c.contact_id = $2);

-- name: read_history
-- $5 rows, from the version that item $4 of job $3 made (NULL: the newest) back; who made each, and by what.
WITH RECURSIVE past AS (
    SELECT l.*, 1 AS depth
    FROM (
        SELECT coalesce($3, c.job_id) AS job_id, coalesce($4, c.item_index) AS item_index
        FROM contacts c
        WHERE c.tenant_id = $1 AND c.contact_id = $2
    ) s
    JOIN ledger l ON l.tenant_id = $1 AND l.job_id = s.job_id AND l.item_index = s.item_index AND l.contact_id = $2
    UNION ALL
    SELECT l.*, p.depth + 1
    FROM past p
    JOIN ledger l ON l.tenant_id = $1 AND l.job_id = p.prev_job_id AND l.item_index = p.prev_item_index
    WHERE p.depth < $5
)
SELECT
    p.version, p.changed_at, p.job_id, p.item_index, p.source_version, p.email, p.first_name, p.last_name, p.phone,
    p.company, p.attributes, j.kind, j.key_id, j.request_id
FROM past p
LEFT JOIN LATERAL (
    SELECT x.kind, x.key_id, x.request_id FROM jobs x WHERE x.tenant_id = $1 AND x.job_id = p.job_id LIMIT 1
) j ON true
ORDER BY p.depth;
