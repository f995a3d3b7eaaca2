"""Every named query fits the schema, is used, and finds its rows by an index however the planner looks at it."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import app
import jobs
from app.db.sql import QUERIES
from app.embedded import Engines
from tests.conftest import TEMPLATE, with_path
from tests.db.filling import fill

_JOB = "'00000005-0000-7000-8000-000000000003'"  # job 5 of tenant 3
_JOBS = "'{00000005-0000-7000-8000-000000000003}'"
_TOKEN = "'00000000-0000-4000-8000-000000000000'"
_CONTACTS = "'{c1,c10,c500}'"
_NULLS = ", …"  # nothing but NULL after the first argument
_NONE = "'{null,null,null}'"
_TRIED = "'{c1}','{ok}','{1}','{1}','{null}','{null}','{null}'"

HOT: dict[str, tuple[str, set[str]]] = {
    # The accept transaction.
    "claim_key": ("3, 7, 'route', 'key-5'", {"idempotency_keys_pkey"}),
    "existing_contacts": (f"3, {_CONTACTS}", {"contacts_pkey"}),
    "upsert_contacts": (f"3{_NULLS}", {"contacts_pkey"}),
    "unwritten_contacts": (f"3, {_CONTACTS}", {"contacts_pkey"}),
    "touch_contacts": (f"3, {_CONTACTS}, '{{1,2,3}}'", {"contacts_pkey"}),
    "settle_answer": ("3, 'route', 'key-5', ''", {"idempotency_keys_pkey"}),
    # Delivery.
    "due_destinations": ("", {"deliveries_due"}),
    "claim_delivery": (f"3, 5, {_TOKEN}, '30 s', 8", {"deliveries_due", "deliveries_sending"}),
    "renew_lease": (f"3, 500, {_TOKEN}, '30 s'", {"deliveries_pkey"}),
    "contacts_to_send": (f"3, 5, {_CONTACTS}", {"contacts_pkey", "contact_syncs_pkey"}),
    "attributes_to_clear": (f"3, {_CONTACTS}, '{{1,1,1}}'", {"contacts_pkey", "ledger_pkey"}),
    "record_delivery": (
        f"3, 500, {_TOKEN}, 'oo', '{{}}', 1, NULL, 'keep', {_TRIED}, '{{}}','{{}}','{{}}','{{}}','{{}}','{{}}'",
        {"deliveries_pkey", "effects_pkey", "jobs_pkey"},
    ),
    "finish_job": (f"3, {_JOB}", {"jobs_pkey", "effects_pkey"}),
    "tenants_sending": ("", {"deliveries_sending"}),
    "lost_deliveries": ("3", {"deliveries_sending"}),
    "release_lost": ("3, 500", {"deliveries_pkey", "effects_pkey", "jobs_pkey"}),
    "expire_answers": ("3", {"idempotency_keys_expiry", "idempotency_keys_pkey"}),
    "forget_keys": ("3, '30 days'", {"idempotency_keys_expiry"}),
    # The read model.
    "read_job": (f"3, {_JOB}", {"jobs_pkey"}),
    "read_jobs": (f"3, {_JOB}, 50", {"jobs_pkey"}),
    "read_effects": (f"3, {_JOBS}", {"effects_pkey"}),
    "read_local_failures": (f"3, {_JOB}", {"job_chunks_pkey"}),
    "read_destination_failures": (f"3, {_JOB}", {"deliveries_job"}),
    "read_next_attempt": (f"3, {_JOB}", {"deliveries_job"}),
    "read_chunks": (f"3, {_JOB}, 0, 9", {"job_chunks_pkey"}),
    "read_deliveries": (f"3, {_JOB}, 0, 9", {"deliveries_job"}),
    "read_revisions": (f"'{{3}}', {_JOBS}", {"jobs_pkey"}),
    "read_key": ("3, 'route', 'key-5'", {"idempotency_keys_pkey"}),
    "read_contact": ("3, 'c5'", {"contacts_pkey"}),
    "read_contact_syncs": ("3, 'c5'", {"contact_syncs_pkey"}),
}
"""Arguments, and the indexes that the plan must use."""


BIG = {
    "contacts",
    "ledger",
    "jobs",
    "job_chunks",
    "deliveries",
    "effects",
    "contact_syncs",
    "dead_letters",
    "idempotency_keys",
}
"""Tables that grow with use: none of them is ever read from end to end."""

MODES = ("force_custom_plan", "force_generic_plan")


@pytest.fixture(scope="module")
def filled_url(engines: Engines) -> Iterator[str]:
    """A database with enough in it, for reading only."""
    name = f"test_filled_{os.getpid()}"

    async def run(*statements: str, fill_it: bool = False) -> None:
        admin = await asyncpg.connect(engines.urls.database_url)
        for statement in statements:
            await admin.execute(statement)
        await admin.close()
        if fill_it:
            connection = await asyncpg.connect(with_path(engines.urls.database_url, name))
            await fill(connection)
            await connection.close()

    asyncio.run(run(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY file_copy", fill_it=True))
    yield with_path(engines.urls.database_url, name)
    asyncio.run(run(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
async def filled(filled_url: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """As the service plans: without JIT."""
    connection = await asyncpg.connect(filled_url, server_settings={"jit": "off"})
    yield connection
    await connection.close()


async def check_plan(connection: asyncpg.Connection[Any], name: str, mode: str) -> None:
    """The plan of a hot query uses its indexes and reads no big table whole."""
    arguments, expected = HOT[name]
    await connection.execute(f"SET plan_cache_mode = {mode}")
    await connection.execute(f"PREPARE {name} AS {QUERIES[name]}")
    if arguments.endswith(_NULLS):
        count = await connection.fetchval(
            "SELECT cardinality(parameter_types) FROM pg_prepared_statements WHERE name = $1", name
        )
        arguments = arguments.replace(_NULLS, ", NULL" * (count - 1))
    call = f"{name}({arguments})" if arguments else name
    (plan,) = json.loads(await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE {call}"))
    used: set[str] = set()
    for node in nodes(plan["Plan"]):
        relation = node.get("Relation Name")
        assert node["Node Type"] != "Seq Scan" or relation not in BIG, f"{name} reads all of {relation}"
        used |= {node.get("Index Name", ""), *node.get("Conflict Arbiter Indexes", ())}
    assert used >= expected, f"{name} does without {expected - used}"


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


@pytest.mark.parametrize("name", sorted(QUERIES))
async def test_a_query_fits_the_schema(filled: asyncpg.Connection[Any], name: str) -> None:
    """PostgreSQL can prepare it: every table, column and type is there."""
    await filled.prepare(QUERIES[name])


def test_every_query_is_used() -> None:
    """One that nobody names any more is to be deleted, and one that is named exists."""
    files = [path for package in (app, jobs) for path in Path(package.__path__[0]).rglob("*.py")]
    named = {
        name for path in files for name in re.findall(r'QUERIES\["(\w+)"\]', path.read_text(encoding="utf-8"))
    }
    assert named == set(QUERIES)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", HOT)
async def test_a_hot_query_uses_its_index(filled: asyncpg.Connection[Any], name: str, mode: str) -> None:
    """With the values at hand, and with the generic plan that a prepared statement may get after five runs."""
    await check_plan(filled, name, mode)


@pytest.mark.parametrize("index", sorted(set().union(*(indexes for _, indexes in HOT.values()))))
async def test_a_lost_index_is_noticed(filled: asyncpg.Connection[Any], index: str) -> None:
    """Without it the test above fails for every query that names it."""
    table = await filled.fetchval(
        "SELECT indrelid::regclass::text FROM pg_index WHERE indexrelid = $1::text::regclass", index
    )
    constraint = await filled.fetchval(
        "SELECT conname FROM pg_constraint WHERE conindid = $1::text::regclass", index
    )
    for name in [name for name, (_, indexes) in HOT.items() if index in indexes]:
        async with rolled_back(filled):
            await filled.execute(
                f"ALTER TABLE {table} DROP CONSTRAINT {constraint}" if constraint else f"DROP INDEX {index}"
            )
            with pytest.raises((AssertionError, asyncpg.InvalidColumnReferenceError)):
                await check_plan(filled, name, "force_custom_plan")


@asynccontextmanager
async def rolled_back(connection: asyncpg.Connection[Any]) -> AsyncIterator[None]:
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield
    finally:
        await transaction.rollback()
