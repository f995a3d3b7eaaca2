-- dropped_at: an operator leaves a saga that failed as it is.
ALTER TABLE sagas ADD COLUMN dropped_at timestamptz;
CREATE INDEX sagas_failed ON sagas (tenant_id, finished_at) WHERE state = 'failed' AND dropped_at IS NULL;
