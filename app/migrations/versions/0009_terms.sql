ALTER TABLE spool_chunks RENAME TO staged_chunks;
ALTER TABLE spool_repeats RENAME TO staged_repeats;
DO $$
DECLARE
    found record;
BEGIN
    -- Since PostgreSQL 18 NOT NULL is a constraint with a name as well.
    FOR found IN SELECT conrelid::regclass AS place, conname FROM pg_constraint WHERE conname LIKE 'spool\_%' LOOP
        EXECUTE format(
            'ALTER TABLE %s RENAME CONSTRAINT %I TO %I', found.place, found.conname, replace(found.conname, 'spool_', 'staged_')
        );
    END LOOP;
END
$$;
ALTER TABLE deliveries RENAME COLUMN letters TO dead_letters;
ALTER TABLE destinations RENAME COLUMN circuit_wish TO circuit_override;

DROP FUNCTION letters(text, text);
CREATE FUNCTION count_state(states text, state text) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN length(states) - length(replace(states, state, ''));

CREATE OR REPLACE FUNCTION emit_event(tenant integer, event_type text, event_data jsonb) RETURNS bigint
    LANGUAGE sql
    AS $$
        WITH event AS MATERIALIZED (SELECT gen_random_uuid() AS event_id),
        notified AS (
            INSERT INTO webhook_messages (tenant_id, endpoint_id, event_id, type, body)
            SELECT
                tenant, w.endpoint_id, e.event_id, event_type,
                jsonb_build_object(
                    'type', event_type,
                    'timestamp', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                    'data', event_data
                )::text
            FROM webhook_endpoints w
            CROSS JOIN event e
            WHERE w.tenant_id = tenant AND w.state = 'active' AND event_type = ANY (w.events)
            RETURNING 1
        )
        SELECT count(*) FROM notified
    $$;
