"""A database with work in every state, as the release at revision 0003 left it, is brought up to date.

`release_0003/make.py` says how its rows were made.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from app.embedded import Engines
from app.migrations import copying
from app.migrations.privileges import privileges
from app.migrations.runner import head, migrate
from app.sandbox import ANY, open_sandbox
from app.settings import Settings
from app.vocabulary.states import JobState
from jobs.worker import working
from tests.conftest import as_app, new_database, quick
from tests.http.conftest import Api, serve
from tests.jobs.conftest import Sandbox
from tests.migration.test_copying import Report, content, end_everywhere
from tests.migration.test_data import VERSIONS

FOLDER = Path(__file__).with_name("release_0003")
THEN = json.loads((FOLDER / "answers.json").read_text(encoding="utf-8"))
JOBS: dict[str, str] = {name: job for name, job in THEN["jobs"].items() if name != "elsewhere"}
"""Of the tenant acme, by the names that `make.py` gave them."""
FINISHED = {"completed", "completed_with_failures", "failed", "canceled"}
LONG = 2e9
"""The rows keep their age: what is done with old ones is not what is tried here."""


async def restore(url: str) -> None:
    """A database at revision 0003 with these rows."""
    connection = await asyncpg.connect(url)
    await connection.execute(privileges("tranche"))
    for path in sorted(VERSIONS.glob("*.sql"))[:3]:
        await connection.execute(path.read_text())
    await connection.execute(
        "CREATE TABLE schema_version (version_num varchar(32) CONSTRAINT schema_version_pkc PRIMARY KEY)"
    )
    await connection.execute((FOLDER / "data.sql").read_text(encoding="utf-8"))
    await connection.close()


@pytest.fixture
async def url(empty_url: str) -> str:
    """Migrated."""
    await restore(empty_url)
    assert (await migrate(empty_url))[0] == "0004"
    return empty_url


@pytest.fixture
def settings(url: str, redis_url: str) -> Settings:
    return quick(
        as_app(url),
        redis_url,
        job_retention=LONG,
        delivery_budget=LONG,
        webhook_retention=LONG,
        webhook_private="127.0.0.0/8",
        saga_interval=0.2,
        receive_lease=1.0,
    )


@asynccontextmanager
async def tenants(settings: Settings) -> AsyncIterator[dict[str, Api]]:
    """The API, by the keys that the older release made."""
    async with serve(settings) as address, aiohttp.ClientSession() as session:
        yield {tenant: Api(session, address, key) for tenant, key in THEN["keys"].items()}


RENAMED = {"contact_id": "record_id"}
OF_THE_MOMENT = {"items_per_second", "expected_seconds", "oldest_seconds", "next_cursor", "openings_24h"}


def differences(then: Any, now: Any, where: str = "") -> list[str]:
    """What was answered then and is not any more; more may be answered now."""
    if isinstance(then, dict) and isinstance(now, dict):
        return [
            found
            for name in then.keys() - OF_THE_MOMENT
            for found in differences(then[name], now.get(RENAMED.get(name, name), "nothing"), f"{where}.{name}")
        ]
    if isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        return [d for i in range(len(then)) for d in differences(then[i], now[i], f"{where}[{i}]")]
    return [] if then == now else [f"{where}: {then!r} → {now!r}"]


def test_every_state_is_among_the_rows() -> None:
    documents = THEN["documents"]["acme"]
    assert {documents[f"/v1/jobs/{job}"]["state"] for job in JOBS.values()} == {*map(str, JobState)}
    kinds = {documents[f"/v1/jobs/{job}"]["kind"] for job in JOBS.values()}
    assert kinds == {"import", "retry", "replay", "undo"}


async def test_everything_is_answered_as_before(settings: Settings) -> None:
    """Contacts, who made each of their versions, what destinations hold; jobs and their items; dead letters."""
    found: list[str] = []
    async with tenants(settings) as apis:
        for tenant, documents in THEN["documents"].items():
            contacts, histories = documents["contacts"], documents["histories"]
            for path in documents.keys() - {"contacts", "histories"}:
                then = documents[path]
                found += differences(then, (await apis[tenant].get(path)).json(), path)
            ids = await ids_of(settings.database_url, tenant)
            for record_id, contact, history in zip(ids, contacts, histories, strict=True):
                answer = await apis[tenant].get(f"/v1/contacts/{record_id}")
                assert answer.status == (404 if contact is None else 200)
                found += differences(contact or {}, answer.json(), record_id)
                answer = await apis[tenant].get(f"/v1/contacts/{record_id}/history")
                found += differences(history, answer.json(), f"{record_id}/history")
    waiting = "no worker has been seen yet"
    assert [difference for difference in found if waiting not in difference] == []


async def ids_of(url: str, tenant: str) -> list[str]:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "SELECT record_id FROM records JOIN tenants USING (tenant_id) WHERE name = $1 ORDER BY record_id", tenant
        )
    finally:
        await connection.close()
    return [row["record_id"] for row in rows]


async def test_a_key_of_then_is_answered_byte_by_byte(settings: Settings) -> None:
    """Whoever sends a request of then once more learns what it came to, and nothing is done again."""
    async with tenants(settings) as apis:
        before = await state_of(settings.database_url)
        for request in THEN["requests"]:
            body = request["body"].encode()
            headers = {"Content-Type": request["type"]}
            query = request["query"]
            answer = await apis[request["tenant"]].push(body, key=request["key"], query=query, headers=headers)
            assert (answer.status, answer.body.decode()) == (request["status"], request["answer"]), request["name"]
            assert answer.headers["Idempotency-Replayed"] == "true"
        assert await state_of(settings.database_url) == before


async def state_of(url: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(
            "SELECT record_id, version, updated_at FROM records ORDER BY tenant_id, record_id"
        )
    finally:
        await connection.close()


@asynccontextmanager
async def at_work(settings: Settings) -> AsyncIterator[tuple[Api, Sandbox, Sandbox]]:
    """A worker of this release, with CRMs that know nothing yet, where those of then were."""
    async with (
        open_sandbox("hubspot", fields=[ANY]) as hubspot,
        open_sandbox("salesforce", fields=[ANY]) as salesforce,
        aiohttp.ClientSession() as session,
        tenants(settings) as apis,
    ):
        owner = await asyncpg.connect(settings.database_url)
        for name, address in (("hubspot", hubspot), ("salesforce", salesforce)):
            await owner.execute("UPDATE destinations SET base_url = $2 WHERE name = $1", name, address)
        await owner.close()
        async with working(settings):
            yield apis["acme"], Sandbox(hubspot, session), Sandbox(salesforce, session)


async def finished(api: Api, *jobs: str) -> dict[str, Any]:
    """The documents of jobs that ended, by id."""
    found: dict[str, Any] = {}
    async with asyncio.timeout(60):
        while len(found) < len(jobs):
            for job in jobs:
                document = (await api.get(f"/v1/jobs/{job}")).json()
                if document["state"] in FINISHED:
                    found[job] = document
            await asyncio.sleep(0.2)
    return found


async def test_work_in_flight_is_finished(settings: Settings) -> None:
    """What was staged, applied in part, sent without an answer, asked for or waited for comes to its end, once."""
    async with at_work(settings) as (api, hubspot, salesforce):
        assert (await api.request("POST", "/v1/destinations/salesforce/resume")).status == 200
        documents = await finished(api, *JOBS.values())
        jobs = {name: documents[job] for name, job in JOBS.items()}
        assert {name: job["state"] for name, job in jobs.items() if job["state"] != "completed"} == {
            **dict.fromkeys(UNLUCKY, "completed_with_failures"),
            "failed": "failed",
            "canceled": "canceled",
            "receiving": "canceled",
        }
        records = {}
        for name in (
            *(f"q{n}" for n in range(1, 41)),
            "q31",
            "cn24",
            "f15",
            "f16",
            "v1",
            "u21",
            "c1",
            "i7",
            "s7",
            "cy1",
        ):
            answer = await api.get(f"/v1/contacts/{name}")
            records[name] = answer.json() if answer.status == 200 else None
        effects = [await hubspot.effects(), await salesforce.effects()]
    assert (records["v1"], records["u21"]) == (None, None), "their imports were undone"
    assert records["q31"]["last_name"] == "last"
    assert records["f15"]["attributes"] == records["f16"]["attributes"] == {"plan": "silver"}
    assert all(records[f"q{n}"]["version"] == 1 for n in range(1, 20)), "applied once"
    for name in ("c1", "f15", "f16", "i7", "s7", "cy1", "cn24", "q1"):
        for at in records[name]["destinations"].values():
            assert (at["state"], at["synced_version"]) == ("ok", records[name]["version"]), name
    for of_one in effects:
        written = [e["key"] for e in of_one if e["changed"]]
        assert {"i1", "s1", "q1", "cn1", "f15", "cy1", "c1"} <= set(written)
        assert sorted(set(written)) == sorted(written), "a contact was written twice"
    assert "c11" in {e["key"] for e in effects[1]}, "it waited while its destination was paused"
    await no_version_is_missing(settings.database_url)
    await each_end_is_reported_once(settings.database_url)


UNLUCKY = (
    "second", "atomic", "refused", "refused again", "exhausted", "undone", "revived", "consistent", "file",
)  # fmt: skip


async def no_version_is_missing(url: str) -> None:
    """Each record has as many versions as it counts."""
    connection = await asyncpg.connect(url)
    try:
        counted, kept = await connection.fetchrow(
            """SELECT (SELECT sum(version) FROM records),
                (SELECT sum(cardinality(indexes)) FROM record_versions)"""
        )
    finally:
        await connection.close()
    assert counted == kept


async def each_end_is_reported_once(url: str) -> None:
    """To the webhook endpoint, whether the job ended before the migration or after it."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch("SELECT body::json -> 'data' ->> 'job_id' AS job_id FROM webhook_messages")
    finally:
        await connection.close()
    reported = [row["job_id"] for row in rows]
    assert {name: reported.count(job) for name, job in JOBS.items()} == dict.fromkeys(JOBS, 1)


