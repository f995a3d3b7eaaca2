"""The chaos suite itself, in small: some rounds on real processes, one with a bug in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.harness import processes
from tests.chaos import campaign
from tests.chaos.stage import opened


@pytest.mark.slow
async def test_some_rounds_keep_every_promise(tmp_path: Path) -> None:
    """Nothing is found, and no process is left."""
    folder = tmp_path / "chaos"
    async with opened(folder / "stage") as stage:
        for seed in (1, 2):
            result = await campaign.play_seed(stage, folder, seed)
            assert result.findings == [], result.plan.describe()
            assert result.counts["effects"] > 50
            assert result.counts["versions"] > 50
    assert processes(folder) == []


@pytest.mark.slow
async def test_a_planted_bug_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "chaos"
    async with opened(folder / "stage", bug="counted_twice") as stage:
        result = await campaign.play_seed(stage, folder, 2)
    assert "sum" in {finding.name for finding in result.findings}
    assert processes(folder) == []
