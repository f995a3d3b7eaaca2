-- How far a streaming replica is behind its primary.

-- name: read_flush_position
-- At the primary: whatever was acknowledged is before this position of its log.
SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint;

-- name: read_replay
SELECT
    pg_is_in_recovery() AS recovering,
    pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint AS position,
    extract(epoch FROM pg_last_xact_replay_timestamp())::float8 AS replayed_at,
    current_setting('hot_standby_feedback')::boolean AS feedback;
