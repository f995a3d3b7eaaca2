-- The next $1 contacts in the order of their keys, after the last that is there already.
INSERT INTO records (
    tenant_id, type_id, record_id, version, source_version, deleted, document, created_at, updated_at, job_id, item_index,
    prev_job_id, prev_item_index, cleared, withdrawn
)
SELECT
    o.tenant_id, 1, o.contact_id, o.version, o.source_version, o.email = '', {document}, o.created_at, o.updated_at,
    o.job_id, o.item_index, o.prev_job_id, o.prev_item_index, o.cleared,
    -- Of a tombstone that an undo made there is always what it withdrew.
    CASE WHEN o.email = '' THEN coalesce(o.withdrawn, '{}') ELSE o.withdrawn END
FROM old_contacts o
WHERE (o.tenant_id, o.contact_id) > (
    coalesce((SELECT r.tenant_id FROM records r ORDER BY r.tenant_id DESC, r.type_id DESC, r.record_id DESC LIMIT 1), 0),
    coalesce((SELECT r.record_id FROM records r ORDER BY r.tenant_id DESC, r.type_id DESC, r.record_id DESC LIMIT 1), '')
)
ORDER BY o.tenant_id, o.contact_id
LIMIT $1;
