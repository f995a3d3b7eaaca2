"""`POST /v1/jobs/{id}/undo`, histories, the audit log and `consistency=`, as a client sees them."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.auth import service
from app.kit.postgres.database import Database
from app.settings import Settings
from jobs.sagas.runner import Runner
from jobs.sagas.workflows import WORKFLOWS
from tests.http.conftest import Api, person
from tests.http.made_jobs import Db, make_job


@asynccontextmanager
async def sagas_running(settings: Settings) -> AsyncIterator[None]:
    """What a worker does for undos."""
    database = Database(settings, application_name="tests")
    runner = Runner(database, WORKFLOWS, settings, lambda *_: None, random=lambda: 0.5)
    task = asyncio.create_task(runner.run())
    yield
    runner.stop()
    await task
    await database.close()


async def finished(api: Api, url: str) -> Any:
    async with asyncio.timeout(60):
        while True:
            job = (await api.get(url, {"Prefer": "wait=5"})).json()
            if job["finished_at"]:
                return job


async def test_an_undo_is_a_job_that_can_be_followed(api: Api, settings: Settings) -> None:
    await api.push([person(1)])
    pushed = (await api.push([person(1, first_name="New"), person(2), person(3)])).json()
    await api.push([person(3, first_name="Newer")])
    asked = await api.request("POST", pushed["status_url"] + "/undo")
    undo = asked.json()
    assert (asked.status, undo["kind"], undo["state"]) == (202, "undo", "queued")
    assert (undo["undo_of"], undo["root_job_id"]) == (pushed["job_id"], pushed["job_id"])
    assert asked.headers["Location"] == undo["status_url"]
    assert int(asked.headers["Retry-After"]) >= 1
    assert undo["progress"]["items"] == 3
    again = await api.request("POST", pushed["status_url"] + "/undo")
    assert (again.status, again.json()["job_id"]) == (202, undo["job_id"])
    refused = await api.request("POST", undo["status_url"] + "/cancel")
    assert (refused.status, refused.json()["code"]) == (409, "JOB_NOT_CANCELABLE")
    assert "undo" in refused.json()["detail"]
    too_soon = await api.request("POST", undo["status_url"] + "/undo")
    assert (too_soon.status, too_soon.json()["code"]) == (409, "JOB_NOT_UNDOABLE")

    async with sagas_running(settings):
        done = await finished(api, undo["status_url"])
    assert done["state"] == "completed_with_failures"
    assert done["summary"] == {"total": 3, "succeeded": 2, "failed": 1, "retry": 0}
    assert done["failures"] == [{"destination": "db", "code": "VERSION_CONFLICT", "count": 1, "samples": [0]}]
    (item,) = (await api.get(undo["items_url"] + "?status=failed")).json()["items"]
    assert (item["id"], item["error_code"]) == ("c3", "VERSION_CONFLICT")
    rows = await api.get(undo["items_url"], {"Accept": "text/csv"})
    assert b"VERSION_CONFLICT" in rows.body
    assert b"c3" in rows.body
    events = await api.get(undo["events_url"])
    assert b"event: end" in events.body
    imported = (await api.get(pushed["status_url"])).json()
    assert imported["undone_by"] == undo["job_id"]

    assert (await api.get("/v1/contacts/c1")).json()["first_name"] == "Name 1"
    gone = await api.get("/v1/contacts/c2")
    assert (gone.status, gone.json()["code"]) == (404, "NOT_FOUND")
    assert "undone by job" in gone.json()["detail"]
    assert (await api.get("/v1/contacts/c3")).json()["first_name"] == "Newer"


async def test_an_undone_job_has_a_new_etag(api: Api) -> None:
    """A client that polls with the old one is told of the undo."""
    pushed = (await api.push([person(1)])).json()
    tag = (await api.get(pushed["status_url"])).headers["ETag"]
    await api.request("POST", pushed["status_url"] + "/undo")
    seen = await api.get(pushed["status_url"], {"If-None-Match": tag})
    assert seen.status == 200
    assert seen.json()["undone_by"]


@pytest.mark.parametrize("state", ["receiving", "queued", "running"])
async def test_what_is_at_work_is_not_undone(api: Api, db: Db, state: str) -> None:
    job_id = await make_job(db, state)
    answer = await api.request("POST", f"/v1/jobs/{job_id}/undo")
    assert (answer.status, answer.json()["code"]) == (409, "JOB_NOT_UNDOABLE")
    assert "cancel" in answer.json()["detail"]


async def test_undoing_needs_the_scope_and_the_tenant(api: Api, db: Db) -> None:
    pushed = (await api.push([person(1)])).json()
    reader = api.as_key(await service.create_key(db, "acme", ["read"]))
    assert (await reader.request("POST", pushed["status_url"] + "/undo")).status == 403
    other = api.as_key(await service.create_key(db, "other", ["import", "read", "admin"]))
    assert (await other.request("POST", pushed["status_url"] + "/undo")).status == 404
    assert (await other.get("/v1/contacts/c1/history")).status == 404
    await api.request("POST", pushed["status_url"] + "/undo")
    entries = (await other.get("/v1/audit-log")).json()["entries"]
    assert {entry["subject"].partition(":")[0] for entry in entries} == {"tenant", "key"}


async def test_a_history_is_told_page_by_page(api: Api, settings: Settings) -> None:
    first = (await api.push([person(1, source_version=1)], headers={"X-Request-ID": "first"})).json()
    second = (await api.push([person(1, phone="+49 30 1", attributes={"a": 1})])).json()
    undo = (await api.request("POST", second["status_url"] + "/undo")).json()
    async with sagas_running(settings):
        await finished(api, undo["status_url"])
    whole = (await api.get("/v1/contacts/c1/history")).json()
    assert whole["next_cursor"] is None
    assert [(v["version"], v["kind"], v["job_id"], v["undone_by"]) for v in whole["versions"]] == [
        (3, "undo", undo["job_id"], None),
        (2, "import", second["job_id"], undo["job_id"]),
        (1, "import", first["job_id"], None),
    ]
    assert whole["versions"][2]["request_id"] == "first"
    assert whole["versions"][2]["before"] is None
    assert whole["versions"][1]["after"]["attributes"] == {"a": 1}
    assert whole["versions"][0]["after"] == whole["versions"][2]["after"]
    pages, url = [], "/v1/contacts/c1/history?limit=1"
    while url:
        page = await api.get(url)
        pages += page.json()["versions"]
        cursor = page.json()["next_cursor"]
        url = f"/v1/contacts/c1/history?limit=1&cursor={cursor}" if cursor else ""
    assert pages == whole["versions"]


@pytest.mark.parametrize("cursor", ["x", "WzEsImpvYnMiLCIwIiwwXQ", "%00", "a" * 300])
async def test_a_cursor_of_nowhere_is_refused(api: Api, cursor: str) -> None:
    await api.push([person(1)])
    for url in ("/v1/contacts/c1/history", "/v1/audit-log"):
        answer = await api.get(f"{url}?cursor={cursor}")
        assert (answer.status, answer.json()["code"]) == (400, "INVALID_CURSOR")


async def test_a_cursor_of_another_contact_leads_nowhere(api: Api) -> None:
    await api.push([person(1), person(2)])
    await api.push([person(1, company="A"), person(2, company="B")])
    cursor = (await api.get("/v1/contacts/c1/history?limit=1")).json()["next_cursor"]
    answer = await api.get(f"/v1/contacts/c2/history?cursor={cursor}")
    assert (answer.status, answer.json()) == (200, {"versions": [], "next_cursor": None})


@pytest.mark.parametrize("record_id", ["a/history", "/history", "history", "a/b", "ä%"])
async def test_ids_with_slashes_have_histories_too(api: Api, record_id: str) -> None:
    from urllib.parse import quote

    await api.push([person(1) | {"id": record_id}])
    path = "/v1/contacts/" + quote(record_id, safe="")
    assert (await api.get(path)).json()["id"] == record_id
    assert [v["version"] for v in (await api.get(path + "/history")).json()["versions"]] == [1]


async def test_the_audit_log_tells_who_asked_and_what_was_done(api: Api, settings: Settings, db: Db) -> None:
    pushed = (await api.push([person(1), person(2)])).json()
    undo = (await api.request("POST", pushed["status_url"] + "/undo")).json()
    async with sagas_running(settings):
        await finished(api, undo["status_url"])
        async with asyncio.timeout(60):
            while await db.fetchval("SELECT count(*) FROM sagas WHERE finished_at IS NULL"):
                await asyncio.sleep(0.05)
    log = (await api.get(f"/v1/audit-log?subject=job:{undo['job_id']}")).json()
    assert [entry["action"] for entry in log["entries"]] == ["undo.deliver", "undo.restore", "undo.ask"]
    assert log["entries"][1]["detail"]["restored"] == 2
    key_id = await db.fetchval("SELECT key_id FROM api_keys")
    assert {entry["actor"] for entry in log["entries"]} == {key_id}
    await db.execute("DELETE FROM audit_log WHERE subject NOT LIKE 'job:%'")
    first = (await api.get("/v1/audit-log?limit=3")).json()
    rest = (await api.get(f"/v1/audit-log?cursor={first['next_cursor']}")).json()
    assert (len(first["entries"]), len(rest["entries"]), rest["next_cursor"]) == (3, 1, None)
    sender = api.as_key(await service.create_key(db, "acme", ["import"]))
    assert (await sender.get("/v1/audit-log")).status == 403


@pytest.mark.parametrize("prefer", ["", "respond-async"])
async def test_consistency_is_kept_with_the_job(api: Api, db: Db, prefer: str) -> None:
    await api.request(
        "POST",
        "/v1/destinations",
        headers={"Content-Type": "application/json"},
        data=b'{"name":"crm","kind":"hubspot","base_url":"http://127.0.0.1:9","token":"x"}',
    )
    headers = {"Prefer": prefer} if prefer else None
    pushed = await api.push([person(1)], query="?consistency=all_destinations", headers=headers)
    job = (await api.get(pushed.headers["Location"])).json()
    assert job["options"]["consistency"] == "all_destinations"
    (saga,) = await db.fetch("SELECT workflow, subject FROM sagas")
    assert (saga["workflow"], str(saga["subject"])) == ("consistency", job["job_id"])


async def test_another_word_for_consistency_is_refused(api: Api) -> None:
    answer = await api.push([person(1)], query="?consistency=some")
    assert (answer.status, answer.json()["code"]) == (400, "INVALID_PARAMETER")
    assert "all_destinations" in answer.json()["detail"]


async def run_cli(api: Api, *arguments: str) -> tuple[int, str, str]:
    known = {n: v for n, v in os.environ.items() if not n.startswith("TRANCHE_")}
    environ = known | {"TRANCHE_URL": api.url, "TRANCHE_API_KEY": api.key or "", "COLUMNS": "300"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app.cli.main", *arguments, env=environ, stdout=PIPE, stderr=PIPE
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_from_the_shell(api: Api, settings: Settings) -> None:
    """Ask, wait, and be told in words what became of it."""
    pushed = (await api.push([person(1), person(2)])).json()
    await api.push([person(2, company="X")])
    async with sagas_running(settings):
        code, out, err = await run_cli(api, "jobs", "undo", pushed["job_id"], "--wait", "--quiet")
    assert (code, err) == (1, "")
    assert "1 record restored" in out
    assert "1 had been changed since" in out
    code, out, _ = await run_cli(api, "contacts", "history", "c1")
    assert code == 0
    assert "removed" in out
    assert "created" in out
    code, out, _ = await run_cli(api, "contacts", "history", "c1", "--json")
    assert len(out.splitlines()) == 2
    code, out, _ = await run_cli(api, "contacts", "show", "c2")
    assert (code, "c2@example.com" in out) == (0, True)
    code, _, err = await run_cli(api, "contacts", "show", "c1")
    assert code == 2
    assert "undone by job" in err
    code, out, _ = await run_cli(api, "jobs", "undo", pushed["job_id"], "--json")
    assert code == 0
    assert '"kind":"undo"' in out
