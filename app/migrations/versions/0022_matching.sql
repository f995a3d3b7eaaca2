-- What a record held at a destination before we first wrote to it (app.deliveries.before_images), where it was there before
-- us and was found (match_on): an undo restores it. JSON; NULL: it was not there, or an undo can no longer want it.
-- adopted_at: when it was found. Until something is synced after that, it does not have our key, and is written to by its
-- own id.
ALTER TABLE record_syncs ADD COLUMN before_image text, ADD COLUMN adopted_at timestamptz;
-- A record there becomes one of ours, whoever finds it at the same time.
CREATE UNIQUE INDEX record_syncs_adopted ON record_syncs (tenant_id, destination_id, type_id, remote_id)
    WHERE before_image IS NOT NULL;
CREATE INDEX record_syncs_images ON record_syncs (tenant_id, adopted_at) WHERE before_image IS NOT NULL;
-- What match_on says now.
UPDATE destinations
SET options = options - 'on_conflict' || CASE WHEN options ->> 'on_conflict' = 'fail' THEN '{"match_on":{}}' ELSE '{}' END::jsonb
WHERE kind = 'hubspot' AND options ? 'on_conflict';
