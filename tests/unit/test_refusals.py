"""Refusals come at once, unless they come in floods."""

from __future__ import annotations

import asyncio
import time

import pytest

from app.http import refusal_limiter
from app.http.refusal_limiter import Refusals


async def timed(times: int) -> float:
    paced = Refusals()
    started = time.monotonic()
    await asyncio.gather(*(paced.wait() for _ in range(times)))
    return time.monotonic() - started


async def test_a_few_are_not_held_back() -> None:
    assert await timed(50) < 0.1


async def test_a_flood_is_spread_over_time_and_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusal_limiter, "LONGEST", 0.5)
    assert 0.2 < await timed(100) < 0.45
    assert 0.45 < await timed(2_000) < 2.0


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

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await asyncio.gather(*(insist() for _ in range(40)))
    assert count <= 100 + 50 + 40


async def test_beyond_what_is_held_back_they_go_out_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusal_limiter, "_MOST", 10)
    paced = Refusals()
    waiting = [asyncio.create_task(paced.wait()) for _ in range(500)]
    await asyncio.sleep(0.01)
    assert sum(not task.done() for task in waiting) <= 10
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
