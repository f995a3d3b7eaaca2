"""One circuit for all workers: two processes against one CRM that is down."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import Any

from tests.acceptance.harness import Installation, changed_effects, people, until

PROBES = 2
BREAKER = {
    "breaker_min_calls": 6,
    "breaker_probes": PROBES,
    "breaker_successes": 3,
    "breaker_open": 1.5,
    "breaker_open_cap": 2.0,
    "breaker_permit": 5.0,
}


async def _waiting_items(tranche: Installation, job_id: str) -> list[dict[str, Any]]:
    items = (await tranche.get(f"/v1/jobs/{job_id}/items"))["items"]
    return [
        item["destinations"]["hubspot"]
        for item in items
        if item["destinations"]["hubspot"].get("error_code") == "CIRCUIT_OPEN"
    ]


async def _total(tranche: Installation) -> int:
    return len(await tranche.sandbox.calls())


async def test_opens_probes_and_closes_across_two_workers(tranche: Installation) -> None:
    _, first = await tranche.start_both(**BREAKER)
    second = await tranche.start_worker(**BREAKER)
    await tranche.sandbox.misbehave(latency={"latency": 0.2}, status={"code": 503})
    jobs = [await tranche.imported(people(100, start=100 * i)) for i in range(24)]

    # It opens: the calls stop, and every item that waits says why and for how long.
    async def shown() -> list[dict[str, Any]]:
        return await _waiting_items(tranche, jobs[-1])

    waiting = await until(shown, every=0.01)
    assert len(waiting) == 100
    assert all(item["retry_after_seconds"] > 0 for item in waiting)
    assert {item["state"] for item in waiting} <= {"pending", "retry"}
    (opening,) = await tranche.rows(
        "SELECT min(at) + make_interval(secs => $1) AS at FROM circuit_changes WHERE after = 'open'",
        0.8 * BREAKER["breaker_open"] - 0.1,
    )
    # However late it was seen: what began before the first probe.
    begun = [datetime.fromisoformat(call["at"]) for call in await tranche.sandbox.calls()]
    at_opening = sum(at < opening["at"] for at in begun)
    assert at_opening <= 6 + 2 * 8, "calls under way when it opened may end, no more"

    async def told() -> bool:
        """It may be half-open for a moment, and health is a moment old."""
        (there,) = (await tranche.get("/v1/destinations"))["destinations"]
        return there["error_code"] == "CIRCUIT_OPEN" and (await tranche.ask("GET", "/health")).status == 207

    await until(told)

    # Half-open, again and again: never more probes at a time than allowed, from both processes together.
    async def quiet() -> bool:
        return all(call["seconds"] for call in await tranche.sandbox.calls())

    await until(quiet)
    await tranche.sandbox.reset("concurrency")
    before, began = await _total(tranche), time.monotonic()

    async def tried() -> bool:
        return time.monotonic() - began > 4.5 and await _total(tranche) - before >= 2

    await until(tried)
    probes = await _total(tranche) - before
    times = (time.monotonic() - began) / BREAKER["breaker_open"]
    assert probes <= (times + 2) * PROBES, "an open circuit lets next to nothing through"
    assert await tranche.sandbox.max_concurrent() <= PROBES

    # The CRM is slow but well: still no more than the probes, until enough of them succeeded.
    await tranche.sandbox.misbehave(latency={"latency": 0.2})
    for job_id in jobs:
        assert (await tranche.finished(job_id))["state"] == "completed"
    effects = changed_effects(await tranche.sandbox.effects())
    assert len(effects) == 2400
    assert set(effects.values()) == {1}
    closed = [part for part in (first, second) if '"after":"closed"' in part.text()]
    assert closed, "nobody saw it close"
    assert await tranche.sandbox.max_concurrent() > PROBES, "closed, it serves with all lanes again"
    # Waiting for the circuit was free: every attempt that was counted is a call that was made. A look for contacts that
    # were there before is followed by the call that sends them.
    (spent,) = await tranche.rows("SELECT sum(attempt)::int AS attempts FROM deliveries")
    calls = await tranche.sandbox.calls()
    looks = [call for call in calls if call["on"] == "read" and call["status"] == 207]
    assert spent["attempts"] == len(calls) - len(looks)
    for part in (first, second):
        assert "delivery_attempted" in part.text(), f"{part.log.name} did nothing"
    assert (await tranche.ask("GET", "/health")).status == 200


async def test_half_open_is_shared(tranche: Installation) -> None:
    """All that happens between half-open and closed, seen by the CRM: `probes` at a time, then more."""
    # No probe ends before it was seen that there are no more.
    patient = BREAKER | {"crm_total_timeout": 60.0, "breaker_permit": 120.0}
    await tranche.start_both(**patient)
    await tranche.start_worker(**patient)
    await tranche.sandbox.misbehave(status={"code": 503})
    jobs = [await tranche.imported(people(100, start=100 * i)) for i in range(12)]

    async def open_() -> bool:
        return bool(await _waiting_items(tranche, jobs[-1]))

    await until(open_, every=0.01)
    await asyncio.sleep(0.3)
    await tranche.sandbox.reset("concurrency")
    # Calls that neither fail nor end soon: as many as get through are all under way at the same time.
    await tranche.sandbox.misbehave(latency={"latency": 6})

    async def probing() -> bool:
        return await tranche.sandbox.max_concurrent() == PROBES

    await until(probing)
    await asyncio.sleep(1.0)
    assert await tranche.sandbox.max_concurrent() == PROBES
    await tranche.sandbox.misbehave()
    for job_id in jobs:
        assert (await tranche.finished(job_id))["state"] == "completed"
    effects = changed_effects(await tranche.sandbox.effects())
    assert len(effects) == 1200
    assert set(effects.values()) == {1}
