-- Circuits as PostgreSQL knows them: what operators want of them, and how they changed.

-- name: ask_circuit
-- $1 tenant  $2 name  $3 state  $4 for how long it shall be open  $5 who asks  $6 'crm': the circuit that the destination
-- shares with other tenants; null: its own
-- The destination is open or closed at once; the circuits themselves are the next worker's to set. Asked twice, the
-- last word counts.
WITH asked AS (
    UPDATE destinations d
    SET
        circuit_override = jsonb_build_object(
            'state', $3::text, 'until', extract(epoch FROM now() + $4::interval), 'by', $5::text,
            'at', extract(epoch FROM statement_timestamp()), 'circuit', $6::text
        ),
        blocked_until = now() + CASE WHEN $3 = 'open' THEN $4::interval END,
        blocked_code = CASE WHEN $3 = 'open' THEN 'CIRCUIT_OPEN' END,
        blocked_detail = CASE WHEN $3 = 'open' THEN 'opened by an operator' END
    WHERE d.tenant_id = $1 AND d.name = $2 AND d.state <> 'removed'
    RETURNING d.destination_id, d.name, d.kind, d.base_url
),
noted AS (
    INSERT INTO audit_log (tenant_id, actor, action, subject, detail)
    SELECT
        $1, $5, CASE WHEN $3 = 'open' THEN 'circuit.open' ELSE 'circuit.close' END,
        CASE WHEN $6 = 'crm' THEN 'crm:' || a.kind || ':' || a.base_url ELSE 'destination:' || a.name END,
        CASE WHEN $3 = 'open' THEN jsonb_build_object('seconds', extract(epoch FROM $4::interval)) ELSE '{}' END
    FROM asked a
)
SELECT a.destination_id FROM asked a;

-- name: overridden_destinations
-- Whose circuits an operator wants set.
SELECT d.tenant_id, d.destination_id
FROM destinations d
WHERE d.circuit_override IS NOT NULL AND d.state <> 'removed';

-- name: read_circuit_override
-- With what is left of its time: an override that is found late does not last longer.
SELECT
    d.circuit_override::text AS override, d.circuit_override ->> 'state' AS state, d.circuit_override ->> 'by' AS by,
    d.circuit_override ->> 'circuit' AS circuit,
    ((d.circuit_override ->> 'until')::float8 - extract(epoch FROM now()))::float8 AS seconds
FROM destinations d
WHERE d.tenant_id = $1 AND d.destination_id = $2 AND d.circuit_override IS NOT NULL;

-- name: clear_circuit_override
-- Only the one that was fulfilled. A worker that was refused just before the circuit was closed may have blocked the
-- destination after the override had unblocked it.
UPDATE destinations d
SET
    circuit_override = NULL,
    blocked_until = CASE WHEN $4::boolean AND d.blocked_code = 'CIRCUIT_OPEN' THEN NULL ELSE d.blocked_until END,
    blocked_code = CASE WHEN $4 AND d.blocked_code = 'CIRCUIT_OPEN' THEN NULL ELSE d.blocked_code END,
    blocked_detail = CASE WHEN $4 AND d.blocked_code = 'CIRCUIT_OPEN' THEN NULL ELSE d.blocked_detail END
WHERE d.tenant_id = $1 AND d.destination_id = $2 AND d.circuit_override = $3::text::jsonb;

-- name: unblock_crm
-- Of all tenants, for a CRM of kind $1 at $2 whose circuit an operator closed.
UPDATE destinations d
SET blocked_until = NULL, blocked_code = NULL, blocked_detail = NULL
WHERE d.kind = $1 AND d.base_url = $2 AND d.blocked_code = 'CIRCUIT_OPEN';

-- name: record_circuit_change
-- A change of the circuit that a call of this destination met so long ago. `reason` is in our own words: webhooks get
-- nothing that a CRM said. What tenants share is written down for the operator, and no tenant sees it: it speaks of
-- others.
WITH noted AS (
    INSERT INTO circuit_changes (tenant_id, destination_id, at, circuit, before, after, opens, seconds, detail)
    SELECT d.tenant_id, d.destination_id, now() - :ago::interval, :circuit, :before, :after, :opens, :seconds::float8, :detail
    FROM destinations d
    WHERE d.tenant_id = :tenant_id AND d.destination_id = :destination_id
    RETURNING destination_id
),
event AS MATERIALIZED (
    SELECT
        gen_random_uuid() AS event_id, CASE WHEN :after::text = 'open' THEN 'circuit.opened' ELSE 'circuit.closed' END AS type,
        jsonb_build_object(
            'destination', d.name, 'circuit', :circuit::text, 'before', :before::text, 'after', :after, 'opens', :opens::int,
            'retry_after_seconds', ceil(:seconds::float8)::int, 'detail', :reason::text
        ) AS data
    FROM destinations d
    WHERE d.tenant_id = :tenant_id AND d.destination_id = :destination_id
        AND :circuit = 'connection' AND :after IN ('open', 'closed')
),
message AS (
    INSERT INTO webhook_messages {{event_messages}}
)
SELECT n.destination_id FROM noted n;

-- name: read_circuits
-- The last change of a tenant's connection to each of its destinations; an index probe a destination.
SELECT
    d.name, x.at, x.after, x.detail,
    -- What a new token brings about is nobody's order, and what tenants share is the operator's.
    CASE WHEN d.circuit_override ->> 'circuit' IS NULL THEN d.circuit_override ->> 'state' END AS override,
    (extract(epoch FROM x.at - now()) + x.seconds)::float8 AS left_open
FROM destinations d
LEFT JOIN LATERAL (
    SELECT c.at, c.after, c.detail, c.seconds
    FROM circuit_changes c
    WHERE c.tenant_id = $1 AND c.destination_id = d.destination_id AND c.circuit = 'connection'
    ORDER BY c.change_id DESC
    LIMIT 1
) x ON true
WHERE d.tenant_id = $1 AND d.state <> 'removed';

-- name: count_openings
-- By destination, within the last day.
SELECT d.name, count(*) AS openings
FROM circuit_changes c
JOIN destinations d ON d.tenant_id = $1 AND d.destination_id = c.destination_id
WHERE c.tenant_id = $1 AND c.at > now() - interval '1 day' AND c.after = 'open' AND c.circuit = 'connection' AND d.state <> 'removed'
GROUP BY d.name;

-- name: list_circuit_changes
-- The latest $3 of a destination ($2), newest first.
SELECT x.at, x.circuit, x.before, x.after, x.opens, x.seconds, x.detail
FROM destinations d
CROSS JOIN LATERAL (
    SELECT c.*
    FROM circuit_changes c
    WHERE c.tenant_id = $1 AND c.destination_id = d.destination_id AND c.circuit = 'connection'
    ORDER BY c.change_id DESC
    LIMIT $3
) x
WHERE d.tenant_id = $1 AND d.name = $2 AND d.state <> 'removed'
ORDER BY x.change_id DESC
LIMIT $3;
