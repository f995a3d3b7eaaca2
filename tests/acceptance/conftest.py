"""An installation of processes for each test, and nothing left of it afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app.embedded import Engines
from app.settings import Settings
from tests.acceptance.harness import Installation, installation, processes
from tests.conftest import quick


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for logs and data; no process may know of it when the test is over."""
    made = tmp_path / "tranche"
    made.mkdir()
    yield made
    assert processes(made) == [], "a test left a process behind"


@pytest.fixture
async def tranche(settings: Settings, folder: Path) -> AsyncIterator[Installation]:
    """On the run's engines, with a database of its own. Parts are started by the test."""
    async with installation(settings, folder) as made:
        yield made


@pytest.fixture
async def fragile(own_engines: Engines, folder: Path) -> AsyncIterator[Installation]:
    """On `own_engines`, which may be killed."""
    settings = quick(*own_engines.app_urls)
    async with installation(settings, folder, own_engines.urls.database_url) as made:
        yield made
