"""Pages of a job with a million items: few rows are touched, wherever the few items stand that are asked for."""

from __future__ import annotations

import asyncio
import json
import os
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from app.embedded import Engines
from app.files.staging_codec import encode_sources
from app.job_status.items.item_filter import Filter
from app.job_status.items.queries import JobRef
from app.job_status.items.service import read_items
from app.kit.compression import pack
from app.kit.postgres.sql import QUERIES
from tests.conftest import TEMPLATE, with_path

CHUNKS = 1_000
SIZE = 1_000
JOB = uuid.UUID("01990000-0000-7000-8000-000000000001")
ORDINARY = uuid.UUID("01990000-0000-7000-8000-000000000002")
FAILED_AT = 987_654
"""The only item that failed here."""
REFUSED_AT = 912_345
"""The only one that a destination refused, and the only one whose answer got lost."""
UNKNOWN_AT = 700_001
SKIPPED_AT = 654_321

_JOBS = """
INSERT INTO tenants (name) VALUES ('acme');
INSERT INTO destinations (tenant_id, name, kind, base_url, credentials)
SELECT 1, n, 'hubspot', 'http://127.0.0.1:9', '\\x00' FROM unnest('{hubspot,other}'::text[]) n;
INSERT INTO jobs (
    tenant_id, job_id, kind, type, state, root_job_id, request_id, key_id, total, succeeded, failed, retry, items
)
SELECT 1, j, 'import', 'contacts', 'syncing', j, 'r', 'k', $n, $n - 1, 1, 0, $n
FROM unnest(ARRAY['$a'::uuid, '$b'::uuid]) j;
INSERT INTO effects (tenant_id, job_id, destination_id, ok, failed, unknown, skipped)
SELECT 1, j, d, $n - 3, 1, 1, 1 FROM unnest(ARRAY['$a'::uuid, '$b'::uuid]) j, generate_series(1, 2) d;
INSERT INTO deliveries (
    tenant_id, destination_id, type_id, job_id, request_id, first_index, last_index, record_ids, versions, indexes,
    states,
    state
)
SELECT
    1, d, 1, '$a'::uuid, 'r', f, f + 99, ARRAY(SELECT 'c' || i FROM generate_series(f, f + 99) i),
    array_fill(1, ARRAY[100]), ARRAY(SELECT generate_series(f, f + 99)), repeat('o', 100), 'done'
FROM generate_series(1, 2) d, generate_series(0, $n - 100, 100) f;
INSERT INTO record_versions (tenant_id, job_id, first_index, indexes, versions)
SELECT
    1, '$a'::uuid, f, ARRAY(SELECT generate_series(f, f + 99)),
    ARRAY[CASE WHEN f BETWEEN 912000 AND 912900 THEN convert_to((
        SELECT jsonb_agg(jsonb_build_array(
            'c' || i, 1, NULL, false, jsonb_build_object('email', 'c' || i || '@example.com'), NULL
        ) ORDER BY i)::text
        FROM generate_series(f, f + 99) i
    ), 'UTF8') ELSE '' END]
FROM generate_series(0, $n - 100, 100) f;
"""
_ODD = """
UPDATE deliveries
SET states = overlay(states PLACING $3 FROM $2 - first_index + 1 FOR 1),
    errors = jsonb_build_object(($2 - first_index)::text, '{"code": "DESTINATION_REJECTED", "detail": "no"}'::jsonb),
    failures = CASE WHEN $3 = 'f' THEN '{"DESTINATION_REJECTED": {"count": 1, "samples": []}}' ELSE failures END,
    state = CASE WHEN $3 = 'u' THEN 'pending' ELSE state END
WHERE job_id = $1 AND destination_id = 1 AND first_index <= $2 AND last_index >= $2
"""


