-- What was removed of a job, so that nobody is told half of it; and indexes of what gets old.
ALTER TABLE jobs
    ADD COLUMN history_trimmed boolean NOT NULL DEFAULT false,  -- versions that it made, or those before them, are gone
    ADD COLUMN dead_letters_trimmed boolean NOT NULL DEFAULT false,  -- settled dead letters of its items are gone
    ADD COLUMN bare boolean NOT NULL DEFAULT false;             -- nothing is left but this row and its effects
UPDATE jobs j SET bare = true
WHERE j.trimmed_at IS NOT NULL
    AND NOT EXISTS (SELECT FROM record_versions v WHERE v.tenant_id = j.tenant_id AND v.job_id = j.job_id);
CREATE INDEX jobs_bare ON jobs (tenant_id, finished_at) WHERE bare;
CREATE INDEX record_versions_prior ON record_versions (tenant_id, changed_at) WHERE prev_job_ids IS NOT NULL;
CREATE INDEX dead_letters_settled ON dead_letters (tenant_id, resolved_at) WHERE resolved_at IS NOT NULL;
CREATE INDEX audit_log_time ON audit_log (tenant_id, at);
