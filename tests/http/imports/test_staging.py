"""Bodies too large to be answered at once: stored while they arrive, whole or not at all."""

from __future__ import annotations

import asyncio
import gzip
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import msgspec
import pytest
import zstandard

from app.files.staging_codec import decode_pieces
from app.kit.compression import unpack
from app.resources.decoding import Piece, UnreadablePiece
from app.settings import Settings
from tests.http.conftest import Answer, Api, aiohttp_session, person, serve

CSV = {"Content-Type": "text/csv"}
NDJSON = {"Content-Type": "application/x-ndjson"}
LATER = {"Prefer": "respond-async"}


def rows(count: int) -> bytes:
    return b"id,email\n" + b"".join(b"c%d,c%d@example.com\n" % (n, n) for n in range(count))


def lines(count: int) -> bytes:
    return b"".join(msgspec.json.encode(person(n)) + b"\n" for n in range(count))


async def read_staged(db: asyncpg.Connection[Any], job_id: str) -> list[Piece]:
    """Everything that a staged chunks hold, in order and without a gap."""
    found: list[Piece] = []
    for chunk in await db.fetch(
        "SELECT * FROM staged_chunks WHERE job_id = $1 ORDER BY first_index", uuid.UUID(job_id)
    ):
        pieces, *_ = decode_pieces(unpack(chunk["rows"]))
        assert (chunk["first_index"], chunk["item_count"]) == (len(found), len(pieces))
        assert len(chunk["id_hashes"]) == len(pieces)
        found += pieces
    return found


async def job_of(db: asyncpg.Connection[Any], job_id: str) -> dict[str, Any]:
    row = await db.fetchrow("SELECT * FROM jobs WHERE job_id = $1", uuid.UUID(job_id))
    assert row is not None
    return dict(row)


def ids(pieces: list[Piece]) -> list[str | None]:
    return [None if isinstance(p, UnreadablePiece) else msgspec.json.decode(p).get("id") for p in pieces]


