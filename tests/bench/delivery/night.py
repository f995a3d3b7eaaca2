"""A night in which one of two CRMs is down: what its users, the other CRM and the morning notice of it."""

from __future__ import annotations

import asyncio
import statistics
import time
from datetime import datetime
from typing import Any

import rich
from rich.table import Table

from app.settings import Settings
from tests.bench import rig
from tests.bench.delivery.site import BATCH, WORKERS, Site

COMPRESSION = 30
"""15 minutes of night in 30 seconds; the breaker's times shrink alike."""
GOAL_MORNING = 60.0
DAY = 25
"""Batches before the outage and after it, to compare with: the tables grow, and the machine has other work."""


async def measure(site: Site, contacts: int, night: float) -> None:
    plain = Settings()
    breaker = {
        name: getattr(plain, name) / COMPRESSION for name in ("breaker_window", "breaker_open", "breaker_open_cap")
    }
    await site.start(**breaker)
    broken = await site.another_sandbox("b")
    batches = contacts // BATCH
    await _arrive(site, 5, night / batches)  # warms up connections, plans and code
    evening = await _arrive(site, DAY, night / batches)
    await asyncio.gather(*(site.delivered(name, 60) for name in ("hubspot", "b")))
    known = len(await broken.calls())
    fell = time.time()
    await broken.misbehave(down={})
    during = await _arrive(site, batches, night / batches)
    arrived = time.time()
    well = await site.delivered("hubspot", 60)
    calls = (await broken.calls())[known:]
    waiting = await site.states("b")
    changes = await site.rows(
        """SELECT extract(epoch FROM c.at)::float8 AS at, c.after, c.seconds FROM circuit_changes c
        JOIN destinations d USING (tenant_id, destination_id)
        WHERE d.name = 'b' AND c.circuit = 'connection' ORDER BY c.change_id"""
    )
    await broken.recover()
    back = time.time()
    complete = await site.delivered("b", 120)
    morning = await _arrive(site, DAY, night / batches)
    await asyncio.gather(*(site.delivered(name, 60) for name in ("hubspot", "b")))
    states = {name: await site.states(name) for name in ("hubspot", "b")}
    _show({"evening, both CRMs up": evening, "night, B down": during, "morning, both up": morning})
    held = await broken.contacts()
    table = Table("", "", title="the two CRMs", show_header=False)
    total = contacts + (5 + 2 * DAY) * BATCH
    table.add_row("A has everything, after the last import", f"{max(0.0, well - arrived):.2f} s")
    table.add_row("items waiting for B at dawn", f"{sum(waiting.values()) - waiting.get('ok', 0):,}")
    table.add_row("B has everything, after its return", f"{complete - back:.1f} s")
    table.add_row("contacts at B", f"{len(held):,} of {total:,}")
    before, probes, periods, outside = _count(calls, changes, plain.breaker_probes)
    table.add_row("calls to B until its circuit opened", str(before))
    table.add_row(f"probes while it was down ({periods} times half-open)", str(probes))
    table.add_row("calls while its circuit was open", str(outside))
    rich.print(table)
    assert all(set(found) == {"ok"} for found in states.values()), states
    assert len(held) == total
    rich.print(
        f"goals: B complete within {GOAL_MORNING:g} s: {_met(complete - back <= GOAL_MORNING)}; "
        f"A within a second: {_met(well - arrived <= 1.0)}; "
        f"no call through an open circuit, at most {plain.breaker_probes} probes each time: "
        f"{_met(outside == 0 and probes <= periods * plain.breaker_probes)}"
    )
    rich.print(f"the night lasted {back - fell:.0f} s, with {WORKERS} workers")


async def _arrive(site: Site, batches: int, every: float) -> list[float]:
    """Batches at a steady rate, whatever the one before takes; milliseconds of each."""
    began = time.monotonic()

    async def one(number: int) -> float:
        ids = rig.record_ids(BATCH)
        await asyncio.sleep(max(0.0, began + number * every - time.monotonic()))
        return await site.post(ids)

    return list(await asyncio.gather(*(one(number) for number in range(batches))))


def _count(calls: list[dict[str, Any]], changes: list[dict[str, Any]], probes: int) -> tuple[int, int, int, int]:
    """Calls before the first opening, those while half-open, how often it was, and those while open.

    A call that began just before an opening may arrive just after it: it was let through while closed.
    """
    at = sorted(datetime.fromisoformat(call["at"]).timestamp() for call in calls)
    openings = [change["at"] for change in changes if change["after"] == "open"]
    halves = [change["at"] for change in changes if change["after"] == "half_open"]
    first = openings[0] if openings else float("inf")
    before = [moment for moment in at if moment <= first + 0.1]
    rest = [moment for moment in at if moment > first + 0.1]
    # A change is told when Redis has answered, a call arrives later still: between them lies a moment of grace.
    outside = [m for m in rest if not any(half - 0.05 <= m <= _end(half, openings) + 0.1 for half in halves)]
    return len(before), len(rest) - len(outside), len(halves), len(outside)


def _end(half: float, openings: list[float]) -> float:
    return next((opened for opened in openings if opened > half), float("inf"))


def _show(parts: dict[str, list[float]]) -> None:
    table = Table(title=f"imports of {BATCH:,} contacts, ms")
    for name in ("", "imports", "p50", "p99", "most"):
        table.add_column(name, justify="right" if name else "left")
    for name, times in parts.items():
        cuts = statistics.quantiles(times, n=100, method="inclusive")
        table.add_row(name, str(len(times)), f"{statistics.median(times):.0f}", f"{cuts[98]:.0f}", f"{max(times):.0f}")
    rich.print(table)


def _met(good: bool) -> str:
    return "met" if good else "missed"
