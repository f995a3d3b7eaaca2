-- Flow control of deliveries beside the claim.

-- name: lacks_place
-- Whether something is due at a destination and all that keeps it is that $3 deliveries are under way already.
SELECT EXISTS (
    SELECT FROM destinations d
    WHERE d.tenant_id = $1 AND d.destination_id = $2
        AND (d.state = 'removed' OR d.state = 'active' AND (d.blocked_until IS NULL OR d.blocked_until <= now()))
        AND EXISTS (
            SELECT FROM deliveries x
            WHERE x.tenant_id = $1 AND x.destination_id = $2 AND x.state = 'pending' AND x.next_attempt_at <= now()
        )
        AND (
            SELECT count(*) FROM deliveries x
            WHERE x.tenant_id = $1 AND x.destination_id = $2 AND x.state = 'sending'
        ) >= $3::int
);

-- name: owes
-- Whether anything is to be sent to a destination ($2), whenever it is due, or is under way.
SELECT EXISTS (
    SELECT FROM deliveries x WHERE x.tenant_id = $1 AND x.destination_id = $2 AND x.state = 'pending'
) OR EXISTS (
    SELECT FROM deliveries x WHERE x.tenant_id = $1 AND x.destination_id = $2 AND x.state = 'sending'
);
