-- How far a job of the kind `sync` has come (app.syncs.rules.Cursor); NULL: it is of another kind, or has
-- seen every record.
ALTER TABLE jobs ADD COLUMN sync jsonb;
-- What the destination has in this version already is sent all the same.
ALTER TABLE deliveries ADD COLUMN forced boolean NOT NULL DEFAULT false;
