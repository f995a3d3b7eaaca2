"""A CRM that is added late: how fast a sync sends it what is there."""

import time

import rich
from rich.table import Table

from tests.bench import rig
from tests.bench.delivery.site import CHUNK, WORKERS, Site
from tests.bench.delivery.throughput import LATENCY

GOAL = 15_000


async def measure(site: Site, contacts: int, concurrency: int) -> None:
    await site.start()
    await site.rows("UPDATE destinations SET options = jsonb_build_object('concurrency', $1::int)", concurrency)
    await site.post_all(rig.record_ids(contacts))
    await site.delivered("hubspot", 600)
    late = await site.another_sandbox("late")
    await site.rows(
        "UPDATE destinations SET options = jsonb_build_object('concurrency', $1::int) WHERE name = 'late'", concurrency
    )
    await late.misbehave(latency={"latency": LATENCY})
    began = time.time()
    answer = await site.tranche.ask("POST", "/v1/destinations/late/sync", json={"mode": "missing"})
    assert answer.status == 202, answer
    job = await site.tranche.finished(answer.json()["job_id"], 600)
    took = time.time() - began
    assert job["state"] == "completed", job
    assert await site.states("late") == {"ok": contacts}
    assert len(await late.contacts()) == contacts
    table = Table(title=f"a second CRM for {contacts:,} records, {LATENCY * 1000:.0f} ms and {CHUNK} records a call")
    for name in ("workers", "calls at a time", "seconds", "records/s"):
        table.add_column(name, justify="right")
    table.add_row(
        str(WORKERS), f"{await late.max_concurrent()} of {concurrency}", f"{took:.1f}", f"{contacts / took:,.0f}"
    )
    rich.print(table)
    rich.print(f"goal: {GOAL:,} records/s: {'met' if contacts / took >= GOAL else 'missed'}")
