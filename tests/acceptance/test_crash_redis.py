"""Redis forgets, dies, hangs and comes back: that costs latency, never work, and nobody has to be restarted."""

from __future__ import annotations

import asyncio
import signal
import statistics
import time
from datetime import UTC, datetime

from redis.asyncio import Redis

from app.embedded import Engines
from tests.acceptance.harness import Installation, changed_effects, people, until


async def _quick_imports(tranche: Installation, start: int, count: int = 8) -> list[str]:
    """Imports one after the other, none of which may wait for Redis: the measure is a request that needs none."""
    jobs, took, other = [], [], []
    for i in range(start, start + count):
        began = time.monotonic()
        await tranche.get("/v1/jobs")
        other.append(time.monotonic() - began)
        began = time.monotonic()
        jobs.append(await tranche.imported(people(20, start=20 * i)))
        took.append(time.monotonic() - began)
        await asyncio.sleep(0.1)
    assert max(took) < max(2, 10 * max(other)), (took, other)
    assert statistics.median(took) < max(0.4, 5 * statistics.median(other)), (took, other)
    return jobs


async def _arrive(tranche: Installation, jobs: list[str]) -> None:
    for job_id in jobs:
        assert (await tranche.finished(job_id))["state"] == "completed"


async def _each_once(tranche: Installation, count: int) -> None:
    effects = await tranche.sandbox.effects()
    assert set(changed_effects(effects).values()) == {1}
    assert len(effects) == count


async def test_flushall(fragile: Installation) -> None:
    """Queue, circuits and all are wiped again and again while imports go on: everything arrives, once."""
    await fragile.start_both()
    await fragile.sandbox.misbehave(latency={"latency": 0.05})
    jobs = []
    async with Redis.from_url(fragile.settings.redis_url) as redis:
        for i in range(10):
            jobs.append(await fragile.imported(people(100, start=100 * i)))
            await redis.flushall()
            await asyncio.sleep(0.05)
    await _arrive(fragile, jobs)
    await _each_once(fragile, 1000)


async def test_killed_and_away(fragile: Installation, own_engines: Engines) -> None:
    """No Redis for seconds: imports are as quick as ever and the sweeper has them synced; wake-ups come back."""
    sweep = 3.0
    api, worker = await fragile.start_both(sweep_interval=sweep)
    await _arrive(fragile, await _quick_imports(fragile, 0, 2))
    await own_engines.valkey.kill()
    away = await _quick_imports(fragile, 2)
    health = await fragile.ask("GET", "/health")
    assert health.status == 207
    assert health.json()["checks"]["cache"]["status"] == "fail"
    await _arrive(fragile, away)
    await _each_once(fragile, 200)

    away = await _quick_imports(fragile, 10, 2)
    await own_engines.restart()

    async def well() -> bool:
        return (await fragile.ask("GET", "/health")).status == 200

    await until(well)
    await _arrive(fragile, away)
    delays = []
    for i in range(12, 17):
        job_id = await fragile.imported(people(1, start=20 * i))
        done = datetime.now(UTC)
        await fragile.finished(job_id)
        call = (await fragile.sandbox.calls())[-1]
        delays.append((datetime.fromisoformat(call["at"]) - done).total_seconds())
        await asyncio.sleep(0.2)
    # By chance the sweeper may come by for one of them, not for most of them.
    assert statistics.median(delays) < sweep / 6, delays
    await _each_once(fragile, 245)
    assert api.child.returncode is None
    assert worker.child.returncode is None
    assert "Traceback" not in worker.text() + api.text()


async def test_hung(fragile: Installation, own_engines: Engines) -> None:
    """Redis takes connections and never answers: worse than dead, and still nobody waits for it."""
    api, worker = await fragile.start_both()
    await _arrive(fragile, await _quick_imports(fragile, 0, 2))
    assert own_engines.valkey.child is not None
    own_engines.valkey.child.send_signal(signal.SIGSTOP)
    try:
        jobs = await _quick_imports(fragile, 2)
        await _arrive(fragile, jobs)
    finally:
        own_engines.valkey.child.send_signal(signal.SIGCONT)
    await _arrive(fragile, await _quick_imports(fragile, 10, 2))
    await _each_once(fragile, 240)
    assert api.child.returncode is None
    assert worker.child.returncode is None
