"""Contacts on their whole way to services that others wrote, run here as they are: no stand-in, no recorded answer.

| service | runs where this command is on the PATH | how to get it |
|---|---|---|
| Kinto, with its memory backends | `kinto` | `pip install kinto`, into an environment of its own |
| json-server | `json-server` | `npm install json-server@0.17` |

Where the command is not found, its tests are skipped.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from app.destinations import service
from app.destinations.credentials import BasicCredentials
from app.job_status.items.service import read_drifted
from app.kit.encryption import Vault
from app.resource_types.catalog import Catalog
from app.syncs import creation
from jobs.worker import working
from tests.conftest import LOOPBACK
from tests.jobs.conftest import World, people

AUTH = BasicCredentials(username="tranche", password="s3cret-password")
HEADERS = {"Authorization": aiohttp.encode_basic_auth(AUTH.username, AUTH.password)}
ITEM = {"email": "{fields.email}", "phone": "{fields.phone}", "custom": "{attributes}"}
INI = """
[app:main]
use = egg:kinto
kinto.storage_backend = kinto.core.storage.memory
kinto.cache_backend = kinto.core.cache.memory
kinto.permission_backend = kinto.core.permission.memory
kinto.userid_hmac_secret = test
multiauth.policies = basicauth
kinto.bucket_create_principals = system.Authenticated

