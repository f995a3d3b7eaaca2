"""A CRM and a receiver of webhooks that echo what they were sent: none of it gets into a log or a webhook."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from aiohttp import web

from tests.acceptance.harness import Installation, until

CANARIES = {
    "email": "canary-mail@example.com",
    "first_name": "CanaryFirst",
    "last_name": "CanaryLast",
    "phone": "+4930901820",
    "company": "CanaryCompany",
    "attributes": {"canary_key": "CanaryValue"},
}
TRACES = ("canary", "Canary", "4930901820")


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


async def test_an_echoing_crm_puts_nobodys_data_into_logs_or_webhooks(tranche: Installation) -> None:
    async with echoing() as echo:
        changes = {"log_level": "debug", "webhook_private": "127.0.0.0/8", "breaker_min_calls": 2}
        api = await tranche.start_api(**changes)
        worker = await tranche.start_worker(**changes, delivery_attempts=9)
        new = {"name": "echo", "kind": "http", "base_url": f"{echo.url}/crm", "token": "token-of-echo"}
        answer = await tranche.ask("POST", "/v1/destinations", json=new)
        assert answer.status == 201, answer
        answer = await tranche.ask("POST", "/v1/webhook-endpoints", json={"url": f"{echo.url}/hook"})
        assert answer.status == 201, answer

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

    (item,) = msgspec.json.decode(dead)["data"]["items"]
    assert (item["code"], item["id"]) == ("DESTINATION_REJECTED", "c1")
    assert "refused" in item["detail"]
    assert "401" in msgspec.json.decode(opened[0])["data"]["detail"]
    for body in echo.received:
        assert [trace for trace in TRACES if trace in body.decode()] == [], body
    for part in (api, worker):
        assert [line for line in part.text().splitlines() if any(trace in line for trace in TRACES)] == []
    assert "DESTINATION_REJECTED" in worker.text()
    assert "webhook_failed" in worker.text()


async def _some(echo: Echo, kind: str) -> list[str]:
    return echo.events(kind)
