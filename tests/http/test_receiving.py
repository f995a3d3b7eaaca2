"""Bodies too large to be answered at once: stored while they arrive, whole or not at all."""

from __future__ import annotations

import asyncio
import gzip
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import msgspec
import pytest
import zstandard

from app.db.packing import unpack
from app.domain.files.spooled import decode_pieces
from app.domain.rows import Piece, Unfit
from app.settings import Settings
from tests.http.conftest import Answer, Api, aiohttp_session, person, serve

CSV = {"Content-Type": "text/csv"}
NDJSON = {"Content-Type": "application/x-ndjson"}
LATER = {"Prefer": "respond-async"}


def rows(count: int) -> bytes:
    return b"id,email\n" + b"".join(b"c%d,c%d@example.com\n" % (n, n) for n in range(count))


def lines(count: int) -> bytes:
    return b"".join(msgspec.json.encode(person(n)) + b"\n" for n in range(count))


async def spooled(db: asyncpg.Connection[Any], job_id: str) -> list[Piece]:
    """Everything that a job's spool holds, in order and without a gap."""
    found: list[Piece] = []
    for chunk in await db.fetch(
        "SELECT * FROM spool_chunks WHERE job_id = $1 ORDER BY first_index", uuid.UUID(job_id)
    ):
        pieces = decode_pieces(unpack(chunk["rows"]))
        assert (chunk["first_index"], chunk["item_count"]) == (len(found), len(pieces))
        assert len(chunk["id_hashes"]) == len(pieces)
        found += pieces
    return found


async def job_of(db: asyncpg.Connection[Any], job_id: str) -> dict[str, Any]:
    row = await db.fetchrow("SELECT * FROM jobs WHERE job_id = $1", uuid.UUID(job_id))
    assert row is not None
    return dict(row)


def ids(pieces: list[Piece]) -> list[str | None]:
    return [None if isinstance(p, Unfit) else msgspec.json.decode(p).get("id") for p in pieces]


@pytest.fixture
async def small(settings: Settings, api_key: str) -> AsyncIterator[Api]:
    """A service that answers ten items at once, and stores chunks of four."""
    tight = msgspec.structs.replace(
        settings, max_sync_items=10, max_sync_bytes=2_000, import_chunk_items=4, max_json_items=50
    )
    async with serve(tight) as url, aiohttp_session() as session:
        yield Api(session, url, api_key)


def taken(answer: Answer) -> str:
    """The id of the job that a 202 told of."""
    assert answer.status == 202, answer.body
    body = answer.json()
    job_id: str = body["job_id"]
    assert body == {
        "job_id": job_id,
        "state": "queued",
        "status_url": f"/v1/jobs/{job_id}",
        "items_url": f"/v1/jobs/{job_id}/items",
        "cancel_url": f"/v1/jobs/{job_id}/cancel",
        "effects": {"db": "pending"},
    }
    assert answer.headers["Location"] == f"/v1/jobs/{job_id}"
    assert 1 <= int(answer.headers["Retry-After"]) <= 10
    return job_id


@pytest.mark.parametrize(
    ("body", "headers"), [(rows(11), CSV), (lines(11), NDJSON), (rows(300), CSV), (lines(300), NDJSON)]
)
async def test_what_cannot_be_answered_at_once_is_stored(
    small: Api, db: asyncpg.Connection[Any], body: bytes, headers: dict[str, str]
) -> None:
    answer = await small.push(body, headers=headers, key="k")
    job_id = taken(answer)
    count = 11 if len(body) < 2_000 else 300
    assert ids(await spooled(db, job_id)) == [f"c{n}" for n in range(count)]
    job = await job_of(db, job_id)
    assert (job["state"], job["step"], job["items"], job["bytes"]) == ("queued", "check", count, len(body))
    assert job["receiving_until"] is None
    again = await small.push(body, headers=headers, key="k")
    assert (again.status, again.body) == (202, answer.body)
    assert again.headers["Idempotency-Replayed"] == "true"
    other = await small.push(body[:-3] + b"\n", headers=headers, key="k")
    assert (other.status, other.json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert await db.fetchval("SELECT count(*) FROM jobs") == 1


@pytest.mark.parametrize(
    ("body", "headers"), [(rows(2), CSV), (lines(2), NDJSON), (b"id,email\n", CSV), (b"", NDJSON)]
)
async def test_who_prefers_it_is_answered_before_the_work_is_done(
    small: Api, db: asyncpg.Connection[Any], body: bytes, headers: dict[str, str]
) -> None:
    answer = await small.push(body, headers=headers | LATER)
    job = await job_of(db, taken(answer))
    assert answer.headers["Preference-Applied"] == "respond-async"
    assert (job["state"], job["items"]) == ("queued", len(await spooled(db, answer.json()["job_id"])))
