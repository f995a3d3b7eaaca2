-- Records are read back, and sent only if the delivery is forced as well and the destination holds something else.
ALTER TABLE deliveries ADD COLUMN verify boolean NOT NULL DEFAULT false;
-- What a verification found, by the position of the item (app.deliveries.drift.Drift); NULL: nothing.
ALTER TABLE deliveries ADD COLUMN drift jsonb;
-- A delivery that sends nothing: it lists what the destination has, and its items are the keys that nobody here knows
-- (app.deliveries.drift.Listing); NULL: any other.
ALTER TABLE deliveries ADD COLUMN listing jsonb;
CREATE INDEX deliveries_drifted ON deliveries (tenant_id, job_id, destination_id, first_index) WHERE drift IS NOT NULL;
-- When its records were last compared, or began to be (option verify_every).
ALTER TABLE destinations ADD COLUMN verified_at timestamptz;
CREATE INDEX destinations_verified ON destinations (tenant_id, verified_at) WHERE options ? 'verify_every';
