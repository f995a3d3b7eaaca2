"""The real service over real HTTP: granian in the test's own event loop, so that each test has its own."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import asyncpg
import msgspec
import pytest
import structlog
from granian.constants import Interfaces
from granian.server.embed import Server

from app.auth import service
from app.main import create_app
from app.settings import Settings

_keys = itertools.count(1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session", autouse=True)
def log() -> None:
    """Warnings and errors as plain text, where pytest shows them."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        cache_logger_on_first_use=False,
    )


class Answer(msgspec.Struct):
    """What came back, whole."""

    status: int
    headers: Any
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Api:
    """A client with a key of one tenant."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str | None) -> None:
        self.session = session
        self.url = url
        self.key = key

    def as_key(self, key: str | None) -> Api:
        return Api(self.session, self.url, key)

    async def request(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, data: Any = None
    ) -> Answer:
        from yarl import URL

        sent = {} if self.key is None else {"Authorization": f"Bearer {self.key}"}
        async with self.session.request(
            method,
            URL(self.url + path, encoded=True),
            headers=sent | (headers or {}),
            data=data,
            skip_auto_headers=("Content-Type",),
        ) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def get(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        return await self.request("GET", path, headers=headers)

    async def push(
        self, items: Any, *, key: str | None = None, query: str = "", headers: dict[str, str] | None = None
    ) -> Answer:
        """A batch under a new key, unless one is given; `items` may be bytes of a body."""
        body = items if isinstance(items, bytes) else msgspec.json.encode({"items": items})
        sent = {"Idempotency-Key": key or f"key-{next(_keys)}", "Content-Type": "application/json"}
        return await self.request("POST", f"/v1/contacts:bulk{query}", headers=sent | (headers or {}), data=body)


@asynccontextmanager
async def serve(settings: Settings) -> AsyncIterator[str]:
    """The service on a port of its own; yields its URL."""
    port = free_port()
    server = Server(
        create_app(settings), "127.0.0.1", port, interface=Interfaces.ASGI, log_enabled=False, websockets=False
    )
    task = asyncio.create_task(server.serve())
    url = f"http://127.0.0.1:{port}"
    async with aiohttp.ClientSession() as session:
        async with asyncio.timeout(60):
            while not await _is_up(session, url):
                await asyncio.sleep(0.02)
    try:
        yield url
    finally:
        server.stop()
        await asyncio.wait_for(task, 60)


async def _is_up(session: aiohttp.ClientSession, url: str) -> bool:
    with contextlib.suppress(aiohttp.ClientError):
        async with session.get(url + "/health/live"):
            return True
    return False


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection of the test's own, to look behind the service or to stand in its way."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def api_key(db: asyncpg.Connection[Any]) -> str:
    """A key of tenant `acme` with every scope."""
    return await service.create_key(db, "acme", ["import", "read", "admin"])


def aiohttp_session() -> aiohttp.ClientSession:
    """Without the usual 100 connections at most."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))


@pytest.fixture
async def api(settings: Settings, api_key: str) -> AsyncIterator[Api]:
    """The service on fresh engines, and a client that may do everything."""
    async with serve(settings) as url, aiohttp_session() as session:
        yield Api(session, url, api_key)


def person(number: int, **changes: Any) -> dict[str, Any]:
    return {"id": f"c{number}", "email": f"c{number}@example.com", "first_name": f"Name {number}"} | changes
