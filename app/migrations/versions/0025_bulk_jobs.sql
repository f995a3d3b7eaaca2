-- The job of the CRM's own that writes this delivery's records, kept before it is started; NULL: there is none.
ALTER TABLE deliveries ADD COLUMN task text;
