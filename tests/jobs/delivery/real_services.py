"""Services that others wrote, as they are run for tests: no stand-in, no recorded answer.

| service | runs where this command is on the PATH | how to get it |
|---|---|---|
| Kinto, with its memory backends | `kinto` | `pip install kinto`, into an environment of its own |
| json-server | `json-server` | `npm install json-server@0.17` |
| Directus and Parse Server, on the PostgreSQL of the tests | `directus`, `parse-server` | `.ci/run` has the lines |
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import msgspec
import pytest

from app.destinations.credentials import BasicCredentials, Credentials, HeaderCredentials, TokenCredentials
from app.embedded import Engines
from tests.conftest import with_path

AUTH = BasicCredentials(username="tranche", password="s3cret-password")
BASIC = {"Authorization": aiohttp.encode_basic_auth(AUTH.username, AUTH.password)}
TOKEN = "s3cret-token"
PARSE = {"X-Parse-Application-Id": "tranche", "X-Parse-REST-API-Key": "s3cret-rest"}
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
KINTO_ENCODED = "/buckets/b/collections/{type}/records/{id:url}"
KINTO_RECORDS = "/buckets/b/collections/contacts/records"
KINTO_SETUP = (("PUT", "/buckets/b", {}), ("PUT", "/buckets/b/collections/contacts", {}))
KINTO_LISTING = {
    "path": "/buckets/b/collections/{type}/records",
    "query": {"_sort": "id", "_limit": "7", "gt_id": "{cursor}"},
    "records": "data",
    "next": "data[-1].id",
}


PARSE_ITEM = {"trancheId": "{id}", **ITEM}


class Real(msgspec.Struct, kw_only=True):
    """A service, and how it is described to Tranche."""

    command: str
    base: str = ""
    """Path of its API."""
    credentials: Credentials = AUTH
    headers: dict[str, str] = msgspec.field(default_factory=lambda: BASIC)
    setup: tuple[tuple[str, str, Any], ...] = ()
    """Method, path and body of the calls that make what must be there before."""
    collection: str
    key: str = "id"
    """Where a record has our key."""
    remote_id: str = "id"
    change: str = "PATCH"
    wrapped: bool = False
    """Whether a record that is written is under `data`."""
    options: dict[str, Any]
    attributes: str | None = "custom"
    """Where a record has them; `None`: beside its fields."""
    refuses: str | None = None
    """A key that it does not take."""


SERVICES = {
    "kinto": Real(
        command="kinto",
        base="/v1",
        setup=KINTO_SETUP,
        collection=KINTO_RECORDS,
        wrapped=True,
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
            "listing": KINTO_LISTING,
        },
        refuses="not an id there",
    ),
    "kinto-batch": Real(
        command="kinto",
        base="/v1",
        setup=KINTO_SETUP,
        collection=KINTO_RECORDS,
        wrapped=True,
        options={
            "path": "/batch",
            "batch_size": 25,
            "item": {"method": "PUT", "path": KINTO_ENCODED, "body": {"data": ITEM}},
            "body": {"requests": "{records}"},
            "results": "required",
            "results_field": "responses",
            "results_by": "position",
            "result_ok": "status",
            "result_error": "body.message",
            "result_remote_id": "body.data.id",
            "update": {
                "path": "/batch",
                "method": "POST",
                "item": {"method": "PATCH", "path": KINTO_ENCODED, "body": {"data": ITEM}},
            },
            "delete": {
                "path": "/batch",
                "method": "POST",
                "item": {"method": "DELETE", "path": KINTO_ENCODED},
                "body": {"requests": "{records}"},
            },
            "read": {
                "path": "/buckets/b/collections/{type}/records",
                "query": {"in_id": "{ids}"},
                "records": "data",
                "id": "id",
                "remote_id": "id",
                "item": ITEM,
            },
            "listing": KINTO_LISTING,
        },
        refuses="not an id there",
    ),
    "directus": Real(
        command="directus",
        credentials=TokenCredentials(token=TOKEN),
        headers={"Authorization": f"Bearer {TOKEN}"},
        setup=(
            (
                "POST",
                "/collections",
                {
                    "collection": "contacts",
                    "schema": {},
                    "fields": [
                        {
                            "field": "id",
                            "type": "integer",
                            "schema": {"is_primary_key": True, "has_auto_increment": True},
                        },
                        {"field": "tranche_id", "type": "string", "schema": {"is_unique": True}},
                        *({"field": name, "type": "string"} for name in ("email", "phone", "note", "tier")),
                    ],
                },
            ),
        ),
        collection="/items/contacts",
        key="tranche_id",
        attributes=None,
        options={"preset": "directus", "batch_size": 7},
    ),
    "parse": Real(
        command="parse-server",
        base="/parse",
        credentials=HeaderCredentials(headers=PARSE),
        headers=PARSE,
        collection="/classes/contacts",
        key="trancheId",
        remote_id="objectId",
        change="PUT",
        options={
            "path": "/batch",
            "batch_size": 50,
            "item": {"method": "POST", "path": "/parse/classes/{type}", "body": PARSE_ITEM},
            "body": {"requests": "{records}"},
            "results": "required",
            "results_field": "",
            "results_by": "position",
            # 101 is that there is no such record.
            "result_ok": "(error.code == `101` && '404') || contains(keys(@), 'success')",
            "result_error": "error.error",
            "result_remote_id": "success.objectId",
            "result_created": "contains(keys(success), 'createdAt')",
            "update": {
                "path": "/batch",
                "method": "POST",
                "item": {"method": "PUT", "path": "/parse/classes/{type}/{remote_id}", "body": PARSE_ITEM},
            },
            "delete": {
                "path": "/batch",
                "method": "POST",
                "item": {"method": "DELETE", "path": "/parse/classes/{type}/{remote_id}"},
                "body": {"requests": "{records}"},
            },
            "read": {
                "path": "/classes/{type}",
                "query": {"where": '{{"trancheId":{{"$in":{ids:json}}}}}', "limit": "1000"},
                "records": "results",
                "id": "trancheId",
                "remote_id": "objectId",
                "item": PARSE_ITEM,
            },
            "listing": {
                "path": "/classes/{type}",
                "query": {
                    "keys": "trancheId",
                    "order": "objectId",
                    "limit": "7",
                    "where": '{{"objectId":{{"$gt":{cursor:json}}}}}',
                },
                "records": "results",
                "next": "results[-1].objectId",
            },
        },
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
        async with self._session.request(method, f"{self.url}{path}", json=body, headers=self.real.headers) as answer:
            return answer.status, await answer.json(content_type=None) if await answer.read() else None

    async def records(self) -> dict[str, Any]:
        """By our keys."""
        return {key: record for key, (_, record) in (await self._found()).items()}

    async def change(self, key: str, **fields: Any) -> None:
        status, _ = await self.ask(self.real.change, await self._path(key), self._written(fields))
        assert status == 200

    async def remove(self, key: str) -> None:
        assert (await self.ask("DELETE", await self._path(key)))[0] in (200, 204)

    async def make(self, key: str, **fields: Any) -> None:
        body = self._written({self.real.key: key, **fields})
        assert (await self.ask("POST", self.real.collection, body))[0] in (200, 201)

    async def _path(self, key: str) -> str:
        remote_id, _ = (await self._found())[key]
        return f"{self.real.collection}/{remote_id}"

    async def _found(self) -> dict[str, tuple[Any, dict[str, Any]]]:
        _, body = await self.ask("GET", self.real.collection)
        found = body if isinstance(body, list) else body.get("data", body.get("results"))
        return {record[self.real.key]: (record[self.real.remote_id], record) for record in found}

    def _written(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {"data": fields} if self.real.wrapped else fields


@contextlib.asynccontextmanager
async def running(name: str, folder: Path, engines: Engines) -> AsyncIterator[Server]:
    """One of `SERVICES`, empty; skips the test where its command is not installed."""
    real = SERVICES[name]
    command = shutil.which(real.command)
    if command is None:
        pytest.skip(f"the command {real.command} is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = await _program(Path(command), folder, port, engines)
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(program.arguments, env=os.environ | program.env, stdout=out, stderr=out, cwd=folder)
    try:
        async with aiohttp.ClientSession() as session:
            server = Server(real, f"http://127.0.0.1:{port}{real.base}", session)
            async with asyncio.timeout(180):
                while True:
                    with contextlib.suppress(aiohttp.ClientConnectionError):
                        await server.ask("GET", real.collection)
                        break
                    assert process.poll() is None, log.read_text()
                    await asyncio.sleep(0.1)
            for method, path, body in real.setup:
                assert (await server.ask(method, path, body))[0] in (200, 201)
            yield server
    finally:
        process.terminate()
        process.wait(60)


class _Program(msgspec.Struct):
    arguments: list[str]
    env: dict[str, str] = {}


async def _program(command: Path, folder: Path, port: int, engines: Engines) -> _Program:
    match command.name:
        case "kinto":
            (folder / "kinto.ini").write_text(INI.format(port=port))
            return _Program([str(command), "start", "--ini", str(folder / "kinto.ini")])
        case "json-server":
            (folder / "db.json").write_text('{"contacts":[]}')
            options = ["--host", "127.0.0.1", "--port", str(port), "--quiet", str(folder / "db.json")]
            return _Program([str(command), *options])
        case "parse-server":
            database = f"parse_{port}"
            await _sql(engines, f"CREATE DATABASE {database}")
            settings = {
                "appId": PARSE["X-Parse-Application-Id"],
                "restAPIKey": PARSE["X-Parse-REST-API-Key"],
                "masterKey": "s3cret-master",
                "databaseURI": with_path(engines.urls.database_url, database),
                "serverURL": f"http://127.0.0.1:{port}/parse",
                "host": "127.0.0.1",
                "port": port,
                "allowClientClassCreation": True,
                "logsFolder": None,
            }
            (folder / "parse.json").write_bytes(msgspec.json.encode(settings))
            return _Program([str(command), str(folder / "parse.json")])
    return await _directus(command, folder, port, engines)


async def _directus(command: Path, folder: Path, port: int, engines: Engines) -> _Program:
    """Its tables are made once a run: that takes longer than all else."""
    # Its own command asks a registry for a newer version first.
    program = ["node", str(command.resolve().parent.parent / "@directus" / "api" / "dist" / "cli" / "run.js")]
    env = {
        "DB_CLIENT": "pg",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "PUBLIC_URL": f"http://127.0.0.1:{port}",
        "KEY": "key",
        "SECRET": "secret",
        "ADMIN_EMAIL": "admin@example.com",
        "ADMIN_PASSWORD": "s3cret-password",
        "ADMIN_TOKEN": TOKEN,
        "TELEMETRY": "false",
        "SERVE_APP": "false",
        "LOG_LEVEL": "warn",
        "STORAGE_LOCAL_ROOT": str(folder / "uploads"),
        "EXTENSIONS_PATH": str(folder / "extensions"),
    }
    if not await _sql(engines, "SELECT true FROM pg_database WHERE datname = 'directus_template'"):
        await _sql(engines, "CREATE DATABASE directus_new")
        env["DB_CONNECTION_STRING"] = with_path(engines.urls.database_url, "directus_new")
        making = await asyncio.create_subprocess_exec(
            *program, "bootstrap", env=os.environ | env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=folder
        )
        said, _ = await making.communicate()
        assert making.returncode == 0, said.decode()
        await _sql(engines, "ALTER DATABASE directus_new RENAME TO directus_template")
    await _sql(engines, f"CREATE DATABASE directus_{port} TEMPLATE directus_template")
    env["DB_CONNECTION_STRING"] = with_path(engines.urls.database_url, f"directus_{port}")
    return _Program([*program, "start"], env)


async def _sql(engines: Engines, statement: str) -> list[Any]:
    connection = await asyncpg.connect(engines.urls.database_url)
    try:
        return list(await connection.fetch(statement))
    finally:
        await connection.close()
