"""Every named query is one that Citus accepts beside PostgreSQL, as far as `tests/citus_rules.py` knows its rules."""

from __future__ import annotations

from typing import Final

import pytest

from app.kit.postgres.sql import QUERIES
from tests.citus_rules import broken


@pytest.mark.parametrize("name", sorted(QUERIES))
def test_citus_accepts(name: str) -> None:
    rules = broken(QUERIES[name])
    assert not rules, f"Citus refuses the query {name}: " + "; ".join(rules)


REFUSED: Final = {
    "emit_job_finished": "UPDATE jobs j SET step = NULL WHERE j.tenant_id = $1 RETURNING j.state, emit_job_finished(j)",
    "now() in DO UPDATE": """
        INSERT INTO resource_types AS t (tenant_id, definition) VALUES ($1, $2)
        ON CONFLICT (tenant_id, type_id) DO UPDATE SET definition = excluded.definition, updated_at = now()
    """,
    "now() in RETURNING": """
        UPDATE deliveries d SET state = 'sending' WHERE d.tenant_id = $1
        RETURNING d.delivery_id, extract(epoch FROM now() - d.created_at)::float8 AS age
    """,
    "a sub-select in RETURNING": """
        INSERT INTO jobs (tenant_id) VALUES ($1)
        RETURNING EXISTS (SELECT FROM webhook_endpoints w WHERE w.tenant_id = $1)
    """,
    "now() in CASE": "UPDATE sagas SET finished_at = CASE WHEN $3 THEN now() END WHERE tenant_id = $1 AND saga_id = $2",
    "now() in CASE or COALESCE": "UPDATE jobs j SET started_at = coalesce(j.started_at, now()) WHERE j.tenant_id = $1",
    "CASE of a parameter": """
        UPDATE deliveries d SET absent_since = CASE $2::text WHEN 'keep' THEN d.absent_since END WHERE d.tenant_id = $1
    """,
    "clock_timestamp() in UPDATE": """
        UPDATE destinations d SET circuit_override = jsonb_build_object('at', extract(epoch FROM clock_timestamp()))
        WHERE d.tenant_id = $1
    """,
    "to_jsonb() of a column": "UPDATE jobs j SET error = to_jsonb(j.state) WHERE j.tenant_id = $1",
    "plus or minus an interval": """
        UPDATE api_keys k SET last_used_at = u.at FROM unnest($1::int[], $2::timestamptz[]) AS u(tenant_id, at)
        WHERE k.tenant_id = u.tenant_id AND k.last_used_at < u.at - interval '30 seconds'
    """,
    "a sub-select in VALUES": """
        INSERT INTO staged_chunks (tenant_id, id_hashes)
        VALUES ($1, ARRAY(SELECT hashtextextended(i.id, 0) FROM unnest($2::text[]) AS i(id)))
    """,
    "(a, b) IN": """
        DELETE FROM idempotency_keys WHERE tenant_id = $1 AND (route, key) IN (
            SELECT k.route, k.key FROM idempotency_keys k WHERE k.tenant_id = $1 LIMIT 1000 FOR UPDATE SKIP LOCKED
        )
    """,
    "recursion over tenants": """
        WITH RECURSIVE busy AS (
            (SELECT s.tenant_id FROM sagas s WHERE s.finished_at IS NULL ORDER BY s.tenant_id LIMIT 1)
            UNION ALL
            SELECT n.tenant_id FROM busy b CROSS JOIN LATERAL (
                SELECT s.tenant_id FROM sagas s WHERE s.tenant_id > b.tenant_id ORDER BY s.tenant_id LIMIT 1
            ) n
        )
        SELECT b.tenant_id FROM busy b
    """,
}
"""Of statements that Citus refused: a word of the rule, and what broke it."""


@pytest.mark.parametrize("rule", REFUSED)
def test_a_broken_rule_is_named(rule: str) -> None:
    assert any(rule in said for said in broken(REFUSED[rule]))
