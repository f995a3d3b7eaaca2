"""Large imports through real processes: killed all over, they leave what they would have left in peace."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.embedded import Engines
from tests.acceptance.harness import Installation
from tests.acceptance.large import Ordeal, write_people

KILLED_ROWS = 20_000


@pytest.mark.slow
async def test_killed_all_over(fragile: Installation, own_engines: Engines, folder: Path) -> None:
    """API, workers, PostgreSQL and Valkey die at random moments of an import, one round with ids that repeat."""
    ordeal = Ordeal(fragile, own_engines, seed=2)
    await ordeal.start()
    for seed, repeated in ((1, 0.0), (2, 0.05)):
        path = write_people(folder / f"{seed}.csv", KILLED_ROWS, seed=seed, repeated=repeated)
        measure, times = await ordeal.undisturbed(path, on_duplicate="last_wins")
        assert len(measure.outcomes) == KILLED_ROWS
        assert set(measure.effects.values()) == {1}
        suffered = await ordeal.disturbed(path, measure, times, on_duplicate="last_wins")
        print(times, suffered)
        assert suffered.differences == []
        assert {name for name, _ in suffered.kills} == {"API", "worker 1", "worker 2", "PostgreSQL", "Valkey"}
