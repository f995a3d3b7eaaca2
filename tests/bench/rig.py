"""What every benchmark stands on: embedded engines with fsync on, a real server, one tenant with one destination."""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import random
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from app.auth import service as auth_service
from app.cli.local import place
from app.destinations import service as destination_service
from app.embedded import Child, Engines
from app.kit.encryption import Vault
from app.migrations.runner import migrate
from app.settings import Settings
from app.vocabulary.addresses import parse_networks

_keys = itertools.count(1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(settings: Settings, **more: str) -> dict[str, str]:
    return os.environ | {
        "TRANCHE_DATABASE_URL": settings.database_url,
        "TRANCHE_REDIS_URL": settings.redis_url,
        "TRANCHE_SECRET_KEY": settings.secret_key,
        "TRANCHE_DESTINATION_PRIVATE": settings.destination_private,
        "TRANCHE_LOG_LEVEL": "warning",
        **more,
    }


@asynccontextmanager
async def installation(
    folder: Path, *, api_workers: int, destination: str = "http://127.0.0.1:9", kind: str = "hubspot"
) -> AsyncIterator[tuple[Settings, str, str]]:
    """Settings, the API's URL and a key. The destination is owed deliveries; no worker sends them."""
    async with Engines(folder) as engines:
        settings = Settings(
            database_url=engines.urls.database_url,
            redis_url=engines.urls.redis_url,
            secret_key=base64.b64encode(os.urandom(32)).decode(),
            destination_private="127.0.0.0/8",
        )
        await migrate(settings.database_url)
        async with place.connection(settings) as connection:
            key = await auth_service.create_key(connection, "bench", list(auth_service.SCOPES))
            tenant_id = await auth_service.find_tenant(connection, "bench")
            await destination_service.add_destination(
                connection,
                Vault(settings.secret_key),
                tenant_id,
                destination_service.NewDestination(name=kind, kind=kind, base_url=destination, token="bench"),
                private=parse_networks(settings.destination_private),
            )
        port = free_port()
        server = Child.spawn(
            [sys.executable, "-m", "app.cli.main", "serve", "--port", str(port), "--workers", str(api_workers)],
            env=environment(settings),
        )
        try:
            url = f"http://127.0.0.1:{port}"
            await until_ready(f"{url}/health/ready")
            yield settings, url, key
        finally:
            await server.stop()


async def until_ready(url: str) -> None:
    async with asyncio.timeout(30), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(url) as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)


def record_ids(count: int) -> list[str]:
    return [f"{random.getrandbits(64):016x}" for _ in range(count)]


def items(ids: list[str], revision: int) -> list[dict[str, Any]]:
    """Items of about 262 bytes of JSON; a revision differs from the one before in e-mail and attributes."""
    return [
        {
            "id": record_id,
            "email": f"{record_id}.{revision}@example.com",
            "first_name": "Sheryl",
            "last_name": "Baxter",
            "phone": "(496)978-3969x58947",
            "company": "Rasmussen Group",
            "attributes": {
                "city": "East Leonard",
                "country": "Chile",
                "subscribed": "2020-08-24",
                "revision": revision,
            },
        }
        for record_id in ids
    ]


def body(batch: list[dict[str, Any]]) -> bytes:
    return msgspec.json.encode({"items": batch})


async def post(session: aiohttp.ClientSession, url: str, key: str, data: bytes, *, type: str = "contacts") -> None:
    headers = {
        "Authorization": f"Bearer {key}",
        "Idempotency-Key": f"bench-{os.getpid()}-{next(_keys)}",
        "Content-Type": "application/json",
    }
    async with session.post(f"{url}/v1/{type}:bulk", data=data, headers=headers) as answer:
        told = await answer.read()
        if answer.status != 207 or b'"failed":0,"retry":0' not in told:
            raise RuntimeError(f"{answer.status}: {told[:300]!r}")
