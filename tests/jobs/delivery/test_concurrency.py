"""How much goes out at a time: what a destination's options say, and what the CRM shows that it bears."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import Any

import msgspec

from app.settings import Settings
from jobs.crm.port import Timeouts
from jobs.delivery.policy import DeliveryPolicy
from jobs.worker import working
from tests.jobs.conftest import World, people

BREAKER: dict[str, Any] = {
    "breaker_min_calls": 4,
    "breaker_probes": 2,
    "breaker_successes": 3,
    "breaker_open": 0.6,
    "breaker_open_cap": 0.8,
    "breaker_permit": 5.0,
}


def moment(call: dict[str, Any]) -> float:
    return datetime.fromisoformat(call["at"]).timestamp()


LATENCY = 0.4
"""Seconds of a call: far above what a busy machine adds to it."""


async def attempts(world: World) -> int:
    (row,) = await world.rows("SELECT sum(attempt)::int AS attempts FROM deliveries")
    return int(row["attempts"])


async def blocked(world: World, code: str, seconds: float = 45) -> dict[str, Any]:
    async with asyncio.timeout(seconds):
        while True:
            (row,) = await world.rows(
                "SELECT blocked_code, extract(epoch FROM blocked_until - now())::float8 AS seconds FROM destinations"
            )
            if row["blocked_code"] == code:
                return row
            await asyncio.sleep(0.01)


def test_a_lease_outlasts_the_longest_call_of_its_destination() -> None:
    options = {"total_timeout": 50, "concurrency": 3, "rate": 7, "id_property": "x"}
    policy, settings = DeliveryPolicy.of(Settings(), options), Settings()
    assert policy.timeouts.total == 50
    assert policy.lease > 50
    assert (policy.concurrency, policy.rate) == (3, 7)
    short = DeliveryPolicy.of(settings, {"total_timeout": 1})
    assert (short.timeouts.connect, short.lease) == (1, settings.delivery_lease)
    usual = DeliveryPolicy.of(settings, {})
    assert usual.timeouts == Timeouts(settings.crm_connect_timeout, settings.crm_total_timeout)
    assert (usual.concurrency, usual.rate) == (settings.delivery_concurrency, settings.crm_rate)


async def test_a_destination_has_its_own_concurrency_over_all_workers(world: World) -> None:
    await world.rows("UPDATE destinations SET options = '{\"concurrency\": 3}'")
    await world.sandbox.misbehave(latency={"latency": LATENCY})
    async with working(world.settings), working(world.settings):
        jobs = [await world.push(people(100, start=100 * n)) for n in range(20)]
        for job in jobs:
            assert await world.finished(job.job_id) == "completed"
    assert await world.sandbox.max_concurrent() == 3


async def test_a_destination_has_its_own_timeout(world: World) -> None:
    """Two seconds are the default here, and an answer comes soon before; this destination is not waited for so long."""
    await world.rows("UPDATE destinations SET options = '{\"total_timeout\": 1}'")
    await world.sandbox.misbehave(slow={"latency": 1.8, "times": 1})
    async with working(world.settings):
        job = await world.push(people(1))
        assert await world.finished(job.job_id) == "completed"
    (call,) = await world.rows("SELECT asked, milliseconds FROM delivery_calls")
    assert call["asked"] == "push"
    assert 1_000 <= call["milliseconds"] < 1_700
    assert [call["on"] for call in await world.sandbox.calls()] == ["write", "read"]


async def test_new_work_does_not_wait_for_a_slow_call(world: World) -> None:
    """There are lanes free, so what is imported during a call that takes long goes out beside it."""
    await world.sandbox.misbehave(slow={"latency": 1.5, "times": 1})
    async with working(msgspec.structs.replace(world.settings, sweep_interval=60)):
        slow = await world.push(people(1))
        await asyncio.sleep(0.3)
        began = time.monotonic()
        quick = await world.push(people(1, start=1))
        assert await world.finished(quick.job_id) == "completed"
        assert time.monotonic() - began < 0.7
        assert await world.finished(slow.job_id) == "completed"


async def test_a_worker_makes_fewer_calls_at_a_time_after_a_429(world: World) -> None:
    """Up to eight at a time before, at most four after it, and more again with time."""
    await world.sandbox.misbehave(latency={"latency": LATENCY})
    async with working(world.settings):
        first = [await world.push(people(100, start=100 * n)) for n in range(24)]
        for job in first:
            await world.finished(job.job_id)
        assert await world.sandbox.max_concurrent() >= 6
        await world.sandbox.misbehave(
            rate_limit={"policyName": "SECONDLY", "times": 1}, latency={"latency": LATENCY}
        )
        limited = await world.push(people(1, start=5000))
        await world.finished(limited.job_id)
        await world.sandbox.reset("concurrency")
        # Four, five, six … at a time: a round each.
        known = len(await world.sandbox.calls())
        second = [await world.push(people(100, start=10_000 + 100 * n)) for n in range(40)]
        for job in second:
            await world.finished(job.job_id)
        calls = (await world.sandbox.calls())[known:]
        begin = moment(calls[0])
        assert len([call for call in calls if moment(call) < begin + 0.9 * LATENCY]) <= 5
        assert await world.sandbox.max_concurrent() > 5, "it has grown again"


async def test_no_storm_when_a_circuit_closes(world: World) -> None:
    """Sixty deliveries wait at two workers, which may make eight calls at a time. The CRM comes back: it is met by two
    calls, then by a few more each round, and in the end by all eight."""
    settings = msgspec.structs.replace(world.settings, **BREAKER)
    await world.sandbox.misbehave(status={"code": 500})
    async with working(settings), working(settings):
        jobs = [await world.push(people(100, start=100 * n)) for n in range(60)]
        await blocked(world, "CIRCUIT_OPEN")
        await asyncio.sleep(0.3)
        await world.sandbox.misbehave(latency={"latency": LATENCY})
        await world.sandbox.reset("concurrency")
        known = len(await world.sandbox.calls())
        for job in jobs:
            assert await world.finished(job.job_id) == "completed"
    calls = (await world.sandbox.calls())[known:]
    # Three probes close it. From then on: how many calls are under way when each begins.
    closed = sorted(moment(call) + call["seconds"] for call in calls)[2]
    after = sorted((moment(call), moment(call) + call["seconds"]) for call in calls if moment(call) > closed)
    under_way = [sum(1 for b, e in after[:n] if e > begin) + 1 for n, (begin, _) in enumerate(after)]
    assert max(under_way[:2]) <= 2
    assert max(under_way[:6]) <= 5, under_way
    early = [begin for begin, _ in after if begin < after[0][0] + 2.5 * LATENCY]
    assert len(early) <= 10, "in the first rounds two workers make two, four, perhaps six calls"
    assert await world.sandbox.max_concurrent() == 8, "and then it is served as before again"


async def test_items_behind_an_open_circuit_say_when(world: World) -> None:
    """Thousands wait. Through open, half-open and open again each says CIRCUIT_OPEN with what is left of the wait, none
    spends an attempt, and next to nothing reaches the CRM."""
    settings = msgspec.structs.replace(
        world.settings, **(BREAKER | {"breaker_open": 1.5, "breaker_open_cap": 1.5})
    )
    await world.sandbox.misbehave(status={"code": 500})
    async with working(settings), working(settings):
        jobs = [await world.push(people(100, start=100 * n)) for n in range(30)]
        first = await blocked(world, "CIRCUIT_OPEN")
        assert first["seconds"] <= 1.51
        await asyncio.sleep(0.2)
        at_first, began = len(await world.sandbox.calls()), time.monotonic()
        seen: list[float] = []
        while time.monotonic() - began < 5:
            (row,) = await world.rows(
                "SELECT blocked_code, extract(epoch FROM blocked_until - now())::float8 AS seconds FROM destinations"
            )
            assert row["blocked_code"] == "CIRCUIT_OPEN"
            if row["seconds"] > 0:
                seen.append(row["seconds"])
            await asyncio.sleep(0.02)
        assert max(seen) <= 1.51
        assert min(seen) < 0.5, "it counts down, and is no constant"
        probes = len(await world.sandbox.calls()) - at_first
        await asyncio.sleep(0.3)  # a change is written down after the call that met it
        openings = {
            r["opens"] for r in await world.rows("SELECT opens FROM circuit_changes WHERE after = 'open'")
        }
        assert len(openings) >= 3, "half-open again and again"
        assert 2 <= probes <= len(openings) * BREAKER["breaker_probes"]
        async with asyncio.timeout(60):  # an attempt is recorded after its call
            while await attempts(world) != len(await world.sandbox.calls()):
                await asyncio.sleep(0.05)
        await world.sandbox.recover()
        for job in jobs:
            assert await world.finished(job.job_id) == "completed"
