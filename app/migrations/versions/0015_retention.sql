-- What is past its time is found by an index that has nothing else in it: of keys, those whose answers are still there,
-- and those that have lost them.
CREATE INDEX idempotency_keys_answers ON idempotency_keys (tenant_id, expires_at) WHERE answer IS NOT NULL;
CREATE INDEX idempotency_keys_bare ON idempotency_keys (tenant_id, expires_at) WHERE answer IS NULL;
DROP INDEX idempotency_keys_expiry;
