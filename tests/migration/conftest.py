"""An empty database, as an operator makes one."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator

import asyncpg
import pytest

from app.embedded import Engines
from tests.conftest import with_path

_numbers = itertools.count(1)


@pytest.fixture
async def empty_url(engines: Engines) -> AsyncIterator[str]:
    name = f"empty_{os.getpid()}_{next(_numbers)}"
    admin = await asyncpg.connect(engines.urls.database_url)
    try:
        await admin.execute(f"CREATE DATABASE {name} STRATEGY file_copy")
        yield with_path(engines.urls.database_url, name)
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()
