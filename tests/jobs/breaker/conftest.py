"""Valkeys for the breaker: one for all tests, and one that a test may kill."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from redis.asyncio import Redis

from tests.jobs.breaker.support import Valkey

T = TypeVar("T")


@pytest.fixture(scope="package")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    server = Valkey(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def redis(valkey: Valkey) -> AsyncIterator[Redis]:
    client = Redis.from_url(valkey.url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
async def own_redis(own_valkey: Valkey) -> AsyncIterator[Redis]:
    client = Redis.from_url(own_valkey.url)
    yield client
    await client.aclose()


@pytest.fixture
def run(valkey: Valkey) -> Iterator[Callable[[Callable[[Redis], Coroutine[Any, Any, T]]], T]]:
    """Runs a coroutine function with a client on one loop: Hypothesis calls plain functions."""
    with asyncio.Runner() as runner:
        client = Redis.from_url(valkey.url)
        yield lambda work: runner.run(work(client))
        runner.run(client.aclose())