[server:main]
use = egg:waitress#main
host = 127.0.0.1
port = {port}
"""
KINTO_RECORD = "/buckets/b/collections/{type}/records/{id}"


class Real(msgspec.Struct, kw_only=True):
    """A service, and how it is described to Tranche."""

    command: str
    base: str = ""
    """Path of its API."""
    setup: tuple[str, ...] = ()
    """Paths of what must be there before."""
    collection: str
    options: dict[str, Any]
    refuses: str | None = None
    """A key that it does not take."""

    def arguments(self, folder: Path, port: int) -> list[str]:
        if self.command == "kinto":
            (folder / "kinto.ini").write_text(INI.format(port=port))
            return ["start", "--ini", str(folder / "kinto.ini")]
        (folder / "db.json").write_text('{"contacts":[]}')
        return ["--host", "127.0.0.1", "--port", str(port), "--quiet", str(folder / "db.json")]


SERVICES = {
    "kinto": Real(
        command="kinto",
        base="/v1",
        setup=("/buckets/b", "/buckets/b/collections/contacts"),
        collection="/buckets/b/collections/contacts/records",
        options={
            "path": KINTO_RECORD,
            "method": "PUT",
            "item": ITEM,
            "body": {"data": "{record}"},
            "results": "status",
            "result_remote_id": "data.id",
            "update": {"path": KINTO_RECORD},
            "delete": {"path": KINTO_RECORD},
            "read": {"path": KINTO_RECORD, "records": "data", "id": "id", "remote_id": "id"},
            "listing": {
                "path": "/buckets/b/collections/{type}/records",
                "query": {"_sort": "id", "_limit": "7", "gt_id": "{cursor}"},
                "records": "data",
                "next": "data[-1].id",
            },
        },
        refuses="not an id there",
    ),
    "json-server": Real(
        command="json-server",
        collection="/contacts",
        options={
            "path": "/{type}",
            "item": {"id": "{id}", **ITEM},
            "body": "{record}",
            "results": "status",
            "result_remote_id": "id",
            "update": {"path": "/{type}/{id}"},
            "delete": {"path": "/{type}/{id}"},
            "read": {"path": "/{type}/{id}", "remote_id": "id"},
            "listing": {
                "path": "/{type}",
                "query": {"_sort": "id", "_limit": "7", "id_gte": "{cursor}"},
                "records": "",
                "next": "[-1].id",
            },
        },
    ),
}


class Server:
    """One that runs, and what it holds, as anybody may read it."""

    def __init__(self, real: Real, url: str, session: aiohttp.ClientSession) -> None:
        self.real = real
        self.url = url
        self._session = session

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        async with self._session.request(method, f"{self.url}{path}", json=body, headers=HEADERS) as answer:
            return answer.status, await answer.json()

    async def records(self) -> dict[str, Any]:
        _, body = await self.ask("GET", self.real.collection)
        found = body["data"] if isinstance(body, dict) else body
        return {record.pop("id"): record for record in found}


@pytest.fixture(params=SERVICES)
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Server]:
    real = SERVICES[request.param]
    command = shutil.which(real.command)
    if command is None:
        pytest.skip(f"the command {real.command} is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen([command, *real.arguments(tmp_path, port)], stdout=out, stderr=out)
    try:
        async with aiohttp.ClientSession() as session:
            server = Server(real, f"http://127.0.0.1:{port}{real.base}", session)
            async with asyncio.timeout(60):
                while True:
                    with contextlib.suppress(aiohttp.ClientConnectionError):
                        await server.ask("GET", real.collection)
                        break
                    assert process.poll() is None, log.read_text()
                    await asyncio.sleep(0.1)
            for path in real.setup:
                assert (await server.ask("PUT", path, {}))[0] == 201
            yield server
    finally:
        process.terminate()
        process.wait(10)


async def connect(world: World, server: Server) -> None:
    """In place of the destination that every world has."""
    async with world.database.connection() as connection:
        await service.set_destination_state(connection, world.tenant_id, "hubspot", "removed")
        new = service.NewDestination(
            name="real", kind="http", base_url=server.url, credentials=AUTH, options=server.real.options
        )
        await service.add_destination(
            connection, Vault(world.settings.secret_key), world.tenant_id, new, private=LOOPBACK
        )


async def test_it_holds_what_was_imported_changed_and_removed(world: World, server: Server) -> None:
    await connect(world, server)
    async with working(world.settings):
        batch = people(20, phone="001-808", attributes={"tier": "gold"})
        expected = {record["id"] for record in batch}
        if server.real.refuses is not None:
            expected.remove(batch[3]["id"])
            batch[3]["id"] = server.real.refuses
        answer = await world.push(batch)
        end = "completed" if server.real.refuses is None else "completed_with_failures"
        assert await world.finished(answer.job_id) == end
        held = await server.records()
        assert held.keys() == expected
        first = held["c00000"]
        assert (first["email"], first["phone"]) == ("c00000@example.com", "001-808")
        assert first["custom"] == {"tier": "gold"}

        # Somebody there adds a field, which no import names.
        note = _written(server, note="call her")
        assert (await server.ask("PATCH", f"{server.real.collection}/c00000", note))[0] == 200
        answer = await world.push([{"id": "c00000", "email": "c00000@example.com", "phone": None}])
        assert await world.finished(answer.job_id) == "completed"
        changed = (await server.records())["c00000"]
        assert (changed["phone"], changed["note"]) == (None, "call her")

        # Somebody there removes one of those that are to be removed.
        assert (await server.ask("DELETE", f"{server.real.collection}/c00001"))[0] == 200
        answer = await world.push([{"id": f"c0000{n}", "deleted": True} for n in (0, 1)])
        assert await world.finished(answer.job_id) == "completed"
        assert (await server.records()).keys() == expected - {"c00000", "c00001"}


async def test_a_verification_names_what_somebody_changed_there(world: World, server: Server) -> None:
    await connect(world, server)
    collection = server.real.collection
    async with working(world.settings):
        assert await world.finished((await world.push(people(20, phone="001-808"))).job_id) == "completed"
        assert (await server.ask("DELETE", f"{collection}/c00003"))[0] == 200
        assert (await server.ask("PATCH", f"{collection}/c00004", _written(server, phone="+1")))[0] == 200
        theirs = {"id": "theirs", "email": "theirs@example.com"}
        assert (await server.ask("POST", collection, _written(server, **theirs)))[0] == 201
        async with world.database.connection() as connection:
            made = await creation.create(
                connection,
                world.tenant_id,
                "real",
                creation.SyncRequest(mode="verify", repair=True),
                catalog=Catalog(),
                request_id="verify-1",
                actor="test",
            )
        assert made.job_id is not None
        await world.finished(made.job_id)
        assert await world.rows("SELECT state, error FROM jobs WHERE job_id = $1", made.job_id) == [
            {"state": "completed", "error": None}
        ]
        async with world.database.connection() as connection:
            items = await read_drifted(connection, world.tenant_id, made.job_id, 100)
    found = {item.id: item.destinations["real"].drift for item in items}
    assert {key: drift.kind for key, drift in found.items() if drift} == {
        "c00003": "missing",
        "c00004": "different",
        "theirs": "unknown",
    }
    held = await server.records()
    assert (held["c00003"]["phone"], held["c00004"]["phone"]) == ("001-808", "001-808")
    assert held["theirs"]["email"] == theirs["email"]


def _written(server: Server, **fields: Any) -> dict[str, Any]:
    return {"data": fields} if server.real.command == "kinto" else fields
