"""Waits for the destinations, and notes the rows that one of them refused."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from app.cli.client.clock import Clock, Patience
from app.cli.client.errors import PatienceError
from app.cli.client.http import Api
from app.cli.client.jobs import MAX_PREFER, JobWatch, fetch_items, is_finished
from app.cli.client.results import Note, Results, SentJob
from app.domain.outcomes import EffectState

_LOST: Final = (EffectState.FAILED, EffectState.DEAD)


async def wait_for_effects(
    api: Api,
    results: Results,
    *,
    clock: Clock,
    patience: Patience,
    concurrency: int,
    moved: Callable[[], None] = lambda: None,
) -> bool:
    """Poll the awaited jobs in turn until each is finished; false when patience ended first.

    Raises:
        RefusedError: a job cannot be read with this key.
    """
    queue = deque((job, JobWatch(api, job.job_id)) for job in results.open_jobs())

    async def work() -> bool:
        while queue:
            job, watch = queue.popleft()
            # A job that is waited for keeps others from being seen, so wait long only when it is among the last.
            hold = min(patience.left(), MAX_PREFER if len(queue) < concurrency else 1.0)
            try:
                finished = await _look(api, job, watch, hold, results)
            except PatienceError:
                return False
            moved()
            if finished:
                continue
            if watch.pause > patience.left():
                return False
            queue.append((job, watch))
            await clock.sleep(watch.pause)
        return True

    tasks = [asyncio.create_task(work()) for _ in range(min(concurrency, len(queue)))]
    try:
        return all(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _look(api: Api, job: SentJob, watch: JobWatch, hold: float, results: Results) -> bool:
    now = await watch.poll(hold)
    job.state, job.effects, job.waiting = now.state, now.effects, now.waiting.detail if now.waiting else ""
    if not is_finished(now):
        return False
    for name, counts in now.effects.items():
        for state in _LOST:
            if counts.get(state):
                await _note_lost(api, job, name, state, results)
    job.awaited = False
    return True


async def _note_lost(api: Api, job: SentJob, destination: str, state: EffectState, results: Results) -> None:
    filters = {"destination": destination, "status": state.value}
    async for item in fetch_items(api, job.job_id, filters):
        effect = item.destinations.get(destination)
        if effect is None or item.index >= len(job.numbers):
            continue
        number, line = job.numbers[item.index], job.line(item.index)
        results.add(
            [Note(number, line, destination, effect.state, effect.error_code or "", effect.detail or "")]
        )
