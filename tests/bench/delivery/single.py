"""A service that takes one record a call: how many deliveries a second."""

from __future__ import annotations

import time

import rich
from rich.table import Table

from tests.bench import rig
from tests.bench.delivery.site import WORKERS, Site

LATENCY = 0.005
GOAL = 3_000
OPTIONS = {
    "path": "/by-key/{type}/{id}",
    "method": "PUT",
    "item": {"email": "{fields.email}", "phone": "{fields.phone}", "custom": "{attributes}"},
    "body": "{record}",
    "results": "status",
}


async def measure(site: Site, contacts: int, concurrency: int) -> None:
    await site.start()
    await site.rows("UPDATE destinations SET state = 'paused'")
    one = await site.another_sandbox("one", "http", OPTIONS | {"concurrency": concurrency})
    await one.misbehave(latency={"latency": LATENCY})
    ids = rig.record_ids(contacts + 1_000)
    await site.post_all(ids[contacts:])  # warms up connections, plans and code
    await site.delivered("one", 60)
    answer = await site.tranche.ask("POST", "/v1/destinations/one/pause")
    assert answer.status == 200
    await site.post_all(ids[:contacts])
    await site.rows("VACUUM ANALYZE deliveries")
    await one.reset("concurrency")
    before, resumed = site.processor_seconds(), time.time()
    answer = await site.tranche.ask("POST", "/v1/destinations/one/resume")
    assert answer.status == 200
    took = await site.delivered("one", 300) - resumed
    used = {name: seconds - before[name] for name, seconds in site.processor_seconds().items()}
    assert await site.states("one") == {"ok": len(ids)}
    table = Table(title=f"{contacts:,} records wait, {LATENCY * 1000:.0f} ms and one record a call")
    for name in ("workers", "calls at a time", "seconds", "calls/s", *(f"{part}, ms a call" for part in used)):
        table.add_column(name, justify="right")
    costs = (f"{seconds / contacts * 1000:.2f}" for seconds in used.values())
    most = f"{await one.max_concurrent()} of {concurrency}"
    table.add_row(str(WORKERS), most, f"{took:.1f}", f"{contacts / took:,.0f}", *costs)
    rich.print(table)
    rich.print(f"goal: {GOAL:,} calls/s: {'met' if contacts / took >= GOAL else 'missed'}")
