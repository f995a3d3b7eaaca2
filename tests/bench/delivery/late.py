"""A CRM that is added late: how fast a sync sends it what is there, and whether a verification finds what somebody
changed there since."""

import random
import time
from collections import Counter

import rich
from rich.table import Table

from tests.bench import rig
from tests.bench.delivery.site import CHUNK, WORKERS, Site
from tests.bench.delivery.throughput import LATENCY
from tests.jobs.conftest import Sandbox

GOAL = 15_000
PLANTED = {"missing": 50, "different": 60, "unknown": 27}
"""Differences that somebody makes there."""


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
    await verify(site, late, contacts)


async def verify(site: Site, late: Sandbox, contacts: int) -> None:
    """Plant differences, and look whether exactly these are found."""
    there = await late.contacts()
    chosen = random.Random(14).sample(sorted(there), PLANTED["missing"] + PLANTED["different"])
    expected = dict.fromkeys(chosen[: PLANTED["missing"]], "missing")
    for key in expected:
        await late.remove(there[key]["id"])
    for key in chosen[PLANTED["missing"] :]:
        await late.edit(key, phone="+1 555 0100")
        expected[key] = "different"
    for number in range(PLANTED["unknown"]):
        await late.edit(f"theirs-{number}", email=f"theirs-{number}@example.net")
        expected[f"theirs-{number}"] = "unknown"
    calls = len(await late.calls())
    began = time.time()
    answer = await site.tranche.ask("POST", "/v1/destinations/late/sync", json={"mode": "verify"})
    assert answer.status == 202, answer
    job = await site.tranche.finished(answer.json()["job_id"], 600)
    took = time.time() - began
    found: dict[str, str] = {}
    path = f"/v1/jobs/{job['job_id']}/items?status=drift&limit=1000"
    for item in (await site.tranche.ask("GET", path)).json()["items"]:
        found[item["id"]] = item["destinations"]["late"]["drift"]["kind"]
    exact = found == expected and job["drift"] == PLANTED == dict(Counter(found.values()))
    table = Table(title=f"the same CRM compared: {sum(PLANTED.values())} differences planted")
    for name in ("missing", "different", "unknown", "seconds", "records/s", "calls"):
        table.add_column(name, justify="right")
    counts = [f"{job['drift'][kind]} of {PLANTED[kind]}" for kind in PLANTED]
    table.add_row(*counts, f"{took:.1f}", f"{contacts / took:,.0f}", f"{len(await late.calls()) - calls:,}")
    rich.print(table)
    rich.print(f"goal: exactly these: {'met' if exact else 'missed'}")
