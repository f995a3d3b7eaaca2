"""Large imports through real processes: killed all over, they leave what they would have left in peace."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from app.auth import service
from app.cli.local import place
from app.embedded import Engines
from tests.acceptance.harness import Installation, people, until
from tests.acceptance.large import TARGET, Ordeal, peak, write_people

KILLED_ROWS = 20_000
SMALL_ROWS = 20_000
LARGE_ROWS = 200_000
MARGIN = 12
"""Megabytes; tenfold as many rows take a hundred times that when they are held."""


@pytest.mark.slow
async def test_killed_all_over(fragile: Installation, own_engines: Engines, folder: Path) -> None:
    """API, workers, PostgreSQL and Valkey die at random moments of an import, one round with ids that repeat."""
    ordeal = Ordeal(fragile, own_engines, seed=2)
    await ordeal.start()
    for seed, repeated in ((1, 0.0), (2, 0.05)):
        path = write_people(folder / f"{seed}.csv", KILLED_ROWS, seed=seed, repeated=repeated)
        measure, times = await ordeal.undisturbed(path, on_duplicate="last_wins")
        assert len(measure.outcomes) == KILLED_ROWS
        assert 0 < measure.summary["failed"] < KILLED_ROWS / 20
        assert set(measure.effects.values()) == {1}
        assert {key for key, *_ in measure.effects} == measure.contacts.keys()
        suffered = await ordeal.disturbed(path, measure, times, on_duplicate="last_wins")
        print(times, suffered)
        assert suffered.differences == []
        assert {name for name, _ in suffered.kills} == {"API", "worker 1", "worker 2", "PostgreSQL", "Valkey"}


async def _upload(tranche: Installation, path: Path) -> str:
    headers = {"Content-Type": "text/csv", "Idempotency-Key": path.name, "Prefer": "respond-async"}
    with path.open("rb") as file:
        answer = await tranche.ask("POST", TARGET, headers=headers, data=file)
    assert answer.status == 202, answer
    return str(answer.json()["job_id"])


async def _applied(tranche: Installation, job_id: str) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        job = await tranche.job(job_id)
        return job if job["applied_at"] else None

    return await until(look, 120, every=0.2)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
async def test_memory_does_not_grow_with_the_file(tranche: Installation, folder: Path) -> None:
    """Ten times the rows take neither the API nor the worker more memory."""
    peaks: list[tuple[float, float]] = []
    for rows in (SMALL_ROWS, LARGE_ROWS):
        api, worker = await tranche.start_both()
        await tranche.ask("POST", "/v1/destinations/hubspot/pause")
        path = write_people(folder / f"{rows}.csv", rows, seed=rows)
        job = await _applied(tranche, await _upload(tranche, path))
        assert job["summary"]["total"] == rows
        peaks.append((peak(api.pid), peak(worker.pid)))
        await asyncio.gather(api.child.stop(), worker.child.stop())
    (small_api, small_worker), (large_api, large_worker) = peaks
    assert large_api < small_api + MARGIN, peaks
    assert large_worker < small_worker + MARGIN, peaks


@pytest.mark.slow
async def test_a_small_import_passes_a_large_one(tranche: Installation, folder: Path) -> None:
    """Progress shows soon after the 202, and whoever comes later with little is done before the large one is."""
    await tranche.start_both()
    await tranche.ask("POST", "/v1/destinations/hubspot/pause")
    async with place.connection(tranche.settings) as connection:
        other = await service.create_key(connection, "other", list(service.SCOPES))
    large = await _upload(tranche, write_people(folder / "large.csv", LARGE_ROWS, seed=3))

    async def moves() -> bool:
        return bool((await tranche.job(large))["progress"]["processed"])

    await until(moves, 10)
    for key, authorization in (("small", tranche.key), ("other", other)):
        headers = {"Prefer": "respond-async", "Idempotency-Key": key, "Authorization": f"Bearer {authorization}"}
        answer = await tranche.ask("POST", TARGET, headers=headers, json={"items": people(100)})
        assert answer.status == 202, answer

        async def done(url: str = answer.json()["status_url"], headers: dict[str, str] = headers) -> bool:
            told = await tranche.ask("GET", url, headers={"Authorization": headers["Authorization"]})
            return bool(told.json()["applied_at"])

        await until(done, 10)
    job = await tranche.job(large)
    assert job["state"] == "running"
    assert job["progress"]["not_processed"] > 0
    await tranche.ask("POST", f"/v1/jobs/{large}/cancel")
