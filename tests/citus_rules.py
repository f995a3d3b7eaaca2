"""The rules for statements that Citus shall accept beside PostgreSQL, read off their SQL.

Citus evaluates mutable functions once, before it sends an UPDATE to the nodes, and so refuses them where that could
change their meaning. The rules are what it was seen to refuse, or to change; it has others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import sqlglot
from sqlglot import exp

VOLATILE: Final = frozenset(
    {
        *("clock_timestamp", "gen_random_uuid", "pg_current_wal_flush_lsn", "pg_is_in_recovery"),
        *(
            "pg_last_wal_replay_lsn",
            "pg_last_xact_replay_timestamp",
            "pg_try_advisory_xact_lock",
            "random",
            "set_config",
        ),
    }
)
STABLE: Final = frozenset(
    {
        *(
            "age",
            "current_database",
            "current_setting",
            "extract",
            "format",
            "jsonb_agg",
            "jsonb_build_array",
            "jsonb_build_object",
            "jsonb_to_record",
        ),
        *("jsonb_to_recordset", "now", "statement_timestamp", "to_char", "to_jsonb"),
    }
)
"""Functions that the queries call; `tests/db/test_queries.py` asks PostgreSQL whether these are all."""
WRITING: Final = ("emit_event", "emit_job_finished")

CALL: Final = re.compile(r"\b([a-z]\w*)\s*\(", re.IGNORECASE)


def calls(node: exp.Expr) -> set[str]:
    """The mutable functions in it, sub-selects and all."""
    sql = node.sql("postgres", comments=False).replace("CURRENT_TIMESTAMP", "now()")
    return {name for name in map(str.lower, CALL.findall(sql)) if name in VOLATILE | STABLE}


def changes(statement: exp.Expr) -> Iterator[exp.Expr]:
    """What an UPDATE, a DELETE or DO UPDATE sets, and its conditions."""
    for change in statement.find_all(exp.Update, exp.Delete, exp.OnConflict):
        yield from change.args.get("expressions") or ()
        if change.args.get("where"):
            yield change.args["where"]


def without(node: exp.Expr, *kinds: type[exp.Expr]) -> exp.Expr:
    """It with NULL in place of what is in it of these kinds."""
    return node.transform(lambda n: exp.null() if isinstance(n, kinds) and n.parent is not None else n)


def broken(sql: str) -> list[str]:
    """The rules that a statement breaks."""
    statement = sqlglot.parse_one(sql, read="postgres")
    return list(dict.fromkeys(_broken(statement)))


def _broken(statement: exp.Expr) -> Iterator[str]:
    for name in WRITING:
        if any(call.name == name for call in statement.find_all(exp.Anonymous)):
            yield f"calls {name}, which writes: insert what it writes in a CTE"
    for case in statement.find_all(exp.Case):
        if case.this is not None and not case.this.find(exp.Column):
            yield "CASE of a parameter or constant: Citus writes it down wrongly; use CASE WHEN"
    for change in statement.find_all(exp.OnConflict):
        for name in set().union(*map(calls, change.args.get("expressions") or ())):
            yield f"{name}() in DO UPDATE: insert the value, and use that of excluded"
    for returned in statement.find_all(exp.Returning):
        for name in calls(returned):
            yield f"{name}() in RETURNING: change the rows in a CTE, and select from it"
        if returned.find(exp.Select):
            yield "a sub-select in RETURNING: change the rows in a CTE, and select from it"
    yield from _broken_changes(statement)
    for insert in statement.find_all(exp.Insert):
        if isinstance(insert.expression, exp.Values) and insert.expression.find(exp.Select):
            yield "a sub-select in VALUES: use INSERT … SELECT"
    for clause in statement.find_all(exp.With):
        if not clause.args.get("recursive"):
            continue
        for cte in clause.expressions:
            if isinstance(cte.this, exp.Union) and not any(map(_names_tenant, cte.find_all(exp.EQ))):
                yield "recursion over tenants: use DISTINCT and LATERAL"


def _broken_changes(statement: exp.Expr) -> Iterator[str]:
    for change in changes(statement):
        for condition in change.find_all(exp.In):
            if isinstance(condition.this, exp.Tuple) and condition.args.get("query"):
                yield "(a, b) IN (SELECT a, b) in UPDATE or DELETE: use ctid = ANY (ARRAY(SELECT ctid …))"
        node = without(change, exp.Select)
        for name in VOLATILE & calls(node):
            yield f"{name}() in UPDATE, DELETE or DO UPDATE: make the value in a materialized CTE"
        for choice in node.find_all(exp.Case, exp.Coalesce):
            for name in calls(choice):
                yield f"{name}() in CASE or COALESCE: put it outside, with least(), greatest() or + CASE … interval"
        # Citus does not look for columns in these.
        node = without(node, exp.Case, exp.Coalesce)
        for call in node.find_all(exp.Func):
            if call.find(exp.Column):
                for name in calls(call) - set().union(*(calls(part) for part in call.iter_expressions())):
                    yield f"{name}() of a column in UPDATE or DELETE: make the value in a materialized CTE"
        for sum_ in node.find_all(exp.Add, exp.Sub):
            if sum_.find(exp.Column) and (calls(sum_) or _is_interval(sum_)):
                yield "a column plus or minus an interval in UPDATE or DELETE: it is only STABLE"


def _is_interval(node: exp.Expr) -> bool:
    casts = any(cast.to.this == exp.DType.INTERVAL for cast in node.find_all(exp.Cast))
    return casts or node.find(exp.Interval) is not None


def _names_tenant(condition: exp.EQ) -> bool:
    return condition.this.name == "tenant_id" and isinstance(condition.expression, exp.Parameter)