async def test_old_dead_letters_are_replayed(settings: Settings) -> None:
    async with at_work(settings) as (api, hubspot, _):
        letters = (await api.get("/v1/dead-letters?limit=200")).json()["dead_letters"]
        ids = {letter["record_id"]: letter["id"] for letter in letters if letter["destination"] == "hubspot"}
        body = json.dumps({"ids": [ids["d3"], ids["d4"]]}).encode()
        answer = await api.request(
            "POST", "/v1/dead-letters/replay", headers={"Content-Type": "application/json"}, data=body
        )
        assert answer.status == 202, answer.body
        (job,) = (await finished(api, answer.json()["job_id"])).values()
        assert (job["state"], job["effects"]["hubspot"]["ok"]) == ("completed", 2)
        assert {"d3", "d4"} <= {effect["key"] for effect in await hubspot.effects()}
        again = (await api.get(f"/v1/dead-letters/{ids['d3']}")).json()
        assert (again["resolution"], again["replay_job_id"]) == ("replayed", job["job_id"])


async def test_an_old_job_is_undone(settings: Settings) -> None:
    """By the history that was copied: what was cleared is there again, and what was added is cleared."""
    async with at_work(settings) as (api, hubspot, _):
        await api.request("POST", "/v1/destinations/salesforce/resume")
        answer = await api.request("POST", f"/v1/jobs/{JOBS['second']}/undo")
        assert answer.status == 202, answer.body
        await finished(api, *JOBS.values())
        (job,) = (await finished(api, answer.json()["job_id"])).values()
        items = (await api.get(f"/v1/jobs/{job['job_id']}/items")).json()["items"]
        assert {item["id"]: item["status"] for item in items} == {"c1": "failed", "c2": "ok", "c6": "ok"}
        first = {item["id"]: item for item in json.loads(THEN["requests"][0]["body"])["items"]}
        for name in ("c2", "c6"):
            shown = (await api.get(f"/v1/contacts/{name}")).json()
            assert differences({k: v for k, v in first[name].items() if k != "source_version"}, shown) == []
        history = (await api.get("/v1/contacts/c2/history")).json()["versions"]
        assert [version["kind"] for version in history] == ["undo", "import", "import"]
        contacts = await hubspot.contacts()
        assert contacts["c2"]["properties"]["company"] == first["c2"]["company"]


async def test_ended_after_any_batch_it_continues(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "BATCH", 21)
    async with new_database(engines) as url:
        await restore(url)
        reports: list[Report] = []
        await migrate(url, report=lambda *report: reports.append(report))
        expected = content(url)
    assert len(reports) > 10, reports
    async with new_database(engines) as url:
        await restore(url)
        await end_everywhere(url, reports, monkeypatch)
        assert (await migrate(url))[-1] == head()
        assert content(url) == expected
