"""Secrets and people's data, hunted where they have no business.

A CRM and a receiver of webhooks echo what they are sent: none of it gets into a log, a webhook, Redis or metrics, and
no secret is stored where it can be read.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import msgspec
from aiohttp import web
from redis.asyncio import Redis

from app.auth import tokens
from app.embedded import Engines
from tests.acceptance.harness import Answer, Installation, free_port, until

CANARIES = {
    "email": "canary-mail@example.com",
    "first_name": "CanaryFirst",
    "last_name": "CanaryLast",
    "phone": "+4930901820",
    "company": "CanaryCompany",
    "attributes": {"canary_key": "CanaryValue"},
}
TRACES = ("canary", "Canary", "4930901820")
CRM_TOKEN = "token-of-echo-4711"
OPERATOR_TOKEN = "operators-token-4712"
METRICS_TOKEN = "metrics-token-4713"


class Echo:
    """A CRM that repeats the body that it was sent, and a receiver of webhooks that repeats its own."""

    url: str
    status = 400

    def __init__(self) -> None:
        self.received: list[bytes] = []

    async def crm(self, request: web.Request) -> web.Response:
        text = (await request.read()).decode()
        return web.json_response({"message": f"cannot take {text}"}, status=self.status)

    async def hook(self, request: web.Request) -> web.Response:
        self.received.append(await request.read())
        return web.Response(status=400, text="canary of the receiver")

    def events(self, kind: str) -> list[str]:
        return [body.decode() for body in self.received if msgspec.json.decode(body)["type"] == kind]


@asynccontextmanager
async def echoing() -> AsyncIterator[Echo]:
    echo = Echo()
    app = web.Application()
    app.router.add_route("*", "/crm/{path:.*}", echo.crm)
    app.router.add_route("*", "/hook", echo.hook)
    runner = web.AppRunner(app, shutdown_timeout=0.5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    echo.url = f"http://127.0.0.1:{site.port}"
    try:
        yield echo
    finally:
        await runner.cleanup()


async def test_an_echoing_crm_puts_nobodys_data_into_logs_or_webhooks(tranche: Installation, engines: Engines) -> None:
    async with echoing() as echo:
        worker_port = free_port()
        changes = {
            "log_level": "debug",
            "webhook_private": "127.0.0.0/8",
            "breaker_min_calls": 2,
            "operator_token": OPERATOR_TOKEN,
            "metrics_token": METRICS_TOKEN,
            "worker_port": worker_port,
            "limit_key_items": "1000/60",
        }
        api = await tranche.start_api(**changes)
        worker = await tranche.start_worker(**changes, delivery_attempts=9)
        new = {"name": "echo", "kind": "http", "base_url": f"{echo.url}/crm", "token": CRM_TOKEN}
        answer = await tranche.ask("POST", "/v1/destinations", json=new)
        assert answer.status == 201, answer
        keyed = {"Idempotency-Key": "canary-key"}
        hook = {"url": f"{echo.url}/hook"}
        answers = [await tranche.ask("POST", "/v1/webhook-endpoints", json=hook, headers=keyed) for _ in range(2)]
        assert [answer.status for answer in answers] == [201, 201]
        assert answers[1].headers["Idempotency-Replayed"] == "true"
        webhook_secret = answers[1].json()["secret"]

        refused = await tranche.imported([{"id": "c1", **CANARIES}])
        await tranche.finished(refused)
        (dead_letter,) = (await tranche.get(f"/v1/dead-letters?job_id={refused}"))["dead_letters"]
        assert "canary-mail@example.com" in dead_letter["detail"], "the CRM did not echo"
        (dead,) = await until(lambda: _some(echo, "item.dead"))

        echo.status = 401
        failing = await tranche.imported(
            [{"id": f"c{n}", **CANARIES, "email": f"canary-{n}@example.com"} for n in range(2, 6)]
        )
        opened = await until(lambda: _some(echo, "circuit.opened"))
        await tranche.ask("POST", f"/v1/jobs/{failing}/cancel")
        problems = await provoke(tranche)
        # Answers to readers are kept for the time in which PostgreSQL is away.
        for path in ("/v1/contacts/c1", f"/v1/jobs/{refused}", f"/v1/jobs/{refused}/items"):
            await tranche.get(path)
        kept = await until(lambda: snapshots(tranche))
        metrics = [
            await read_metrics(f"{tranche.url}/metrics"),
            await read_metrics(f"http://127.0.0.1:{worker_port}/metrics"),
        ]
        held = await read_redis(tranche)
        rows = await read_rows(tranche)

    (item,) = msgspec.json.decode(dead)["data"]["items"]
    assert (item["code"], item["id"]) == ("DESTINATION_REJECTED", "c1")
    assert "refused" in item["detail"]
    assert "401" in msgspec.json.decode(opened[0])["data"]["detail"]
    for body in echo.received:
        assert [trace for trace in TRACES if trace in body.decode()] == [], body
    assert "DESTINATION_REJECTED" in worker.text()
    assert "webhook_attempted" in worker.text()
    assert len(kept) >= 3
    assert any("tranche:limits" in name or "limit" in name for name in held), sorted(held)
    assert "tranche_" in metrics[0]
    assert "tranche_" in metrics[1]
    databases_log = (engines._data_dir / "log" / "postgres.log").read_text("utf-8", "replace")
    places = {
        "log of the API": api.text(),
        "log of the worker": worker.text(),
        "log of PostgreSQL": databases_log,
        "Redis": "\n".join(f"{name} {value}" for name, value in held.items()),
        "metrics": "\n".join(metrics),
        "problems": "\n".join(problems),
    }
    parsed = tokens.parse(tranche.key)
    assert parsed is not None
    secrets = {
        "API key": tranche.key,
        "its hash": parsed.secret_hash.hex(),
        "CRM token": CRM_TOKEN,
        "webhook secret": webhook_secret.removeprefix("whsec_"),
        "operator's token": OPERATOR_TOKEN,
        "metrics token": METRICS_TOKEN,
        "secret key": tranche.settings.secret_key,
    }
    for place, text in places.items():
        assert [line for line in text.splitlines() if any(trace in line for trace in TRACES)] == [], place
        assert [name for name, secret in secrets.items() if secret in text] == [], place
    del secrets["its hash"]
    assert [name for name, secret in secrets.items() if secret in rows] == [], "stored in the clear"
    assert "canary-mail@example.com" in rows, "the tables were not read"


async def provoke(tranche: Installation) -> list[str]:
    """The texts of errors whose requests were full of what they must not repeat to another, or in a log."""
    person = {"id": "c\0", "email": "canary\ud800@example.com"}
    # A lone surrogate and a NUL, which PostgreSQL refuses; keys that are no good; ids that are none.
    body = msgspec.json.encode({"items": [{"id": "c9", "email": "canary-9@example.com", "attributes": {"n": 10**300}}]})
    bad: list[Answer] = [
        await tranche.ask("POST", "/v1/contacts:bulk", data=b'{"items":[{"id":"c\\u0000","email":"canary'),
        await tranche.ask("POST", "/v1/contacts:bulk", headers={"Idempotency-Key": "k1"}, data=b"{canary"),
        await tranche.ask("GET", "/v1/jobs", headers={"Authorization": f"Bearer {tranche.key}x"}),
        await tranche.ask("GET", "/v1/jobs", headers={"Authorization": f"Bearer {tranche.key[:-1]}"}),
        await tranche.ask("GET", "/v1/jobs?cursor=canary"),
        await tranche.ask("GET", "/v1/dead-letters?record_id=canary%00"),
        await tranche.ask("GET", "/v1/tenants", headers={"Authorization": f"Bearer {OPERATOR_TOKEN}x"}),
        await tranche.ask("POST", "/v1/destinations", json={"name": "echo", "kind": "http", "token": CRM_TOKEN}),
        await tranche.ask("PATCH", "/v1/destinations/echo", json={"token": CRM_TOKEN, "options": {"path": 1}}),
    ]
    assert all(400 <= answer.status < 500 for answer in bad), bad
    await tranche.ask("POST", "/v1/contacts:bulk", headers={"Idempotency-Key": "k2"}, data=body)
    await tranche.ask("POST", "/v1/contacts:bulk", headers={"Idempotency-Key": "k3"}, json={"items": [person]})
    return [answer.body.decode() for answer in bad]


async def read_metrics(url: str) -> str:
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {METRICS_TOKEN}"}) as session,
        session.get(url) as answer,
    ):
        assert answer.status == 200
        return await answer.text()


async def snapshots(tranche: Installation) -> list[str]:
    found = [name for name in await read_redis(tranche) if name.startswith("tranche:snapshots")]
    return found if len(found) >= 3 else []


async def read_redis(tranche: Installation) -> dict[str, str]:
    """Every key with all that is in it, as text; what is no text as its bytes are escaped."""
    read = {
        b"string": lambda redis, key: redis.get(key),
        b"hash": lambda redis, key: redis.hgetall(key),
        b"list": lambda redis, key: redis.lrange(key, 0, -1),
        b"set": lambda redis, key: redis.smembers(key),
        b"zset": lambda redis, key: redis.zrange(key, 0, -1, withscores=True),
        b"stream": lambda redis, key: redis.xrange(key),
    }
    async with Redis.from_url(tranche.settings.redis_url) as redis:
        return {
            key.decode("latin-1"): repr(await read[await redis.type(key)](redis, key))
            async for key in redis.scan_iter(count=1_000)
            if await redis.exists(key)
        }


async def read_rows(tranche: Installation) -> str:
    """Every row of every table; bytes as the text that they may be."""
    tables = await tranche.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    rows = [row for table in tables for row in await tranche.rows(f"SELECT * FROM {table['tablename']}")]
    return "\n".join(
        value.decode("latin-1") if isinstance(value, bytes) else str(value) for row in rows for value in row.values()
    )


async def _some(echo: Echo, kind: str) -> list[str]:
    return echo.events(kind)
