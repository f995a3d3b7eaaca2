"""What a tenant may have at a time, and what it is told when it has that."""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

import asyncpg
import msgspec

from app.auth import service
from app.settings import Settings
from tests.http.conftest import Api, aiohttp_session, person, serve
from tests.http.records.test_contacts import add

Db: TypeAlias = "asyncpg.Connection[Any]"
LATER = {"Prefer": "respond-async"}


async def test_unfinished_jobs_are_bounded(settings: Settings, api_key: str, db: Db) -> None:
    """No worker runs, so each file waits; what is answered in the request is no such job."""
    few = msgspec.structs.replace(settings, max_unfinished_jobs=2)
    async with serve(few) as url, aiohttp_session() as session:
        api = Api(session, url, api_key)
        first, second = [await api.push([person(n)], headers=LATER) for n in range(2)]
        assert (first.status, second.status) == (202, 202)
        refused = await api.push([person(3)], key="k", headers=LATER)
        assert (refused.status, refused.json()["code"]) == (429, "QUOTA_EXCEEDED")
        for word in ("2 files", "TRANCHE_MAX_UNFINISHED_JOBS", "cancel"):
            assert word in refused.json()["detail"]
        assert int(refused.headers["Retry-After"]) >= 1
        assert (await api.push([person(3)])).status == 207
        other = api.as_key(await service.create_key(db, "other", ["import"]))
        assert (await other.push([person(1)], headers=LATER)).status == 202
        await api.request("POST", f"/v1/jobs/{first.json()['job_id']}/cancel")
        again = await api.push([person(3)], key="k", headers=LATER)
        assert again.status == 202, "the refusal kept nothing under the key"


async def test_staged_bytes_are_bounded(settings: Settings, api_key: str, db: Db) -> None:
    few = msgspec.structs.replace(settings, max_staged_bytes=150_000)
    rows = b"id,email\n" + b"".join(b"c%d,c%d@example.com\n" % (n, n) for n in range(8_000))
    headers = {"Content-Type": "text/csv"} | LATER
    async with serve(few) as url, aiohttp_session() as session:
        api = Api(session, url, api_key)
        assert (await api.push(rows, headers=headers)).status == 202
        refused = await api.push(rows, headers=headers)
        assert (refused.status, refused.json()["code"]) == (429, "QUOTA_EXCEEDED")
        assert f"{len(rows)} bytes" in refused.json()["detail"]
        assert await db.fetchval("SELECT count(*) FROM jobs") == 1


async def test_a_file_that_grows_beyond_the_quota_ends(settings: Settings, api_key: str, db: Db) -> None:
    """It is refused on its way, says so in its job, and leaves nothing staged."""
    few = msgspec.structs.replace(settings, max_staged_bytes=10_000_000)
    rows = b"id,email\n" + b"".join(b"c%d,c%d@example.com\n" % (n, n) for n in range(1_200_000))
    headers = {"Content-Type": "text/csv"} | LATER
    async with serve(few) as url, aiohttp_session() as session:
        api = Api(session, url, api_key)
        refused = await api.push(rows, headers=headers)
        assert (refused.status, refused.json()["code"]) == (429, "QUOTA_EXCEEDED")
        async with asyncio.timeout(60):
            while await db.fetchval("SELECT count(*) FROM staged_chunks"):
                await asyncio.sleep(0.1)
        (job,) = (await api.get("/v1/jobs")).json()["jobs"]
        assert (job["state"], job["error"]["code"]) == ("failed", "QUOTA_EXCEEDED")


async def test_destinations_are_bounded(settings: Settings, api_key: str, db: Db) -> None:
    few = msgspec.structs.replace(settings, max_destinations=2)
    async with serve(few) as url, aiohttp_session() as session:
        api = Api(session, url, api_key)
        new = {"kind": "hubspot", "base_url": "https://crm.example", "token": "t"}
        statuses = []
        for name in ("a", "b", "c"):
            answer = await api.request("POST", "/v1/destinations", data=msgspec.json.encode(new | {"name": name}))
            statuses.append(answer.status)
        assert statuses == [201, 201, 409]
        assert "TRANCHE_MAX_DESTINATIONS" in answer.json()["detail"]
        assert (await api.request("DELETE", "/v1/destinations/a")).status == 204
        assert (await add(api)).status == 201
