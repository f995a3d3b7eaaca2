ALTER TABLE contact_syncs RENAME TO record_syncs;
ALTER TABLE record_syncs RENAME COLUMN contact_id TO record_id;
ALTER INDEX contact_syncs_pkey RENAME TO record_syncs_pkey;
ALTER TABLE dead_letters RENAME COLUMN contact_id TO record_id;
ALTER INDEX dead_letters_contact RENAME TO dead_letters_record;
ALTER TABLE deliveries RENAME COLUMN contact_ids TO record_ids;
ALTER TABLE staged_repeats RENAME COLUMN contact_id TO record_id;
