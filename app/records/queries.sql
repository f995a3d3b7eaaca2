-- The history of a contact: its ledger rows, a chain from the newest back.

-- name: contact_exists
-- Also a tombstone is one: its history is kept.
SELECT EXISTS (SELECT FROM contacts c WHERE c.tenant_id = $1 AND c.contact_id = $2);

-- name: read_history
-- $5 versions, newest first, after the one that item $4 of job $3 made (NULL: from the newest); who made each, and which
-- undo took it back. The chain is walked from its newest version on, since only those record undos.
WITH RECURSIVE past AS (
    SELECT
        l.job_id, l.item_index, l.prev_job_id, l.prev_item_index, 1 AS depth,
        CASE WHEN $3::uuid IS NULL THEN 1 ELSE 0 END AS place
    FROM contacts c
    JOIN ledger l ON l.tenant_id = $1 AND l.job_id = c.job_id AND l.item_index = c.item_index
    WHERE c.tenant_id = $1 AND c.contact_id = $2
    UNION ALL
    SELECT
        l.job_id, l.item_index, l.prev_job_id, l.prev_item_index, p.depth + 1,
        CASE WHEN p.place > 0 THEN p.place + 1 WHEN p.job_id = $3 AND p.item_index = $4::int THEN 1 ELSE 0 END
    FROM past p
    JOIN ledger l ON l.tenant_id = $1 AND l.job_id = p.prev_job_id AND l.item_index = p.prev_item_index
    WHERE p.place < $5::int
),
undone AS MATERIALIZED (
    SELECT p.depth, p.job_id, j.taken
    FROM past p
    CROSS JOIN LATERAL (
        SELECT coalesce(x.undo_of, x.root_job_id) AS taken FROM jobs x
        WHERE x.tenant_id = $1 AND x.job_id = p.job_id AND x.kind = 'undo' LIMIT 1
    ) j
)
SELECT
    l.version, l.changed_at, l.job_id, l.item_index, l.source_version, {{fields l}}, l.attributes, j.kind, j.key_id, j.request_id,
    (
        SELECT u.job_id FROM undone u WHERE u.taken = p.job_id AND u.depth < p.depth ORDER BY u.depth DESC LIMIT 1
    ) AS undone_by
FROM past p
JOIN ledger l ON l.tenant_id = $1 AND l.job_id = p.job_id AND l.item_index = p.item_index
LEFT JOIN LATERAL (
    SELECT x.kind, x.key_id, x.request_id FROM jobs x WHERE x.tenant_id = $1 AND x.job_id = p.job_id LIMIT 1
) j ON true
WHERE p.place > 0
ORDER BY p.depth;

-- name: read_contact
SELECT
    c.contact_id, c.version, c.source_version, {{fields c}}, c.attributes,
    c.job_id, c.created_at, c.updated_at, c.cleared
FROM contacts c
WHERE c.tenant_id = $1 AND c.contact_id = $2;

-- name: read_contact_syncs
-- Every destination of the tenant with what it holds of one contact.
SELECT
    d.name, d.state = 'paused' AS paused, d.created_at, d.blocked_code, d.blocked_detail,
    greatest(extract(epoch FROM d.blocked_until - now()), 0)::float8 AS blocked_for,
    s.synced_version, s.synced_at, s.remote_id, s.state, s.state_version, s.error_code, s.error_detail, s.created,
    s.not_restored
FROM destinations d
LEFT JOIN contact_syncs s
    ON s.tenant_id = d.tenant_id AND s.destination_id = d.destination_id AND s.contact_id = $2
WHERE d.tenant_id = $1 AND d.state <> 'removed'
ORDER BY d.name;
