"""How much memory API, worker and sandbox CRM hold while imports come in for minutes.

Imports of some items each come in at a steady rate, over contacts that change again and again, and are delivered by one
worker to the sandbox, by its name, so that names are looked up; a webhook tells of each job. One line every ten
seconds: megabytes (RSS) of the process that works of each part.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import uvloop
from aiohttp import web

from app.embedded import Engines
from app.migrations.runner import migrate
from app.settings import Settings
from tests.acceptance.harness import Installation, Part
from tests.bench import rig
from tests.conftest import SECRET_KEY

EVERY = 10.0
SLOW = 5.0


def megabytes(part: Part) -> float:
    """Of the largest process of a part: a server has one that only watches."""
    process = psutil.Process(part.child.pid)
    tree = [process, *process.children(recursive=True)]
    return max(each.memory_info().rss for each in tree) / 1e6


async def feed(tranche: Installation, a: argparse.Namespace, until: float, taken: list[int]) -> None:
    """So many imports a second, whether those before are answered or not."""
    ids = itertools.cycle(rig.record_ids(a.contacts))
    note = {"note": "x" * a.bytes} if a.bytes else {}
    connector = aiohttp.TCPConnector(limit=50)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one(number: int) -> None:
            headers = {
                "Authorization": f"Bearer {tranche.key}",
                "Idempotency-Key": f"soak-{number}",
                "Content-Type": "application/json",
                **({"Prefer": "respond-async"} if a.files else {}),
            }
            batch = rig.items(list(itertools.islice(ids, a.items)), number)
            for item in batch:
                item["attributes"] |= note
            body = rig.body(batch)
            async with session.post(f"{tranche.url}/v1/contacts:bulk", data=body, headers=headers) as answer:
                await answer.read()
                taken[0] += answer.status in (202, 207)

        began = time.monotonic()
        under_way: set[asyncio.Task[Any]] = set()
        for number in itertools.count():
            due = began + number / a.rate
            if due >= until:
                break
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if len(under_way) < 200:
                task = asyncio.create_task(one(number))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way, return_exceptions=True)


@asynccontextmanager
async def receiver() -> AsyncIterator[str]:
    """Takes any webhook; yields its URL."""

    async def take(request: web.Request) -> web.Response:
        await request.read()
        return web.Response()

    app = web.Application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    port = rig.free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        await runner.cleanup()


async def furnish(tranche: Installation, hook: str, unknown: int, slow: int) -> None:
    """The sandbox as a destination by its name, in the place of that by its address; and a webhook.

    With so many `unknown` destinations: each has a host name of its own that nobody knows. With so many `slow` ones:
    each is an account of the sandbox, whose calls all take `SLOW` seconds.
    """
    assert (await tranche.ask("DELETE", "/v1/destinations/hubspot")).status == 204
    url = f"http://localhost:{tranche.sandbox_port}"
    new = {"name": "crm", "kind": "hubspot", "base_url": url, "token": "pat-soak"}
    added = await tranche.ask("POST", "/v1/destinations", json=new)
    assert added.status == 201, added
    for number in range(unknown):
        strange = new | {"name": f"crm-{number}", "base_url": f"https://crm-{number}.invalid"}
        assert (await tranche.ask("POST", "/v1/destinations", json=strange)).status == 201
    for number in range(slow):
        account = new | {"name": f"slow-{number}", "base_url": f"{url}/portal/{number}"}
        assert (await tranche.ask("POST", "/v1/destinations", json=account)).status == 201
    if slow:
        await tranche.sandbox.misbehave(latency={"latency": SLOW})
    told = await tranche.ask("POST", "/v1/webhook-endpoints", json={"url": hook, "events": ["job.finished"]})
    assert told.status == 201, told


async def soak(folder: Path, a: argparse.Namespace) -> None:
    os.environ.update(dict(word.split("=", 1) for word in a.environment))
    async with Engines(folder / "engines") as engines, receiver() as hook:
        await migrate(engines.urls.database_url)
        settings = Settings(
            database_url=engines.urls.database_url,
            redis_url=engines.urls.redis_url,
            secret_key=SECRET_KEY,
            destination_private="127.0.0.0/8,::1/128",
            webhook_private="127.0.0.0/8,::1/128",
        )
        async with Installation(settings, folder) as tranche:
            await tranche.start_both()
            await furnish(tranche, hook, a.unknown, a.slow)
            parts = {part.child.name: part for part in tranche.parts}
            print(f"{a.rate:g} imports/s of {a.items} items over {a.contacts} contacts, {a.minutes:g} minutes; "
                  f"load average: {os.getloadavg()[0]:.2f}\n")  # fmt: skip
            print("| seconds | API, MB | worker, MB | sandbox, MB | imports taken | deliveries open |")
            print("|--:|--:|--:|--:|--:|--:|")
            taken = [0]
            began = time.monotonic()
            until = began + a.minutes * 60
            feeding = asyncio.create_task(feed(tranche, a, until, taken))
            first: dict[str, float] = {}
            while True:
                held = {name: megabytes(part) for name, part in parts.items()}
                (row,) = await tranche.rows("SELECT count(*) AS open FROM deliveries WHERE state <> 'done'")
                seconds = time.monotonic() - began
                if seconds >= 20 and not first:
                    first = held | {"at": seconds}
                print(
                    f"| {seconds:.0f} | {held['api']:.0f} | {held['worker']:.0f} | {held['sandbox']:.0f} "
                    f"| {taken[0]} | {row['open']} |",
                    flush=True,
                )
                if feeding.done():
                    break
                await asyncio.sleep(EVERY)
            await feeding
            if first:
                span = (time.monotonic() - began - first["at"]) / 60
                growth = ", ".join(f"{name} {(held[name] - first[name]) / span:+.1f}" for name in parts)
                print(f"\nMB a minute after the first 20 seconds: {growth}; load average: {os.getloadavg()[0]:.2f}")
            tranche.quiet = True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--rate", type=float, default=30.0, help="imports a second")
    parser.add_argument("--items", type=int, default=100, help="of an import")
    parser.add_argument("--contacts", type=int, default=20_000, help="that change again and again")
    parser.add_argument("--files", action="store_true", help="each is processed by the worker (202)")
    parser.add_argument(
        "--unknown", type=int, default=0, help="more destinations (49 at most), each with a host name that nobody knows"
    )
    parser.add_argument("--slow", type=int, default=0, help="more destinations (49 at most); calls take 5 s then")
    parser.add_argument("--bytes", type=int, default=0, help="more of attributes for each item")
    parser.add_argument(
        "--environment", nargs="*", default=[], metavar="NAME=VALUE", help="for the processes, as MALLOC_ARENA_MAX=1"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tranche-soak-") as folder:
        os.chmod(folder, 0o711)  # as root the engines run as somebody else
        uvloop.run(soak(Path(folder), arguments))


if __name__ == "__main__":
    main()
