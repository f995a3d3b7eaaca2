-- Whether there is room on PostgreSQL's disk.

-- name: probe_memory
SELECT set_config('work_mem', '64kB', true);

-- name: probe_room
-- Keeps 16 MB, the size of a segment of the write-ahead log, in too little memory for them: they go to a temporary file,
-- which leaves nothing behind and needs no privilege. Runs after probe_memory, in one transaction.
WITH kept AS MATERIALIZED (SELECT repeat(md5(i::text), 250) AS line FROM generate_series(1, 2048) i)
SELECT max(length(k.line)) FROM kept k;