@pytest.fixture
async def small(settings: Settings, api_key: str) -> AsyncIterator[Api]:
    """A service that answers ten items at once, and stores chunks of seven; leases outlast every test."""
    tight = msgspec.structs.replace(
        settings,
        max_sync_items=10,
        max_sync_bytes=2_000,
        import_chunk_items=7,
        max_json_items=50,
        receive_lease=600.0,
        body_timeout=600.0,
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
        "events_url": f"/v1/jobs/{job_id}/events",
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
    assert ids(await read_staged(db, job_id)) == [f"c{n}" for n in range(count)]
    job = await job_of(db, job_id)
    assert (job["state"], job["step"], job["items"], job["bytes"]) == ("queued", "check", count, len(body))
    assert job["receiving_until"] is None
    again = await small.push(body, headers=headers, key="k")
    assert (again.status, again.body) == (202, answer.body)
    assert again.headers["Idempotency-Replayed"] == "true"
    other = await small.push(body[:-3] + b"\n", headers=headers, key="k")
    assert (other.status, other.json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert await db.fetchval("SELECT count(*) FROM jobs") == 1


@pytest.mark.parametrize(("body", "headers"), [(rows(2), CSV), (lines(2), NDJSON), (b"id,email\n", CSV), (b"", NDJSON)])
async def test_who_prefers_it_is_answered_before_the_work_is_done(
    small: Api, db: asyncpg.Connection[Any], body: bytes, headers: dict[str, str]
) -> None:
    answer = await small.push(body, headers=headers | LATER)
    job = await job_of(db, taken(answer))
    assert answer.headers["Preference-Applied"] == "respond-async"
    assert (job["state"], job["items"]) == ("queued", len(await read_staged(db, answer.json()["job_id"])))


def json_body(count: int) -> bytes:
    return msgspec.json.encode({"items": [person(n) for n in range(count)]})


async def test_json_beyond_the_limit_of_a_request_is_stored_too(small: Api, db: asyncpg.Connection[Any]) -> None:
    for count in (11, 50):
        job_id = taken(await small.push(json_body(count)))
        assert ids(await read_staged(db, job_id)) == [f"c{n}" for n in range(count)]
    assert (await small.push(json_body(10), headers=LATER)).status == 202
    assert (await small.push(b'{"items":[]}', headers=LATER)).status == 202
    refused = await small.push(json_body(51), key="k")
    assert (refused.status, refused.json()["code"]) == (413, "REQUEST_TOO_LARGE")
    assert "50 items" in refused.json()["detail"]
    assert "x-ndjson" in refused.json()["detail"]
    assert (await small.push(json_body(3), key="k")).status == 207


async def test_a_body_that_proves_malformed_leaves_a_failed_job_and_nothing_else(
    small: Api, db: asyncpg.Connection[Any]
) -> None:
    """Chunks were stored before the fault was seen; one seen earlier leaves no job at all."""
    for body, headers, code in (
        (json_body(40)[:-2] + b', "x"', {}, "MALFORMED_REQUEST"),
        (rows(6_000) + "c,é\n".encode("cp1252"), CSV, "MALFORMED_REQUEST"),
    ):
        answer = await small.push(body, headers=headers, key="k")
        assert (answer.status, answer.json()["code"]) == (400, code)
        assert answer.headers["Idempotency-Key"] == "k"
        job = await db.fetchrow("SELECT * FROM jobs ORDER BY job_id DESC LIMIT 1")
        assert job is not None
        error = msgspec.json.decode(job["error"])
        assert (job["state"], error) == ("failed", {"code": code, "detail": answer.json()["detail"]})
        assert job["finished_at"] is not None
        assert await read_staged(db, str(job["job_id"])) == []
    count = await db.fetchval("SELECT count(*) FROM jobs")
    for body, headers in ((b"Customer,email\n" + b"x,y\n" * 4_000, CSV), (b"[" * 4_000, LATER)):
        answer = await small.push(body, headers=headers, key="k")
        assert answer.status == 400, answer.body
    assert await db.fetchval("SELECT count(*) FROM jobs") == count
    assert await db.fetchval("SELECT count(*) FROM idempotency_keys") == 0
    assert (await small.push(json_body(1), key="k")).status == 207


async def test_compressed_bodies_are_stored_as_what_they_hold(small: Api, db: asyncpg.Connection[Any]) -> None:
    body = rows(5_000)
    half = body.index(b"\n", len(body) // 2) + 1
    for packed, encoding in (
        (gzip.compress(body), "gzip"),
        (gzip.compress(body[:half]) + gzip.compress(body[half:]), "gzip"),
        (zstandard.compress(body), "zstd"),
        (zstandard.compress(body[:half]) + zstandard.compress(body[half:]), "zstd"),
    ):
        job_id = taken(await small.push(packed, headers=CSV | {"Content-Encoding": encoding}))
        assert ids(await read_staged(db, job_id)) == [f"c{n}" for n in range(5_000)]
        assert (await job_of(db, job_id))["bytes"] == len(body)
        cut = await small.push(packed[:-40], headers=CSV | {"Content-Encoding": encoding})
        assert cut.status == 400
        assert "cut off" in cut.json()["detail"]


async def test_limits_name_themselves_and_the_remedy(settings: Settings, api_key: str) -> None:
    tight = msgspec.structs.replace(
        settings,
        max_sync_items=10,
        max_sync_bytes=1_000,
        max_file_bytes=20_000_000,
        max_atomic_items=30,
        max_atomic_bytes=5_000,
    )
    async with serve(tight) as url, aiohttp_session() as session:
        api = Api(session, url, api_key)
        wide = b"id,email\n" + b"x" * 6_000
        cases = (
            (rows(31), "?atomic=true", {}, ["at most 30 items", "locks"]),
            (wide, "?atomic=true", {}, ["5000 bytes", "locks", "20000000"]),
            (gzip.compress(wide), "?atomic=true", {"Content-Encoding": "gzip"}, ["5000 bytes"]),
            (b"\n" * 20_000_001, "", {}, ["20000000 bytes", "several requests"]),
            (gzip.compress(b"\n" * 15_000_000), "", {"Content-Encoding": "gzip"}, ["250 times"]),
            (zstandard.compress(b"\n" * 15_000_000), "", {"Content-Encoding": "zstd"}, ["250 times"]),
        )
        for body, query, headers, words in cases:
            answer = await api.push(body, query=query, headers=CSV | headers, key="k")
            assert (answer.status, answer.json()["code"]) == (413, "REQUEST_TOO_LARGE"), query
            assert all(word in answer.json()["detail"] for word in words), answer.json()["detail"]
        fitting = await api.push(rows(30), query="?atomic=true", headers=CSV, key="k")
        assert fitting.status == 202


async def test_atomic_and_dry_run_hold_for_what_is_stored(small: Api, db: asyncpg.Connection[Any]) -> None:
    answer = await small.push(rows(20), query="?atomic=true&on_duplicate=last_wins", headers=CSV)
    job = await job_of(db, taken(answer))
    assert (job["step"], msgspec.json.decode(job["options"])) == (
        "atomic",
        {"atomic": True, "last_wins": True, "dry_run": False, "consistency": "none"},
    )
    dry = await small.push(rows(20), query="?dry_run=true", headers=CSV)
    assert (dry.status, dry.json()["dry_run"], dry.json()["effects"]) == (202, True, {"db": "skipped"})


async def head(api: Api, key: str, length: int, media_type: str = "text/csv") -> Any:
    """A connection on which a request has begun, as no client library would send it."""
    host, _, port = api.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"POST /v1/contacts:bulk HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {api.key}\r\n"
        f"idempotency-key: {key}\r\ncontent-type: {media_type}\r\ncontent-length: {length}\r\n\r\n".encode()
    )
    return reader, writer


async def until(db: asyncpg.Connection[Any], state: str, *, seconds: float = 45.0) -> dict[str, Any]:
    """The one job there is, once it is in this state."""
    for _ in range(int(seconds / 0.05)):
        job = await db.fetchrow("SELECT * FROM jobs")
        if job is not None and job["state"] == state:
            return dict(job)
        await asyncio.sleep(0.05)
    raise AssertionError(f"no job became {state}: {job}")


async def test_a_client_that_disconnects_leaves_a_canceled_job_and_a_free_key(
    small: Api, db: asyncpg.Connection[Any]
) -> None:
    body = rows(2_000)
    _, writer = await head(small, "k", len(body))
    writer.write(body[:-5_000])
    job = await until(db, "receiving")
    seen = (await small.get("/v1/idempotency-keys/k")).json()
    assert (seen["state"], seen["job_id"]) == ("running", str(job["job_id"]))
    assert seen["status_url"] == f"/v1/jobs/{job['job_id']}"
    assert "status" not in seen
    busy = await small.push(body, headers=CSV, key="k")
    assert (busy.status, busy.json()["code"]) == (409, "IDEMPOTENCY_KEY_IN_USE")
    assert 1 <= int(busy.headers["Retry-After"]) <= 5
    assert (await small.push(rows(1), headers=CSV, key="k")).status == 409
    writer.close()
    job = await until(db, "canceled")
    assert msgspec.json.decode(job["error"])["code"] == "UPLOAD_INTERRUPTED"
    assert await read_staged(db, str(job["job_id"])) == []
    assert await db.fetchval("SELECT count(*) FROM records") == 0
    assert (await small.get("/v1/idempotency-keys/k")).status == 404
    assert ids(await read_staged(db, taken(await small.push(body, headers=CSV, key="k"))))[-1] == "c1999"


async def test_a_lost_answer_is_found_again(small: Api, db: asyncpg.Connection[Any]) -> None:
    """The connection goes after the last byte, before the answer."""
    body = rows(2_000)
    _, writer = await head(small, "k", len(body))
    writer.write(body)
    await writer.drain()
    job = await until(db, "queued")
    writer.close()
    again = await small.push(body, headers=CSV, key="k")
    assert taken(again) == str(job["job_id"])
    assert again.headers["Idempotency-Replayed"] == "true"
    key = (await small.get("/v1/idempotency-keys/k")).json()
    assert (key["state"], key["status"]) == ("completed", 202)


async def test_a_job_canceled_while_its_body_arrives_ends_the_upload(
    settings: Settings, api_key: str, db: asyncpg.Connection[Any]
) -> None:
    quick = msgspec.structs.replace(settings, max_sync_bytes=1_000, receive_lease=0.8, import_chunk_items=50)
    async with serve(quick) as url, aiohttp_session() as session:
        api = Api(session, url, api_key)
        body = rows(5_000)
        reader, writer = await head(api, "k", len(body))
        writer.write(body[:50_000])
        job = await until(db, "receiving")
        canceled = await api.request("POST", f"/v1/jobs/{job['job_id']}/cancel")
        assert canceled.status == 200
        answer = await asyncio.wait_for(reader.readuntil(b"JOB_CANCELED"), 60)
        assert answer.startswith(b"HTTP/1.1 409")
        writer.close()
        assert await read_staged(db, str(job["job_id"])) == []
        assert (await api.push(rows(1), headers=CSV, key="k")).status == 207


async def test_a_slow_body_keeps_its_lease_and_a_stalled_one_ends(
    settings: Settings, api_key: str, db: asyncpg.Connection[Any]
) -> None:
    # A heartbeat comes every two seconds: the lease outlasts a stall of the machine, the body more than one heartbeat.
    quick = msgspec.structs.replace(
        settings, max_sync_bytes=1_000, receive_lease=8.0, body_timeout=9.0, import_chunk_items=50
    )
    async with serve(quick) as url, aiohttp_session() as session:
        api = Api(session, url, api_key)
        body = rows(5_000)
        reader, writer = await head(api, "k", len(body))
        writer.write(body[:50_000])
        lease = (await until(db, "receiving"))["receiving_until"]
        async with asyncio.timeout(60):
            while (await until(db, "receiving"))["receiving_until"] == lease:
                assert (await api.push(body, headers=CSV, key="k")).status == 409
                await asyncio.sleep(0.1)
        assert (await api.push(body, headers=CSV, key="k")).status == 409
        answer = await asyncio.wait_for(reader.readuntil(b"BODY_TIMEOUT"), 60)
        assert answer.startswith(b"HTTP/1.1 408")
        writer.close()
        job = await until(db, "failed")
        assert msgspec.json.decode(job["error"])["code"] == "BODY_TIMEOUT"


async def test_an_upload_of_a_dead_process_is_given_up(small: Api, db: asyncpg.Connection[Any]) -> None:
    """What a killed process leaves behind, as its lease runs out: the next request under the key goes on at once."""
    body = rows(200)
    sent = body[:-500]
    stored = (sent.count(b"\n") - 1) // 7 * 7
    for later in (False, True):
        _, writer = await head(small, f"k{later}", len(body))
        writer.write(sent)
        job_id = None
        async with asyncio.timeout(60):
            # Each chunk renews the lease, so it is like that of a dead process once the last of them is there.
            while job_id is None:
                await asyncio.sleep(0.05)
                job_id = await db.fetchval(
                    """SELECT job_id FROM jobs j JOIN staged_chunks s USING (tenant_id, job_id)
                    WHERE j.state = 'receiving' GROUP BY job_id HAVING sum(s.item_count) = $1""",
                    stored,
                )
        await db.execute("UPDATE jobs SET receiving_until = now() WHERE job_id = $1", job_id)
        await db.execute("UPDATE idempotency_keys SET answering_until = now() WHERE job_id = $1", job_id)
        assert (await small.get(f"/v1/idempotency-keys/k{later}")).status == 404
        answer = await small.push(rows(1), key=f"k{later}", headers=CSV | (LATER if later else {}))
        assert answer.status == (202 if later else 207)
        dead = await job_of(db, str(job_id))
        assert (dead["state"], msgspec.json.decode(dead["error"])["code"]) == ("canceled", "UPLOAD_INTERRUPTED")
        writer.close()
        async with asyncio.timeout(60):
            while await read_staged(db, str(job_id)):  # the process that received it removes it, or a sweeper
                await asyncio.sleep(0.05)
        assert (await small.get(f"/v1/idempotency-keys/k{later}")).json()["state"] == "completed"
