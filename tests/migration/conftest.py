"""An empty database, as an operator makes one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from app.embedded import Engines
from tests.conftest import new_database


@pytest.fixture
async def empty_url(engines: Engines) -> AsyncIterator[str]:
    async with new_database(engines) as url:
        yield url
