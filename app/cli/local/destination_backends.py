"""Where `tranche destinations` goes: to the API with a key, or to the database as an operator."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from redis.asyncio import Redis
from uuid_utils.compat import uuid7

from app import settings as settings_module
from app.audit.queries import OPERATOR
from app.auth import service as auth_service
from app.cli.client.api_client import given
from app.cli.client.clock import ask_until
from app.cli.client.connection import REQUEST_TIMEOUT, open_api
from app.cli.local import place
from app.cli.output import take_some
from app.destinations import service
from app.destinations.circuits import service as circuit_service
from app.destinations.circuits.service import CircuitOrder
from app.destinations.testing import service as testing_service
from app.destinations.testing.service import DestinationTestRequest
from app.errors import Invalid
from app.job_status.items.item_filter import DRIFT
from app.job_status.items.service import read_drifted
from app.job_status.service import read_job
from app.kit.encryption import Vault
from app.kit.notifier import Notifier
from app.kit.postgres.database import Connection
from app.kit.redis import make_pool
from app.kit.worker_registry import Workers, WorkerWatch
from app.resource_types.catalog import Catalog
from app.settings import Settings
from app.syncs import creation
from app.syncs.creation import SyncRequest
from app.vocabulary.addresses import parse_networks

_TEST_SECONDS: Final = 130.0
"""Seconds to wait for a test; a worker calls it off before that."""
_UNTAKEN_SECONDS: Final = 10.0
"""Seconds after which no worker seems to be there."""


class ApiBackend:
    """The API, for whoever has a key."""

    def __init__(self, url: str | None, key: str | None) -> None:
        self._url, self._key = url, key

    async def add(self, new: service.NewDestination) -> dict[str, Any]:
        made: dict[str, Any] = await self._ask("POST", "", new, repeatable=False)
        return made

    async def list(self) -> list[dict[str, Any]]:
        answer = await self._ask("GET", "")
        return list(answer["destinations"])

    async def change(self, name: str, change: service.DestinationChange) -> None:
        document = _document(change)
        sent = given(document)
        if "types" in document:
            sent["types"] = document["types"]  # null is the default
        await self._ask("PATCH", f"/{name}", sent)

    async def set_state(self, name: str, state: str) -> None:
        method, path = {"paused": ("POST", "/pause"), "active": ("POST", "/resume"), "removed": ("DELETE", "")}[state]
        await self._ask(method, f"/{name}{path}")

    async def sync(self, name: str, asked: SyncRequest) -> dict[str, Any]:
        made: dict[str, Any] = await self._ask("POST", f"/{name}/sync", asked, repeatable=False)
        return made

    async def read_job(self, job_id: str) -> dict[str, Any]:
        async with open_api(self._url, self._key, REQUEST_TIMEOUT) as api:
            found: dict[str, Any] = msgspec.json.decode(await api.ask("GET", f"/v1/jobs/{job_id}"))
            return found

    async def read_drift(self, job_id: str, limit: int) -> Sequence[dict[str, Any]]:
        async with open_api(self._url, self._key, REQUEST_TIMEOUT) as api:
            items = api.list(f"/v1/jobs/{job_id}/items", "items", {"status": DRIFT})
            return [msgspec.json.decode(item) async for item in take_some(items, limit)]

    async def set_circuit(self, name: str, order: CircuitOrder, *, shared: bool) -> None:
        if shared:
            raise Invalid(
                "--shared is for an operator at the database, since it is about all tenants; name one of them with "
                "--tenant."
            )
        await self._ask("POST", f"/{name}/circuit", given(_document(order)))

    async def test(self, name: str, asked: DestinationTestRequest) -> dict[str, Any]:
        found: dict[str, Any] = await ask_until(
            await self._ask("POST", f"/{name}/test", asked, repeatable=False),
            lambda test: self._ask("GET", f"/{name}/tests/{test['test_id']}"),
            lambda test: test["state"] == "done",
            seconds=_TEST_SECONDS,
            pause=0.5,
        )
        return found

    async def _ask(self, method: str, path: str, body: Any = None, *, repeatable: bool = True) -> Any:
        async with open_api(self._url, self._key, REQUEST_TIMEOUT if repeatable else 0.0) as api:
            return msgspec.json.decode(await api.ask(method, f"/v1/destinations{path}", body) or b"{}")


async def _find_workers(settings: Settings) -> Workers | None:
    redis = Redis.from_pool(make_pool(settings.redis_url, socket_timeout=1.0, socket_connect_timeout=1.0))
    try:
        return await WorkerWatch(redis).look()
    finally:
        await redis.aclose()


class DatabaseBackend:
    """The tables, for an operator."""

    def __init__(self, settings: Settings, tenant: str | None) -> None:
        self._settings = place.find(settings)
        self._tenant = tenant

    async def add(self, new: service.NewDestination) -> dict[str, Any]:
        async with place.connection(self._settings) as connection:
            if self._tenant:
                tenant_id = await auth_service.ensure_tenant(connection, self._tenant)
            else:
                tenant_id = await auth_service.find_tenant(connection, None)
            private = parse_networks(self._settings.destination_private)
            added = await service.add_destination(connection, self._vault, tenant_id, new, private=private)
            return _document(added)

    async def list(self) -> list[dict[str, Any]]:
        async with self._connect() as (connection, tenant_id):
            workers = await _find_workers(self._settings)
            found = await service.list_destinations(connection, tenant_id, workers)
            return [_document(destination) for destination in found]

    async def change(self, name: str, change: service.DestinationChange) -> None:
        vault = self._vault
        async with self._connect() as (connection, tenant_id):
            private = parse_networks(self._settings.destination_private)
            changed = await service.change_destination(connection, vault, tenant_id, name, change, private=private)
        await self._notify(tenant_id, changed, f"change:{time.time()}")

    async def set_state(self, name: str, state: str) -> None:
        async with self._connect() as (connection, tenant_id):
            changed = await service.set_destination_state(connection, tenant_id, name, state)
        if state != "paused":
            await self._notify(tenant_id, changed, state)

    async def sync(self, name: str, asked: SyncRequest) -> dict[str, Any]:
        async with self._connect() as (connection, tenant_id):
            found = await creation.create(
                connection, tenant_id, name, asked, catalog=Catalog(), request_id=str(uuid7()), actor=OPERATOR
            )
        if found.job_id is None:
            return {"job_id": None, "status_url": None, "records": 0, "kind": "sync"}
        notifier = Notifier(self._settings)
        notifier.notify_imports(tenant_id, found.job_id)
        await asyncio.sleep(0.2)
        await notifier.close()
        return {
            "job_id": str(found.job_id),
            "status_url": f"/v1/jobs/{found.job_id}",
            "records": found.records,
            "kind": "sync",
        }

    async def read_job(self, job_id: str) -> dict[str, Any]:
        async with self._connect() as (connection, tenant_id):
            return _document((await read_job(connection, tenant_id, uuid.UUID(job_id))).job)

    async def read_drift(self, job_id: str, limit: int) -> Sequence[dict[str, Any]]:
        async with self._connect() as (connection, tenant_id):
            found = await read_drifted(connection, tenant_id, uuid.UUID(job_id), limit)
        return [_document(item) for item in found]

    async def set_circuit(self, name: str, order: CircuitOrder, *, shared: bool) -> None:
        async with self._connect() as (connection, tenant_id):
            changed = await circuit_service.set_circuit(
                connection, tenant_id, name, order, actor="tranche", shared=shared
            )
        await self._notify(tenant_id, changed, f"circuit:{order.state}")

    async def test(self, name: str, asked: DestinationTestRequest) -> dict[str, Any]:
        notifier = Notifier(self._settings)
        async with place.database(self._settings) as database:
            async with database.connection() as connection:
                tenant_id = await auth_service.find_tenant(connection, self._tenant)
                test_id = await testing_service.ask(
                    connection, tenant_id, name, asked, request_id=str(uuid7()), actor=OPERATOR, new_id=uuid7
                )
            notifier.notify_imports(tenant_id, test_id)
            try:
                found = await testing_service.wait(
                    database, tenant_id, name, test_id, seconds=_TEST_SECONDS, untaken=_UNTAKEN_SECONDS
                )
            finally:
                await notifier.close()
        return _document(found)

    @property
    def _vault(self) -> Vault:
        return Vault(self._settings.secret_key)

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[tuple[Connection, int]]:
        """A connection, and the id of the tenant."""
        async with place.connection(self._settings) as connection:
            yield connection, await auth_service.find_tenant(connection, self._tenant)

    async def _notify(self, tenant_id: int, destination_id: int, reason: str) -> None:
        notifier = Notifier(self._settings)
        notifier.notify(tenant_id, [destination_id], reason=reason)
        await asyncio.sleep(0.2)
        await notifier.close()


def _document(struct: msgspec.Struct) -> dict[str, Any]:
    """As the API shows it."""
    document: dict[str, Any] = msgspec.to_builtins(struct)
    return document


DestinationBackend = ApiBackend | DatabaseBackend
"""Where destinations are kept; rows are as the API shows them."""


def choose_backend(tenant: str | None, url: str | None, key: str | None) -> DestinationBackend:
    """The API where there is a key and no tenant is named, else the database."""
    settings = settings_module.load()
    if tenant or not (key or settings.api_key):
        return DatabaseBackend(settings, tenant)
    return ApiBackend(url, key)
