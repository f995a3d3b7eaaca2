"""Refusals come at once, unless they come in floods."""

from __future__ import annotations

import asyncio
import time

import pytest

from app.http import refusal_limiter
from app.http.refusal_limiter import Refusals


async def timed(times: int, monkeypatch: pytest.MonkeyPatch) -> float:
    """The longest wait of so many that come at the same moment, in seconds."""
    waits = [0.0]

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    now = asyncio.get_running_loop().time()
    with monkeypatch.context() as patched:
        patched.setattr(asyncio.get_running_loop(), "time", lambda: now)
        patched.setattr(refusal_limiter.asyncio, "sleep", sleep)
        paced = Refusals()
        await asyncio.gather(*(paced.wait() for _ in range(times)))
    return max(waits)


async def test_a_few_are_not_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await timed(50, monkeypatch) < 0.01


async def test_a_flood_is_spread_over_time_and_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusal_limiter, "LONGEST", 0.5)
    assert 0.2 < await timed(100, monkeypatch) < 0.3
    assert await timed(2_000, monkeypatch) == pytest.approx(0.5)


async def test_a_client_that_insists_is_slowed_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty connections that try again as soon as they are refused get no more than the rate, and the burst."""
    monkeypatch.setattr(refusal_limiter, "RATE", 100.0)
    paced = Refusals()
    count = 0

    async def insist() -> None:
        nonlocal count
        while True:
            await paced.wait()
            count += 1

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await asyncio.gather(*(insist() for _ in range(40)))
    assert count <= 100 * (time.monotonic() - began) + 50 + 40


async def test_beyond_what_is_held_back_they_go_out_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusal_limiter, "_MOST", 10)
    paced = Refusals()
    waiting = [asyncio.create_task(paced.wait()) for _ in range(500)]
    await asyncio.sleep(0.01)
    assert sum(not task.done() for task in waiting) <= 10
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