def _chunk(number: int) -> tuple[Any, ...]:
    first = number * SIZE
    outcomes = [
        b'{"index":%d,"id":"c%d","status":"ok","result":"created","version":1}' % (index, index)
        for index in range(first, first + SIZE)
    ]
    failures, sources = "{}", None
    if first <= FAILED_AT < first + SIZE:
        outcomes[FAILED_AT - first] = (
            b'{"index":%d,"id":"bad","status":"failed","error_code":"INVALID_EMAIL","retry_after_seconds":0}'
            % FAILED_AT
        )
        failures = '{"INVALID_EMAIL": {"count": 1, "samples": [987654]}}'
        sources = pack(encode_sources({FAILED_AT: b'{"id":"bad","email":"nonsense"}'}))
    return 1, JOB, first, SIZE, failures, pack(b"[" + b",".join(outcomes) + b"]"), sources


async def _fill(url: str) -> None:
    connection = await asyncpg.connect(url)
    statements = _JOBS.replace("$n", str(CHUNKS * SIZE)).replace("$a", str(JOB)).replace("$b", str(ORDINARY))
    await connection.execute(statements)
    columns = ("tenant_id", "job_id", "first_index", "item_count", "failures", "outcomes", "sources")
    await connection.copy_records_to_table(
        "job_chunks", records=(_chunk(number) for number in range(CHUNKS)), columns=columns
    )
    for index, dead_letter in ((REFUSED_AT, "f"), (UNKNOWN_AT, "u"), (SKIPPED_AT, "s")):
        await connection.execute(_ODD, JOB, index, dead_letter)
    await connection.execute("VACUUM ANALYZE")
    await connection.close()


