-- A record that an undo could not restore, because somebody changed it since, has a dead letter without a destination.
ALTER TABLE dead_letters ALTER COLUMN destination_id DROP NOT NULL;
ALTER TABLE dead_letters ALTER COLUMN delivery_id DROP NOT NULL;
-- What was to be restored, and who changed the record since (app.undo.conflicts.Conflict); NULL: of a delivery.
ALTER TABLE dead_letters ADD COLUMN conflict jsonb;
CREATE UNIQUE INDEX dead_letters_conflict ON dead_letters (tenant_id, job_id, item_index) WHERE destination_id IS NULL;
-- Of a replay of such dead letters: the job whose items it takes back, as `undo_of` of the first undo; NULL: of any other.
ALTER TABLE jobs ADD COLUMN retakes uuid;
