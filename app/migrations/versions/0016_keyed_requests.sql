-- An answer under an idempotency key need not be about a job.
ALTER TABLE idempotency_keys ALTER COLUMN job_id DROP NOT NULL;
