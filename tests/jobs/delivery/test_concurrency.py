"""How much goes out at a time: what a destination's options say, and what the CRM shows that it bears."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import pytest

from app.settings import Settings
from app.vocabulary.states import EffectState
from jobs.crm.port import Health, Pause, Reply, SentRecord, Timeouts
from jobs.delivery.policy import DeliveryPolicy
from jobs.worker import working
from tests.jobs.conftest import World, people
from tests.jobs.delivery.gate import Gate
from tests.jobs.delivery.test_hard_times import every, well

BREAKER: dict[str, Any] = {
    "breaker_min_calls": 4,
    "breaker_probes": 2,
    "breaker_successes": 3,
    "breaker_open": 0.6,
    "breaker_open_cap": 0.8,
    "breaker_permit": 5.0,
}


PATIENT: dict[str, Any] = {
    "crm_total_timeout": 60.0,
    "delivery_lease": 90.0,
    "sweep_interval": 60.0,
    "breaker_slow_call": 60.0,
}
"""Nothing happens by itself while a test holds a call."""


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


async def broken(contacts: list[SentRecord]) -> Reply:
    """What a CRM that is down looks like."""
    reply: Reply = await every(EffectState.RETRY)(contacts)
    return msgspec.structs.replace(reply, health=Health.CRM_FAULT, status=500)


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
    await world.sandbox.misbehave(latency={"latency": 0.4})
    async with working(world.settings), working(world.settings):
        jobs = [await world.push(people(100, start=100 * n)) for n in range(20)]
        for job in jobs:
            assert await world.finished(job.job_id) == "completed"
    assert await world.sandbox.max_concurrent() == 3


async def test_a_destination_has_its_own_timeout(world: World) -> None:
    """The settings allow an answer that comes after twenty seconds; this destination is not waited for so long."""
    await world.rows("UPDATE destinations SET options = '{\"total_timeout\": 5}'")
    await world.sandbox.misbehave(slow={"latency": 20, "times": 1})
    async with working(msgspec.structs.replace(world.settings, crm_total_timeout=40.0)):
        job = await world.push(people(1))
        assert await world.finished(job.job_id) == "completed"
    (call,) = await world.rows("SELECT asked, milliseconds FROM delivery_calls")
    assert call["asked"] == "push"
    assert 5_000 <= call["milliseconds"] < 19_000
    assert [call["on"] for call in await world.sandbox.calls()] == ["write", "read"]


async def test_new_work_does_not_wait_for_a_slow_call(world: World, gate: Gate) -> None:
    """There are lanes free, so what is imported during a call that takes long goes out beside it."""

    async def push(contacts: list[SentRecord]) -> Any:
        return await (gate.push if contacts[0].record_id == "c00000" else well)(contacts)

    gate.script.push = push
    async with working(msgspec.structs.replace(world.settings, **PATIENT)):
        slow = await world.push(people(1))
        await gate.holds(1)
        quick = await world.push(people(1, start=1))
        assert await world.finished(quick.job_id) == "completed"
        assert len(gate.held) == 1
        gate.open()
        assert await world.finished(slow.job_id) == "completed"


async def test_a_worker_makes_fewer_calls_at_a_time_after_a_429(world: World, gate: Gate) -> None:
    """Up to eight at a time before, at most four after it, and more again with time."""
    gate.script.push = gate.push
    jobs = [await world.push(people(10, start=10 * n)) for n in range(60)]
    async with working(msgspec.structs.replace(world.settings, **PATIENT)):
        await gate.holds(2)
        gate.release(1)
        await gate.holds(8)
        gate.release(1, every(EffectState.RETRY, pause=Pause(0.1, "too many")))
        gate.release(7)
        assert await gate.stable() <= 4
        async with asyncio.timeout(45):
            # Four, five, six … at a time: a round each.
            while len(gate.held) <= 5:
                gate.release(1)
                assert await gate.stable() <= 6, "it grows by one"
        gate.open()
        for job in jobs:
            assert await world.finished(job.job_id) == "completed"


async def test_no_storm_when_a_circuit_closes(world: World, gate: Gate) -> None:
    """Sixty deliveries wait at two workers, which may make eight calls at a time. The CRM comes back: it is met by two
    calls, then by a few more each round, and in the end by all eight."""
    settings = msgspec.structs.replace(world.settings, **(BREAKER | PATIENT | {"breaker_permit": 60.0}))
    gate.script.push = broken
    rounds: list[int] = []
    async with working(settings), working(settings):
        jobs = [await world.push(people(10, start=10 * n)) for n in range(60)]
        await blocked(world, "CIRCUIT_OPEN")
        await asyncio.sleep(0.3)
        gate.script.push = gate.push
        async with asyncio.timeout(60):
            while not rounds or rounds[-1] < 8:
                rounds.append(await gate.stable())
                gate.release(len(gate.held))
        gate.open()
        for job in jobs:
            assert await world.finished(job.job_id) == "completed"
    # Three probes close it, two at a time. From then on each of two workers has one call, then one more a round.
    assert max(rounds[:3]) <= 2, rounds
    assert rounds[3] <= 5, rounds
    assert sum(rounds[2:5]) <= 10, rounds
    assert rounds[-1] == 8, "and then it is served as before again"


async def openings(world: World) -> int:
    (row,) = await world.rows("SELECT count(DISTINCT opens)::int AS n FROM circuit_changes WHERE after = 'open'")
    return int(row["n"])


async def test_items_behind_an_open_circuit_say_when(world: World) -> None:
    """Thousands wait. Through open, half-open and open again, three times, each says CIRCUIT_OPEN with what is left of
    the wait, none spends an attempt, and next to nothing reaches the CRM."""
    settings = msgspec.structs.replace(world.settings, **(BREAKER | {"breaker_open": 1.5, "breaker_open_cap": 1.5}))
    await world.sandbox.misbehave(status={"code": 500})
    async with working(settings), working(settings):
        jobs = [await world.push(people(100, start=100 * n)) for n in range(30)]
        first = await blocked(world, "CIRCUIT_OPEN")
        assert first["seconds"] <= 1.51
        await asyncio.sleep(0.2)
        at_first, began = len(await world.sandbox.calls()), time.monotonic()
        seen: list[float] = []
        while time.monotonic() - began < 5 or min(seen) >= 0.5 or await openings(world) < 3:
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
        assert 2 <= probes <= await openings(world) * BREAKER["breaker_probes"]
        async with asyncio.timeout(60):  # an attempt is recorded after its call
            while await attempts(world) != len(await world.sandbox.calls()):
                await asyncio.sleep(0.05)
        await world.sandbox.recover()
        for job in jobs:
            assert await world.finished(job.job_id) == "completed"
