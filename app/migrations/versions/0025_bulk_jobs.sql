-- The job of the CRM's own that writes this delivery's records, kept before it is started; NULL: there is none.
ALTER TABLE deliveries ADD COLUMN task text;
CREATE INDEX deliveries_tasks ON deliveries (tenant_id, destination_id) WHERE task IS NOT NULL;
