"""From `POST /v1/destinations` and an import over HTTP to the files in a bucket."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import msgspec

from app.settings import Settings
from jobs.worker import working
from tests.contract.object_store import ObjectCase, open_object_store, read_lines
from tests.http.conftest import Api


async def add(api: Api, store: ObjectCase, **options: Any) -> Any:
    credentials = {"type": "basic", "username": store.access_key, "password": store.secret}
    new = {"name": "lake", "kind": "object", "base_url": store.url, "credentials": credentials}
    data = msgspec.json.encode(new | {"options": {"bucket": store.bucket} | options})
    return await api.request("POST", "/v1/destinations", data=data)


async def test_a_large_import_becomes_files_of_a_thousand_and_their_manifests(api: Api, settings: Settings) -> None:
    async with aiohttp.ClientSession() as session, open_object_store(session) as store, working(settings):
        refused = await add(api, store, path="../elsewhere")
        assert (refused.status, "options.path" in refused.json()["detail"]) == (400, True)
        added = await add(api, store)
        assert added.status == 201, added.body
        assert store.secret not in str(added.body)

        await store.faults(accept_then_drop={"times": 1})
        rows = b"".join(b'{"id":"c%d","email":"c%d@example.org"}\n' % (n, n) for n in range(2500))
        pushed = await api.push(rows, headers={"Content-Type": "application/x-ndjson"})
        assert pushed.status == 202, pushed.body
        async with asyncio.timeout(60):
            while not (job := (await api.get(f"/v1/jobs/{pushed.json()['job_id']}")).json())["finished_at"]:
                await asyncio.sleep(0.1)
        assert job["state"] == "completed"
        assert job["effects"]["lake"]["ok"] == 2500

        stored = store.stored()
        files = {key: lines for key, body in stored.items() if (lines := read_lines(key, body)) is not None}
        assert sorted(len(lines) for lines in files.values()) == [500, 1000, 1000]
        assert len({line["id"] for lines in files.values() for line in lines}) == 2500
        manifests = [json.loads(body) for key, body in stored.items() if "/_manifests/" in key]
        assert {said["file"]: said["records"] for said in manifests} == {key: len(files[key]) for key in files}

        verify = await api.request("POST", "/v1/destinations/lake/sync", data=b'{"mode":"verify"}')
        assert (verify.status, "cannot be read back" in verify.json()["detail"]) == (400, True)
