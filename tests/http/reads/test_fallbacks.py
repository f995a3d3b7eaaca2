"""Reads go on while PostgreSQL is stopped, hangs or only reads; what is answered says that it is old."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg
import msgspec
import psutil
import pytest
from redis.asyncio import Redis

from app.auth import service
from app.embedded import Engines
from app.http.reads import WARNING
from app.monitoring.counters import collect
from app.settings import Settings
from tests.conftest import quick
from tests.http.conftest import Answer, Api, aiohttp_session, person, serve
from tests.http.records.test_contacts import add

CANARY = "canary.4711@example.com"


def settings_of(engines: Engines, **changes: Any) -> Settings:
    waits: dict[str, Any] = {"db_connect_timeout": 5.0, "db_acquire_timeout": 5.0, "db_read_timeout": 0.5}
    return quick(*engines.app_urls, **(waits | changes))


@asynccontextmanager
async def served(settings: Settings) -> AsyncIterator[Api]:
    async with serve(settings) as url, aiohttp_session() as session:
        yield Api(session, url, None)


async def make_key(engines: Engines, *scopes: str, tenant: str = "acme") -> str:
    connection = await asyncpg.connect(engines.urls.database_url)
    try:
        return await service.create_key(connection, tenant, list(scopes))
    finally:
        await connection.close()


async def fill(api: Api) -> list[str]:
    """A destination and a job; paths of all that can then be read."""
    assert (await add(api)).status == 201
    pushed = await api.push([person(1, email=CANARY), person(2, email="no address")])
    job = pushed.json()["job_id"]
    return [
        f"/v1/jobs/{job}",
        "/v1/jobs",
        "/v1/jobs?limit=1",
        f"/v1/jobs/{job}/items",
        f"/v1/jobs/{job}/items?status=failed&limit=1",
        "/v1/contacts/c1",
        "/v1/contacts/c1/history",
        "/v1/contacts",
        "/v1/destinations",
        "/v1/destinations/hubspot",
    ]


async def read_all(api: Api, paths: list[str]) -> dict[str, Any]:
    documents = {}
    for path in paths:
        answer = await api.get(path)
        assert answer.status == 200, (path, answer.body)
        documents[path] = answer.json()
        assert "stale" not in documents[path]
        assert "Warning" not in answer.headers
    return documents


def check_stale(answer: Answer, document: Any) -> None:
    assert answer.status == 200, answer.body
    told = answer.json()
    assert told.pop("stale") is True
    assert 0 <= told.pop("age_seconds") <= 120
    assert told == document
    assert answer.headers["Warning"] == WARNING
    assert answer.headers["Cache-Control"] == "no-store"
    assert "ETag" not in answer.headers


def check_unavailable(answer: Answer) -> None:
    assert answer.status == 503, answer.body
    assert int(answer.headers["Retry-After"]) >= 1


def count(kind: str, source: str) -> float:
    return collect().get_sample_value("tranche_reads_total", {"kind": kind, "source": source}) or 0.0


@contextmanager
def frozen(engines: Engines) -> Iterator[None]:
    """PostgreSQL hangs: it accepts connections and never answers."""
    assert engines.postgres.child is not None
    postmaster = psutil.Process(engines.postgres.child.pid)
    processes = [postmaster, *postmaster.children(recursive=True)]
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGCONT)


async def test_reads_go_on_while_postgresql_is_stopped(own_engines: Engines) -> None:
    key = await make_key(own_engines, "import", "read", "admin")
    fresh_key = await make_key(own_engines, "read")
    async with served(settings_of(own_engines)) as nobody:
        api = nobody.as_key(key)
        paths = await fill(api)
        documents = await read_all(api, paths)
        tag = (await api.get(paths[0])).headers["ETag"]
        before = {kind: count(kind, "redis") + count(kind, "memory") for kind in ("job", "item", "record")}
        assert count("record", "primary") > 0

        await own_engines.postgres.kill()
        for path in paths:
            check_stale(await api.get(path), documents[path])
        # Nothing confirms that it did not change.
        check_stale(await api.get(paths[0], headers={"If-None-Match": tag}), documents[paths[0]])
        check_stale(await api.get(paths[0], headers={"Prefer": "wait=10"}), documents[paths[0]])
        page = await api.get("/v1/jobs?limit=1")
        assert page.json()["next_cursor"] is None or 'rel="next"' in page.headers["Link"]
        for kind, number in before.items():
            assert count(kind, "redis") + count(kind, "memory") > number

        lost = count("record", "none")
        check_unavailable(await api.get("/v1/contacts/c2"))
        assert count("record", "none") == lost + 1
        check_unavailable(await api.get("/v1/contacts:export"))
        check_unavailable(await api.get(f"{paths[3]}?limit=7"))
        check_unavailable(await api.get(paths[3], headers={"Accept": "text/csv"}))
        check_unavailable(await api.get(paths[3], headers={"Accept": "application/x-ndjson"}))
        check_unavailable(await api.push([person(3)]))
        check_unavailable(await api.request("DELETE", "/v1/destinations/hubspot"))
        check_unavailable(await api.as_key(fresh_key).get(paths[0]))
        assert (await api.as_key("trn_wrong").get(paths[0])).status == 401
        assert (await nobody.get(paths[0])).status == 401
        health = await api.get("/health")
        assert health.status == 503
        reads = health.json()["checks"]["reads"]
        assert reads["status"] == "warn"
        assert sum(reads["counts"].values()) >= len(paths)

        await own_engines.restart()
        async with asyncio.timeout(60):
            while "Warning" in (answer := await api.get(paths[5])).headers or answer.status != 200:
                await asyncio.sleep(0.1)
        assert answer.json() == documents[paths[5]]
        assert (await api.get(paths[0], headers={"If-None-Match": tag})).status == 304


async def test_who_may_not_read_it_is_shown_nothing_stale(own_engines: Engines) -> None:
    """Another tenant, a key without the scope, and a key that did not ask for the job."""
    key = await make_key(own_engines, "import", "read", "admin")
    own = await make_key(own_engines, "import")
    other = await make_key(own_engines, "import")
    stranger = await make_key(own_engines, "import", "read", "admin", tenant="other")
    async with served(settings_of(own_engines)) as nobody:
        api = nobody.as_key(key)
        paths = await fill(api)
        await read_all(api, paths)
        mine = (await nobody.as_key(own).push([person(7)])).json()["job_id"]
        for who in (own, other, stranger):
            await nobody.as_key(who).get("/v1/jobs")
        seen = (await nobody.as_key(own).get(f"/v1/jobs/{mine}")).json()
        assert (await nobody.as_key(other).get(f"/v1/jobs/{mine}")).status == 403
        await api.get(f"/v1/jobs/{mine}")

        await own_engines.postgres.kill()
        check_stale(await nobody.as_key(own).get(f"/v1/jobs/{mine}"), seen)
        check_unavailable(await nobody.as_key(other).get(f"/v1/jobs/{mine}"))
        assert (await nobody.as_key(other).get("/v1/jobs")).json()["jobs"] == []
        assert [job["job_id"] for job in (await nobody.as_key(own).get("/v1/jobs")).json()["jobs"]] == [mine]
        for path in paths:
            answer = await nobody.as_key(stranger).get(path)
            assert answer.status == 503 or (path == "/v1/jobs" and answer.json()["jobs"] == []), path
            answer = await nobody.as_key(other).get(path)
            assert answer.status in (403, 503) or (path == "/v1/jobs" and answer.json()["jobs"] == []), path
        assert (await nobody.as_key(other).get("/v1/contacts/c1")).status == 403


async def test_another_process_reads_them_from_redis_where_nothing_is_in_clear(own_engines: Engines) -> None:
    key = await make_key(own_engines, "import", "read", "admin")
    revoked = await make_key(own_engines, "read")
    settings = settings_of(own_engines)
    async with served(settings) as one, served(settings) as two:
        first, second = one.as_key(key), two.as_key(key)
        paths = await fill(first)
        documents = await read_all(first, paths)
        assert (await one.as_key(revoked).get(paths[5])).status == 200
        async with Redis.from_url(settings.redis_url) as redis, asyncio.timeout(60):
            while sum([await redis.zcard(name) async for name in redis.scan_iter("tranche:snapshots:*:times")]) < 12:
                await asyncio.sleep(0.1)
            held = b""
            async for name in redis.scan_iter("tranche:snapshots:*"):
                kind = await redis.type(name)
                if kind == b"hash":
                    held += name + b"".join(k + v for k, v in (await redis.hgetall(name)).items())
                else:
                    held += name + b"".join(await redis.zrange(name, 0, -1))
        for secret in (CANARY, "c1@", "Name 1", documents[paths[0]]["job_id"], key, "contacts"):
            assert secret.encode() not in held
        identifier = next(k for k in (await first.get("/v1/keys")).json()["keys"] if k["scopes"] == ["read"])["key_id"]
        assert (await first.request("DELETE", f"/v1/keys/{identifier}")).status == 204

        await own_engines.postgres.kill()
        for path in paths:
            check_stale(await second.get(path), documents[path])
        for process in (one, two):
            assert (await process.as_key(revoked).get(paths[5])).status in (401, 503)
        await own_engines.valkey.kill()
        for path in paths:
            check_stale(await first.get(path), documents[path])
        assert (await one.as_key(revoked).get(paths[5])).status in (401, 503)
        check_unavailable(await second.get(paths[0]))


async def test_a_postgresql_that_hangs_delays_the_first_reads_alone(own_engines: Engines) -> None:
    key = await make_key(own_engines, "import", "read", "admin")
    async with served(settings_of(own_engines)) as nobody:
        api = nobody.as_key(key)
        paths = await fill(api)
        documents = await read_all(api, paths)
        with frozen(own_engines):
            began = time.monotonic()
            answers = await asyncio.gather(*(api.get(path) for path in paths * 3))
            first = time.monotonic() - began
            for path, answer in zip(paths * 3, answers, strict=True):
                check_stale(answer, documents[path])
            assert first < 8.0, "twice half a second, on a busy machine; each timeout of PostgreSQL is longer"
            began = time.monotonic()
            for _ in range(5):
                for path in paths:
                    check_stale(await api.get(path), documents[path])
            assert time.monotonic() - began < first + 3.0
            assert (await nobody.get("/health")).json()["checks"]["database"]["status"] == "fail"
            assert (await nobody.get("/health/ready")).status == 503
        async with asyncio.timeout(60):
            while "Warning" in (await api.get(paths[5])).headers:
                await asyncio.sleep(0.1)
        assert await read_all(api, paths[:1] + paths[5:6]) == {path: documents[path] for path in (paths[0], paths[5])}
        assert (await api.push([person(9)])).status == 207


async def test_one_lost_connection_is_no_outage(own_engines: Engines) -> None:
    key = await make_key(own_engines, "import", "read")
    async with served(settings_of(own_engines)) as nobody:
        api = nobody.as_key(key)
        await api.push([person(1)])
        admin = await asyncpg.connect(own_engines.urls.database_url)
        for _ in range(5):
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tranche api'"
            )
            answer = await api.get("/v1/contacts/c1")
            assert (answer.status, "Warning" in answer.headers) == (200, False)
        await admin.close()


async def why_not_ready(nobody: Api) -> str:
    why: str = (await nobody.get("/health/ready")).json()["checks"]["database"]["output"]
    return why


async def test_a_server_that_only_reads_is_not_ready(own_engines: Engines) -> None:
    key = await make_key(own_engines, "import", "read")
    async with served(settings_of(own_engines)) as nobody:
        api = nobody.as_key(key)
        await api.push([person(1)])
        assert (await nobody.get("/health/ready")).status == 200
        admin = await asyncpg.connect(own_engines.urls.database_url)
        await admin.execute("ALTER ROLE tranche_app SET default_transaction_read_only = on")
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tranche api'"
        )
        async with asyncio.timeout(60):
            while (await nobody.get("/health/ready")).status == 200:
                await asyncio.sleep(0.1)
            # Its connections were ended, which is the first that is noticed.
            while "read-only" not in (
                why := (await nobody.get("/health/ready")).json()["checks"]["database"]["output"]
            ):
                await asyncio.sleep(0.1)
        assert "TRANCHE_DATABASE_URL" in why
        assert (await nobody.get("/health")).status == 503
        found = await api.get("/v1/contacts/c1")
        assert (found.status, "stale" in found.json()) == (200, False)
        check_unavailable(await api.push([person(2)]))
        await admin.execute("ALTER ROLE tranche_app RESET default_transaction_read_only")
        await admin.close()


@pytest.mark.parametrize("changes", [{"stale_seconds": 0.0}, {"stale_key_seconds": 0.0}])
async def test_without_snapshots_there_is_none(own_engines: Engines, changes: dict[str, float]) -> None:
    key = await make_key(own_engines, "import", "read")
    async with served(msgspec.structs.replace(settings_of(own_engines), **changes)) as nobody:
        api = nobody.as_key(key)
        await api.push([person(1)])
        assert (await api.get("/v1/contacts/c1")).status == 200
        await own_engines.postgres.kill()
        check_unavailable(await api.get("/v1/contacts/c1"))
