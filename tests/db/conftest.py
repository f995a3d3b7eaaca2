"""A tenant on a fresh database, and batches that go through the one transaction."""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import msgspec
import pytest
import uuid_utils.compat

from app.auth import service as auth_service
from app.destinations import service as destination_service
from app.imports.service import Accepted207, ImportRequest, Options, Replay, accept
from app.kit.encryption import Vault
from app.kit.postgres.database import Database
from app.resource_types.catalog import Catalog
from app.settings import Settings
from jobs.retention import prune
from tests import stored
from tests.conftest import LOOPBACK, SECRET_KEY, as_app, as_owner, quick
from tests.types import CONTACTS

ROUTE = "POST /v1/contacts:bulk"
_numbers = itertools.count(1)


class Desk:
    """Where a tenant hands in batches, and what the database then holds."""

    def __init__(self, settings: Settings, database: Database, tenant_id: int) -> None:
        self.settings = settings
        self.database = database
        self.tenant_id = tenant_id

    async def add_destination(self, name: str) -> int:
        """Its id; the address leads nowhere."""
        async with self.database.connection() as connection:
            new = destination_service.NewDestination(
                name=name, kind="hubspot", base_url="http://127.0.0.1:9", token="pat"
            )
            await destination_service.add_destination(
                connection, Vault(SECRET_KEY), self.tenant_id, new, private=LOOPBACK
            )
        (row,) = await self.rows("SELECT destination_id FROM destinations WHERE name = $1", name)
        return int(row["destination_id"])

    async def send(
        self,
        items: list[dict[str, Any]] | bytes,
        *,
        key: str | None = None,
        draw: Callable[[], float] = random.random,
        settings: Settings | None = None,
        **options: Any,
    ) -> Accepted207 | Replay | None:
        """Under a key of its own unless one is given; `draw` is the source of randomness, 0 to 1."""
        number = next(_numbers)
        request = ImportRequest(
            tenant_id=self.tenant_id,
            key_id="test",
            request_id=f"request-{number}",
            resource=CONTACTS,
            route=ROUTE,
            key=key or f"key-{number}",
            options=Options(**options),
        )
        body = items if isinstance(items, bytes) else msgspec.json.encode({"items": items})
        return await accept(
            self.database,
            request,
            body,
            settings or self.settings,
            catalog=Catalog(),
            new_id=uuid_utils.compat.uuid7,
            random=draw,
        )

    async def push(self, items: list[dict[str, Any]] | bytes, **options: Any) -> Accepted207:
        """A batch that was really run."""
        answer = await self.send(items, **options)
        assert isinstance(answer, Accepted207)
        return answer

    async def rows(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        async with self.database.connection() as connection:
            return [dict(row) for row in await connection.fetch(query, *arguments)]

    async def contacts(self) -> list[dict[str, Any]]:
        """Of all tenants, as `tests.stored` reads them."""
        async with self.database.connection() as connection:
            return await stored.contacts(connection)

    async def history(self) -> list[dict[str, Any]]:
        async with self.database.connection() as connection:
            return await stored.history(connection)

    async def execute(self, query: str, *arguments: Any) -> None:
        """As the owner, who may change the schema."""
        connection = await asyncpg.connect(as_owner(self.settings.database_url))
        try:
            await connection.execute(query, *arguments)
        finally:
            await connection.close()

    async def counts(self) -> dict[str, int]:
        """Rows of every table that an import writes."""
        tables = ("records", "record_versions", "jobs", "job_chunks", "deliveries", "effects", "idempotency_keys")
        return {t: (await self.rows(f"SELECT count(*)::int AS n FROM {t}"))[0]["n"] for t in tables}


@pytest.fixture
def bare_settings(database_url: str) -> Settings:
    """No Redis: nothing here needs one."""
    return quick(as_app(database_url), "")


@pytest.fixture
async def desk(bare_settings: Settings) -> AsyncIterator[Desk]:
    database = Database(bare_settings, application_name="tests")
    async with database.connection() as connection:
        tenant_id = await auth_service.ensure_tenant(connection, "acme")
    yield Desk(bare_settings, database, tenant_id)
    await database.close()


def person(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": f"c{number:05}", "email": f"c{number:05}@example.com"} | fields


def people(count: int, **fields: Any) -> list[dict[str, Any]]:
    """Contacts c00000…, all good."""
    return [person(number, **fields) for number in range(count)]


def told(answer: Accepted207) -> list[tuple[str, str, int | None]]:
    """(status, result or error code, version) of each item, read from the answer's bytes."""
    body = msgspec.json.decode(answer.body)
    return [(i["status"], i.get("result") or i["error_code"], i.get("version")) for i in body["items"]]


async def forget_answers(desk: Desk, memory: float) -> None:
    """Twice: a key is forgotten once its answer is."""
    for _ in range(2):
        assert await prune(desk.database, msgspec.structs.replace(desk.settings, idempotency_memory=memory))
