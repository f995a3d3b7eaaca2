"""A tenant with a destination at a sandbox, and workers of this process."""

from __future__ import annotations

import asyncio
import itertools
import random
import uuid
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest
import uuid_utils.compat

from app.auth import service as auth_service
from app.destinations import service as destination_service
from app.imports.service import Accepted207, ImportRequest, Options, accept
from app.kit import redis_fallback
from app.kit.encryption import Vault
from app.kit.notifier import Notifier
from app.kit.postgres.database import Database
from app.resource_types.catalog import Catalog
from app.resources.declaration import Resource
from app.sandbox import ANY, open_sandbox
from app.settings import Settings
from tests.conftest import LOOPBACK
from tests.types import CONTACTS

_keys = itertools.count(1)


@pytest.fixture(autouse=True)
def patient_with_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine Redis would be taken for away, and with it the circuits that a test is about."""
    monkeypatch.setattr(redis_fallback, "REDIS_TIMEOUT", 30.0)


class Sandbox:
    """The stand-in CRM: what reached it, and how it shall misbehave."""

    def __init__(self, base_url: str, session: aiohttp.ClientSession) -> None:
        self.base_url = base_url
        self._session = session

    async def effects(self) -> list[dict[str, Any]]:
        async with self._session.get(f"{self.base_url}/__sandbox__/ledger") as answer:
            return list((await answer.json())["effects"])

    async def calls(self) -> list[dict[str, Any]]:
        async with self._session.get(f"{self.base_url}/__sandbox__/calls") as answer:
            return list((await answer.json())["calls"])

    async def max_concurrent(self) -> int:
        async with self._session.get(f"{self.base_url}/__sandbox__/calls") as answer:
            return int((await answer.json())["max_concurrent"])

    async def contacts(self) -> dict[str, Any]:
        async with self._session.get(f"{self.base_url}/__sandbox__/contacts") as answer:
            return {c["properties"]["tranche_id"]: c for c in (await answer.json())["contacts"]}

    async def edit(self, key: str, **properties: Any) -> None:
        """What a user of the CRM types, by hand, into a record that is there or becomes one."""
        body = {"key_property": "tranche_id", "key": key, "properties": properties}
        async with self._session.post(f"{self.base_url}/__sandbox__/contacts", json=body) as answer:
            assert answer.status == 200, await answer.text()

    async def have(self, email: str, **properties: Any) -> str:
        """A contact that a user of the CRM made, known by its address alone; its id there."""
        body = {"key_property": "email", "key": email, "properties": properties}
        async with self._session.post(f"{self.base_url}/__sandbox__/contacts", json=body) as answer:
            assert answer.status == 200, await answer.text()
            return str((await answer.json())["contact"]["id"])

    async def held(self) -> dict[str, dict[str, Any]]:
        """Properties of every contact, by its id there."""
        async with self._session.get(f"{self.base_url}/__sandbox__/contacts") as answer:
            return {c["id"]: c["properties"] for c in (await answer.json())["contacts"]}

    async def remove(self, record_id: str) -> None:
        """A user of the CRM takes a record away."""
        async with self._session.delete(f"{self.base_url}/__sandbox__/contacts/{record_id}") as answer:
            assert answer.status == 200, await answer.text()

    async def misbehave(self, **faults: dict[str, Any]) -> None:
        async with self._session.put(f"{self.base_url}/__sandbox__/faults", json=faults) as answer:
            assert answer.status == 200, await answer.text()

    async def recover(self) -> None:
        await self.misbehave()

    async def reset(self, only: str) -> None:
        async with self._session.post(f"{self.base_url}/__sandbox__/reset?only={only}") as answer:
            assert answer.status == 200


class World:
    """One tenant, its destination `hubspot`, and what it imports."""

    def __init__(
        self, settings: Settings, database: Database, sandbox: Sandbox, tenant_id: int, notifier: Notifier
    ) -> None:
        self.settings = settings
        self.database = database
        self.sandbox = sandbox
        self.tenant_id = tenant_id
        self._notifier = notifier

    async def push(
        self, items: list[dict[str, Any]], resource: Resource = CONTACTS, catalog: Catalog | None = None, **options: Any
    ) -> Accepted207:
        answer = await accept(
            self.database,
            ImportRequest(
                tenant_id=self.tenant_id,
                key_id="test",
                request_id=f"request-{next(_keys)}",
                resource=resource,
                route=f"POST /v1/{resource.name}:bulk",
                key=f"key-{next(_keys)}",
                options=Options(**options),
            ),
            msgspec.json.encode({"items": items}),
            self.settings,
            catalog=catalog or Catalog(),
            new_id=uuid_utils.compat.uuid7,
            random=random.random,
        )
        assert isinstance(answer, Accepted207)
        self._notifier.notify(self.tenant_id, answer.to_notify, reason=str(answer.job_id))
        return answer

    async def rows(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        async with self.database.connection() as connection:
            return [dict(row) for row in await connection.fetch(query, *arguments)]

    async def effects(self, job_id: uuid.UUID) -> dict[str, int]:
        """Counts of a job's items by state at its one destination, without the zeros."""
        (row,) = await self.rows("SELECT * FROM effects WHERE tenant_id = $1 AND job_id = $2", self.tenant_id, job_id)
        return {k: v for k, v in row.items() if k not in ("tenant_id", "job_id", "destination_id") and v}

    async def finished(self, job_id: uuid.UUID, seconds: float = 45) -> str:
        """The state in which the job ended."""
        async with asyncio.timeout(seconds):
            while True:
                (row,) = await self.rows(
                    "SELECT state, finished_at FROM jobs WHERE tenant_id = $1 AND job_id = $2", self.tenant_id, job_id
                )
                if row["finished_at"]:
                    return str(row["state"])
                await asyncio.sleep(0.02)


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with open_sandbox(fields=[ANY]) as base_url, aiohttp.ClientSession() as session:
        yield Sandbox(base_url, session)


@pytest.fixture
async def world(settings: Settings, sandbox: Sandbox) -> AsyncIterator[World]:
    async for made in make_world(settings, sandbox):
        yield made


async def make_world(settings: Settings, sandbox: Sandbox) -> AsyncIterator[World]:
    database = Database(settings, application_name="tests")
    notifier = Notifier(settings)
    async with database.connection() as connection:
        tenant_id = await auth_service.ensure_tenant(connection, "acme")
        await destination_service.add_destination(
            connection,
            Vault(settings.secret_key),
            tenant_id,
            destination_service.NewDestination(
                name="hubspot", kind="hubspot", base_url=sandbox.base_url, token="pat-good"
            ),
            private=LOOPBACK,
        )
    yield World(settings, database, sandbox, tenant_id, notifier)
    await notifier.close()
    await database.close()


def people(count: int, start: int = 0, **fields: Any) -> list[dict[str, Any]]:
    """Contacts c000…, all good."""
    return [{"id": f"c{i:05}", "email": f"c{i:05}@example.com"} | fields for i in range(start, start + count)]
