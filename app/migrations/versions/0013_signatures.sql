-- Lists search by signatures of the values that the versions of a chunk have (app.history.versions): an index cost every
-- changed record more than half of what it costs to merge it. NULL: the row is older.
DROP INDEX IF EXISTS records_searched;
ALTER TABLE record_versions ADD COLUMN signatures int[];
-- Random numbers, which nothing makes smaller.
ALTER TABLE record_versions ALTER COLUMN signatures SET STORAGE EXTERNAL;
