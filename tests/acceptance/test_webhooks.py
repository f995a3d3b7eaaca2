"""Webhooks between real processes: an event outlives the worker that was sending it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from standardwebhooks import Webhook

from tests.acceptance.harness import Installation, people, until

QUICK: dict[str, Any] = {"webhook_private": "127.0.0.0/8", "webhook_timeout": 6.0, "webhook_waits": "0.2,0.2"}


class Receiver:
    """Keeps what it is told; holds its first answer back while it is `slow`."""

    def __init__(self) -> None:
        self.calls: list[tuple[dict[str, str], bytes]] = []
        self.slow = 0.0
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.calls.append(({k.lower(): v for k, v in request.headers.items()}, body))
        await asyncio.sleep(self.slow)
        return web.Response(status=204)

    async def told(self, count: int, seconds: float = 60) -> None:
        async def look() -> bool:
            return len(self.calls) >= count

        await until(look, seconds)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    app = web.Application()
    app.router.add_post("/", made.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    yield made
    await runner.cleanup()


async def _listen(tranche: Installation, receiver: Receiver) -> dict[str, Any]:
    told = {"url": receiver.url, "events": ["job.finished"]}
    answer = await tranche.ask("POST", "/v1/webhook-endpoints", json=told)
    assert answer.status == 201, answer.body
    made: dict[str, Any] = answer.json()
    return made


async def _messages(tranche: Installation, made: dict[str, Any]) -> list[dict[str, Any]]:
    found = await tranche.get(f"/v1/webhook-endpoints/{made['endpoint_id']}/messages")
    return list(found["messages"])


async def test_an_event_outlives_the_worker_that_was_sending_it(tranche: Installation, receiver: Receiver) -> None:
    """Killed in the middle of the call: the next worker sends it again, under the same id."""
    await tranche.start_api(**QUICK)
    worker = await tranche.start_worker(**QUICK)
    made = await _listen(tranche, receiver)
    receiver.slow = 5.0
    await tranche.push([{"id": "x", "email": "nobody"}])
    await receiver.told(1)
    await worker.child.kill()
    receiver.slow = 0.0
    await tranche.start_worker(**QUICK)
    await receiver.told(2)

    async def settled() -> bool:
        return [m["state"] for m in await _messages(tranche, made)] == ["ok"]

    await until(settled)
    assert len({headers["webhook-id"] for headers, _ in receiver.calls}) == 1
    for headers, body in receiver.calls:
        assert Webhook(made["secret"]).verify(body, headers)["type"] == "job.finished"


async def test_a_stopping_worker_hears_the_answer(tranche: Installation, receiver: Receiver) -> None:
    await tranche.start_api(**QUICK)
    worker = await tranche.start_worker(**QUICK)
    made = await _listen(tranche, receiver)
    receiver.slow = 2.0
    await tranche.push([{"id": "x", "email": "nobody"}])
    await receiver.told(1)
    worker.child.send_signal(signal.SIGTERM)
    assert await worker.ends() == 0
    (message,) = await _messages(tranche, made)
    assert (message["state"], message["attempt"]) == ("ok", 1)
    assert len(receiver.calls) == 1


async def test_events_written_without_a_worker_wait_for_one(tranche: Installation, receiver: Receiver) -> None:
    """And without Redis to announce them: each arrives once."""
    await tranche.start_api(**QUICK)
    made = await _listen(tranche, receiver)
    for _ in range(20):
        await tranche.push([{"id": "x", "email": "nobody"}])
    await tranche.push(people(3))  # goes on to a destination: not at its end yet
    assert [m["state"] for m in await _messages(tranche, made)] == ["pending"] * 20
    await tranche.start_worker(**QUICK)
    await receiver.told(20)
    await asyncio.sleep(0.5)
    ids = [headers["webhook-id"] for headers, body in receiver.calls if b'"failed": 1' in body]
    assert len(ids) == len(set(ids)) == 20
