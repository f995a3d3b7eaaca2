"""Each outcome of a CSV or NDJSON body names the line that its item begins in, however the body is taken."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import msgspec
import pytest

from app.kit.postgres.database import Database
from app.settings import Settings
from tests.db.conftest import Desk
from tests.db.staging import process
from tests.http.conftest import Answer, Api, aiohttp_session, person, serve
from tests.http.imports.test_staging import CSV, NDJSON, taken

TABLE = (
    b"\r\nid,email,company\r\n"  # an empty line before the header
    b"a,a@example.com,One\r\n"
    b'b,b@example.com,"Two\r\nlines"\r\n'
    b"\r\n"
    b",,\r\n"
    b"c,nothing,\r\n"
    b"d,d@example.com\r\n"
    b"a,a@example.com,One\r\n"
    b'e,e@example.com,"Open\r\n'
    b"f,f@example.com,\r\n"
)
TABLE_LINES = [("a", 3), ("b", 4), ("c", 8), (None, 9), ("a", 10), (None, 11), ("f", 12)]
OBJECTS = b"\n".join(
    [msgspec.json.encode(person(0)), b"", b"nonsense", msgspec.json.encode(person(1)), msgspec.json.encode(person(0))]
)
OBJECT_LINES = [("c0", 1), (None, 3), ("c1", 4), ("c0", 5)]
BODIES = pytest.mark.parametrize(
    ("body", "headers", "lines"), [(TABLE, CSV, TABLE_LINES), (OBJECTS, NDJSON, OBJECT_LINES)], ids=["csv", "ndjson"]
)


def lines_of(answer: Answer) -> list[tuple[str | None, int]]:
    return [(item["id"], item["line"]) for item in answer.json()["items"]]


@pytest.fixture
async def tiny(settings: Settings, api_key: str) -> AsyncIterator[Api]:
    """A service that stores every file, in chunks of two."""
    tight = msgspec.structs.replace(settings, max_sync_bytes=10, import_chunk_items=2)
    async with serve(tight) as url, aiohttp_session() as session:
        yield Api(session, url, api_key)


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    database = Database(settings, application_name="tests")
    yield database
    await database.close()


@BODIES
async def test_an_answer_names_lines(
    api: Api, body: bytes, headers: dict[str, str], lines: list[tuple[str | None, int]]
) -> None:
    answer = await api.push(body, headers=headers)
    assert lines_of(answer) == lines
    assert lines_of(await api.get(f"/v1/jobs/{answer.json()['job_id']}/items")) == lines


@BODIES
@pytest.mark.parametrize("query", ["", "?atomic=true"])
async def test_the_items_of_a_stored_file_name_lines(
    tiny: Api,
    settings: Settings,
    database: Database,
    db: asyncpg.Connection[Any],
    body: bytes,
    headers: dict[str, str],
    lines: list[tuple[str | None, int]],
    query: str,
) -> None:
    """Also those that got their outcome from another item, in another chunk."""
    job_id = taken(await tiny.push(body, query=query, headers=headers))
    tenant_id = await db.fetchval("SELECT tenant_id FROM jobs WHERE job_id = $1", uuid.UUID(job_id))
    await process(Desk(settings, database, tenant_id), uuid.UUID(job_id))
    assert lines_of(await tiny.get(f"/v1/jobs/{job_id}/items")) == lines
    failed = await tiny.get(f"/v1/jobs/{job_id}/items?status=failed")
    assert {line for _, line in lines_of(failed)} <= {line for _, line in lines}


async def test_json_has_no_lines(api: Api) -> None:
    answer = await api.push([person(0), {}])
    assert ["line" in item for item in answer.json()["items"]] == [False, False]
