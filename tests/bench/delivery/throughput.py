"""How fast contacts go out: all of them wait, then the destination is resumed."""

from __future__ import annotations

import os
import time

import rich
from rich.table import Table

from tests.bench import rig
from tests.bench.delivery.site import CHUNK, WORKERS, Site

LATENCY = 0.05
GOAL = 20_000


async def measure(site: Site, contacts: int, concurrency: int, *, profile: bool) -> None:
    await site.start()
    await site.rows("UPDATE destinations SET options = jsonb_build_object('concurrency', $1::int)", concurrency)
    await site.sandbox.misbehave(latency={"latency": LATENCY})
    ids = rig.record_ids(contacts + CHUNK * concurrency)
    await site.post_all(ids[contacts:])  # warms up connections, plans and code
    await site.delivered("hubspot", 60)
    answer = await site.tranche.ask("POST", "/v1/destinations/hubspot/pause")
    assert answer.status == 200
    await site.post_all(ids[:contacts])
    await site.rows("VACUUM ANALYZE deliveries")
    await site.sandbox.reset("concurrency")
    before = site.processor_seconds()
    resumed = time.time()
    answer = await site.tranche.ask("POST", "/v1/destinations/hubspot/resume")
    assert answer.status == 200
    last = await site.delivered("hubspot", 300)
    took = last - resumed
    used = {name: seconds - before[name] for name, seconds in site.processor_seconds().items()}
    most = await site.sandbox.max_concurrent()
    assert await site.states("hubspot") == {"ok": len(ids)}
    table = Table(title=f"{contacts:,} contacts wait, {LATENCY * 1000:.0f} ms and {CHUNK} contacts a call")
    for name in ("workers", "calls at a time", "seconds", "contacts/s"):
        table.add_column(name, justify="right")
    table.add_row(str(WORKERS), f"{most} of {concurrency}", f"{took:.1f}", f"{contacts / took:,.0f}")
    rich.print(table)
    rich.print(f"goal: {GOAL:,} contacts/s: {'met' if contacts / took >= GOAL else 'missed'}")
    if profile:
        table = Table(title="processor time", caption=f"{os.cpu_count()} cores; load from elsewhere not counted")
        for name in ("part", "s", "ms per 1,000 contacts", "cores in use"):
            table.add_column(name, justify="left" if name == "part" else "right")
        for name, seconds in (*used.items(), ("all", sum(used.values()))):
            table.add_row(name, f"{seconds:.1f}", f"{seconds / contacts * 1e6:,.1f}", f"{seconds / took:.2f}")
        rich.print(table)
        cores = os.cpu_count() or 1
        bound = contacts / sum(used.values()) * cores
        rich.print(f"the bound of {cores} cores with nothing else to do: {bound:,.0f} contacts/s")
