"""A service, a worker, a CRM and a receiver of webhooks, with what reached each."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from app.auth import service as auth_service
from app.destinations import service as destination_service
from app.kit.encryption import Vault
from app.kit.postgres.database import Database
from app.settings import Settings
from app.webhooks import service as webhook_service
from app.webhooks.rules import Policy
from jobs.worker import working
from tests.conftest import LOOPBACK
from tests.http.conftest import Answer, Api, serve
from tests.jobs.conftest import Sandbox

_names = itertools.count(1)


@asynccontextmanager
async def listening(handle: Callable[[web.Request], Any]) -> AsyncIterator[str]:
    """A server of this process; yields its URL."""
    app = web.Application(client_max_size=50_000_000)
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


class Hook:
    """Receives webhooks."""

    def __init__(self) -> None:
        self.status = 204
        self.calls: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        body = msgspec.json.decode(await request.read())
        self.calls.append(({name.lower(): value for name, value in request.headers.items()}, body))
        return web.Response(status=self.status)

    async def about(self, job_id: str, event: str = "job.finished") -> dict[str, str]:
        """The header fields of the first call about a job."""
        async with asyncio.timeout(45):
            while True:
                for headers, body in self.calls:
                    if body["type"] == event and body["data"].get("job_id") == job_id:
                        return headers
                await asyncio.sleep(0.02)


class Chain:
    """A tenant with a destination and a webhook endpoint, and all that they call."""

    def __init__(self, api: Api, sandbox: Sandbox, hook: Hook, tenant_id: int, endpoint_id: int) -> None:
        self.api, self.sandbox, self.hook = api, sandbox, hook
        self.tenant_id, self.endpoint_id = tenant_id, endpoint_id

    async def push(self, items: list[dict[str, Any]], query: str = "", **headers: str) -> tuple[Answer, str]:
        """The answer and the job, once it is done."""
        answer = await self.api.push(items, query=query, headers={n.replace("_", "-"): v for n, v in headers.items()})
        assert answer.status in (202, 207), answer.body
        job_id: str = answer.json()["job_id"]
        await self.hook.about(job_id)
        return answer, job_id

    async def calls(self, request_id: str) -> list[dict[str, Any]]:
        return [call for call in await self.sandbox.calls() if call["request_id"] == request_id]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, webhook_private="127.0.0.0/8", webhook_waits="0.1", webhook_timeout=30.0)


async def add_chain(api: Api, settings: Settings, sandbox: Sandbox, hook: Hook) -> Chain:
    """Another tenant of the service at `api`."""
    vault, name = Vault(settings.secret_key), f"tenant-{next(_names)}"
    database = Database(settings, application_name="tests")
    async with database.connection() as connection:
        tenant_id = await auth_service.ensure_tenant(connection, name)
        crm = destination_service.NewDestination(
            name="hubspot", kind="hubspot", base_url=sandbox.base_url, token="pat-good"
        )
        await destination_service.add_destination(connection, vault, tenant_id, crm, private=LOOPBACK)
        key = await auth_service.create_key(connection, name, ["import", "read", "admin"])
    new = webhook_service.NewWebhookEndpoint(url=hook.url, events=None, policy=Policy.SHORT)
    made = await webhook_service.add(database, vault, settings, tenant_id, new, actor="tests")
    await database.close()
    return Chain(api.as_key(key), sandbox, hook, tenant_id, made.endpoint_id)


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    made = Hook()
    async with listening(made.handle) as made.url:
        yield made


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Api]:
    """The service without a key, and a worker."""
    async with serve(settings) as url, working(settings), aiohttp.ClientSession() as session:
        yield Api(session, url, None)


@pytest.fixture
async def chain(api: Api, settings: Settings, sandbox: Sandbox, hook: Hook) -> Chain:
    return await add_chain(api, settings, sandbox, hook)
