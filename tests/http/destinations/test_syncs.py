"""`/v1/destinations/{name}/sync` with the mode `verify` over HTTP, and the command. Workers are in `tests/jobs`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from app.cli.destinations import destinations
from app.sandbox import ANY, open_sandbox
from app.settings import Settings
from jobs.worker import working
from tests.http.conftest import Api

PEOPLE = [{"id": f"c{n}", "email": f"c{n}@example.org", "phone": f"+49 {n}"} for n in range(5)]


class Crm:
    """A stand-in with what was imported, but for what somebody there did since."""

    def __init__(self, api: Api, url: str) -> None:
        self.api, self.url = api, url

    async def edit(self, key: str, **properties: Any) -> str:
        body = {"key_property": "tranche_id", "key": key, "properties": properties}
        async with self.api.session.post(f"{self.url}/__sandbox__/contacts", json=body) as answer:
            return str((await answer.json())["contact"]["id"])

    async def remove(self, remote_id: str) -> None:
        async with self.api.session.delete(f"{self.url}/__sandbox__/contacts/{remote_id}") as answer:
            assert answer.status == 200, await answer.text()

    async def finished(self, job_id: str) -> Any:
        async with asyncio.timeout(60):
            while True:
                job = (await self.api.get(f"/v1/jobs/{job_id}")).json()
                if job["finished_at"]:
                    return job
                await asyncio.sleep(0.1)


@pytest.fixture
async def crm(api: Api, settings: Settings) -> AsyncIterator[Crm]:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(open_sandbox(fields=[ANY]))
        await stack.enter_async_context(working(settings))
        new = {"name": "crm", "kind": "hubspot", "base_url": url, "token": "t", "options": {"verify_every": 86_400}}
        added = await api.request("POST", "/v1/destinations", data=msgspec.json.encode(new))
        assert added.status == 201, added.body
        crm = Crm(api, url)
        pushed = await api.push(PEOPLE)
        assert (await crm.finished(pushed.json()["job_id"]))["state"] == "completed"
        await crm.edit("c1", phone="+1\x1b[31m")
        await crm.remove(await crm.edit("c2"))
        await crm.edit("theirs", phone="+2")
        yield crm


async def test_the_job_counts_and_its_items_name(crm: Crm) -> None:
    asked = await crm.api.request("POST", "/v1/destinations/crm/sync", data=b'{"mode":"verify"}')
    assert asked.status == 202, asked.body
    job = await crm.finished(asked.json()["job_id"])
    assert job["drift"] == {"missing": 1, "different": 1, "unknown": 1}
    assert job["sync"] == {"destination": "crm", "mode": "verify", "repair": False}
    assert job["state"] == "completed"
    items = (await crm.api.get(f"/v1/jobs/{job['job_id']}/items?status=drift")).json()["items"]
    found = {item["id"]: item["destinations"]["crm"]["drift"] for item in items}
    assert found["c1"]["fields"] == [{"name": "phone", "here": "+49 1", "there": "+1\x1b[31m"}]
    assert {key: drift["kind"] for key, drift in found.items()} == {
        "c1": "different",
        "c2": "missing",
        "theirs": "unknown",
    }
    for query, status in (("status=drift&destination=crm", 200), ("status=drift&destination=db", 200)):
        answer = await crm.api.get(f"/v1/jobs/{job['job_id']}/items?{query}")
        assert answer.status == status
        assert len(answer.json()["items"]) == (3 if "crm" in query else 0)
    csv = await crm.api.get(f"/v1/jobs/{job['job_id']}/items?status=drift", headers={"Accept": "text/csv"})
    assert csv.status == 400
    [shown] = [d for d in (await crm.api.get("/v1/destinations")).json()["destinations"] if d["name"] == "crm"]
    assert shown["verified_at"] is not None
    listed = (await crm.api.get("/v1/jobs?kind=sync")).json()["jobs"]
    assert [job["sync"]["mode"] for job in listed] == ["verify"]


async def shell(api: Api, *words: str) -> Result:
    words = ("sync", "crm", "--mode", "verify", "--url", api.url, "--key", api.key or "", *words)
    return await asyncio.to_thread(CliRunner().invoke, destinations, words)


async def test_the_command_says_in_what_they_differ(crm: Crm) -> None:
    result = await shell(crm.api)
    assert result.exit_code == 1, result.output
    assert "compares 5 records" in result.output
    assert "c2  is not there" in result.output
    assert "and here '+49 1'" in result.output
    assert "\x1b" not in result.output
    assert "crm lacks 1 records, has 1 that differ, and 1 that nobody knows here" in result.output

    result = await shell(crm.api, "--repair", "--json")
    assert result.exit_code == 1, "one that nobody knows is left"
    assert msgspec.json.decode(result.output)["drift"] == {"missing": 1, "different": 1, "unknown": 1}
    await crm.remove(await crm.edit("theirs"))
    result = await shell(crm.api)
    assert result.exit_code == 0, result.output
    assert "crm holds what is here" in result.output