@pytest.fixture(scope="module")
def large_url(engines: Engines) -> Iterator[str]:
    """A database with one job of a million items, all sound but a handful; for reading only."""
    name = f"test_large_{os.getpid()}"

    async def run(statement: str) -> None:
        admin = await asyncpg.connect(engines.urls.database_url)
        await admin.execute(statement)
        await admin.close()

    asyncio.run(run(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY file_copy"))
    asyncio.run(_fill(with_path(engines.urls.database_url, name)))
    yield with_path(engines.urls.database_url, name)
    asyncio.run(run(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
async def large(large_url: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(large_url, server_settings={"jit": "off"})
    yield connection
    await connection.close()


RARE = [
    (Filter(status="failed"), FAILED_AT),
    (Filter(error_code="INVALID_EMAIL"), FAILED_AT),
    (Filter(error_code="INVALID_EMAIL", destination="db", status="failed"), FAILED_AT),
    (Filter(error_code="DESTINATION_REJECTED"), REFUSED_AT),
    (Filter(destination="hubspot", status="failed"), REFUSED_AT),
    (Filter(destination="hubspot", error_code="DESTINATION_REJECTED", status="failed"), REFUSED_AT),
    (Filter(destination="hubspot", status="unknown"), UNKNOWN_AT),
]


@pytest.mark.parametrize(("wanted", "index"), RARE)
async def test_one_item_of_a_million_is_found_by_reading_little(
    large: asyncpg.Connection[Any], wanted: Filter, index: int
) -> None:
    """Counted in pages of 8 KB: the whole job has some twenty thousand of them."""
    before = await _pages(large)
    page = await read_items(JobRef(large, 1, JOB), wanted, first=0, limit=100)
    assert [item.index for item in page.items] == [index]
    assert page.position is None
    assert await _pages(large) - before < 600


async def _pages(connection: asyncpg.Connection[Any]) -> int:
    """Pages of tables and indexes that were touched so far, from memory or from disk."""
    await connection.execute("SELECT pg_stat_force_next_flush()")
    await connection.execute("SELECT pg_stat_clear_snapshot()")
    found: int = await connection.fetchval(
        "SELECT sum(heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read"
        " + coalesce(toast_blks_hit + toast_blks_read, 0))::int FROM pg_statio_user_tables"
    )
    return found


async def test_a_rare_word_without_an_index_takes_few_requests(large: asyncpg.Connection[Any]) -> None:
    """`skipped` is looked for in half a million items at a time."""
    wanted = Filter(destination="hubspot", status="skipped")
    page = await read_items(JobRef(large, 1, JOB), wanted, first=0, limit=100)
    assert [item.index for item in page.items] == [SKIPPED_AT]
    assert page.position is None


@pytest.mark.parametrize("wanted", [Filter(), Filter(status="ok"), Filter(destination="other", status="ok")])
async def test_a_page_at_the_far_end_costs_no_more_than_the_first(
    large: asyncpg.Connection[Any], wanted: Filter
) -> None:
    before = await _pages(large)
    page = await read_items(JobRef(large, 1, JOB), wanted, first=990_000, limit=100)
    assert [item.index for item in page.items] == list(range(990_000, 990_100))
    assert page.position == 990_100
    assert await _pages(large) - before < 3_000


async def test_a_page_looks_at_a_bounded_number_of_items(
    large: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A status that every run could hold and none does: the page is short, and its cursor goes on behind it."""
    monkeypatch.setattr("app.job_status.items.service.MOST", 4_000)
    wanted = Filter(status="ok", destination="db", error_code="INVALID_EMAIL")
    assert (await read_items(JobRef(large, 1, JOB), wanted, first=0, limit=5)).items == []
    wanted = Filter(destination="hubspot", status="ok", error_code="DESTINATION_REJECTED")
    assert (await read_items(JobRef(large, 1, JOB), wanted, first=0, limit=5)).items == []
    page = await read_items(JobRef(large, 1, JOB), Filter(status="ok"), first=0, limit=1_000)
    assert len(page.items) == 1_000
    assert page.position == 1_000


CALLS = {
    "next_faulty_chunks": f"1, '{JOB}', 0, 256, '{{INVALID_EMAIL}}'",
    "next_faulty_deliveries": f"1, '{JOB}', 1, 0, 256, 'DESTINATION_REJECTED', '[f]'",
    "next_open_deliveries": f"1, '{JOB}', 1, 0, 256, '[u]'",
    "next_chunks": f"1, '{JOB}', 990000, 1",
    "next_sound_chunks": f"1, '{JOB}', 990000, 1",
    "next_deliveries": f"1, '{JOB}', 1, 990000, 999999, 3, '[o]'",
    "chunks_in": f"1, '{JOB}', '{{0,500000,999900}}', '{{9,500009,999999}}'",
    "sources_in": f"1, '{JOB}', '{{0,500000,999900}}', '{{9,500009,999999}}'",
    "deliveries_in": f"1, '{JOB}', '{{0,500000,999900}}', '{{9,500009,999999}}'",
    "chunks_with_versions": f"1, '{{{JOB},{JOB},{JOB}}}', '{{912000,912500,912999}}'",
}


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("name", CALLS)
async def test_the_plan_at_scale_reads_what_it_returns(large: asyncpg.Connection[Any], name: str, mode: str) -> None:
    """Under EXPLAIN ANALYZE: no scan reads a table from end to end, and few rows are looked at and thrown away."""
    await large.execute(f"SET plan_cache_mode = {mode}")
    await large.execute(f"PREPARE {name} AS {QUERIES[name]}")
    text = await large.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE {name}({CALLS[name]})")
    (plan,) = json.loads(text)
    root = plan["Plan"]
    assert root["Shared Hit Blocks"] + root["Shared Read Blocks"] < 200, text
    for table in ("job_chunks", "deliveries", "record_versions"):
        assert not re.search(rf'"Node Type": "Seq Scan",[^}}]*"Relation Name": "{table}"', text), text


async def test_the_whole_job_is_read_once_by_its_cursors(large: asyncpg.Connection[Any]) -> None:
    """From a place near the end on, every item comes, in order, exactly once."""
    seen: list[int] = []
    position: int | None = 995_500
    while position is not None:
        page = await read_items(JobRef(large, 1, JOB), Filter(), first=position, limit=700)
        seen += [item.index for item in page.items]
        position = page.position
    assert seen == list(range(995_500, CHUNKS * SIZE))
