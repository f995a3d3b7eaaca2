"""What a worker holds in memory: for calls under way no more than its budget, of a failed call nothing."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import msgspec
import pytest

from jobs.crm.exchange import Answer, NoAnswer, send
from jobs.crm.port import Timeouts
from jobs.delivery.limits import memory_budget
from jobs.outbound.ssrf import DestinationSessions
from jobs.worker import working
from tests.conftest import LOOPBACK
from tests.jobs.conftest import World, people

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextmanager
def no_body_left() -> Iterator[None]:
    """Bodies of calls are gone when their last reference is: nobody waits for the garbage collector."""

    def bodies() -> int:
        return sum(isinstance(each, aiohttp.BytesPayload) for each in gc.get_objects())

    gc.collect()
    before = bodies()
    gc.disable()
    try:
        yield
        assert bodies() == before
    finally:
        gc.enable()


def saying(words: bytes) -> Handler:
    """Reads something, says this and hangs up."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(words)
        writer.close()

    return handle


async def silence(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def call(egress: DestinationSessions, url: str) -> Answer | NoAnswer:
    payload: dict[str, Any] = {"name": "x" * 1000}
    limits = Timeouts(0.3, 0.5)
    return await send(egress.to(url), "POST", url, payload=payload, headers={}, timeouts=limits)


@pytest.mark.parametrize(
    ("handler", "scheme", "detail"),
    [
        (saying(b""), "http", "the connection ended without an answer"),
        (saying(b"220 mail.example ready\r\n"), "http", "what it answered is not HTTP"),
        (saying(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"), "http", "the answer broke off"),
        (saying(b"220 mail.example ready\r\n"), "https", "the TLS connection failed"),
        (silence, "http", "timed out"),
        (silence, "https", "timed out"),
    ],
)
async def test_nothing_is_held_of_a_call_that_was_answered_badly(handler: Handler, scheme: str, detail: str) -> None:
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, DestinationSessions(LOOPBACK) as egress:
        with no_body_left():
            answer = await call(egress, f"{scheme}://127.0.0.1:{port}/")
            told = answer.trouble if isinstance(answer, Answer) else answer.detail
            assert told.startswith(detail)


@pytest.mark.parametrize(
    ("url", "detail"),
    [
        ("https://no-such-host.invalid/", "its host name cannot be resolved"),
        ("http://127.0.0.1:1/", "the connection was refused"),
        ("https://localhost:1/", "the connection was refused"),
        ("https://10.0.0.1/", "its host leads to an address"),
    ],
)
async def test_nothing_is_held_of_a_call_that_reached_nobody(
    monkeypatch: pytest.MonkeyPatch, url: str, detail: str
) -> None:
    """It is made again and again, each time with all of its contacts."""
    look_up = socket.getaddrinfo

    def find(name: Any, *arguments: Any, **options: Any) -> Any:
        if name == "no-such-host.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return look_up(name, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", find)
    async with DestinationSessions(LOOPBACK) as egress:
        with no_body_left():
            answers = await asyncio.gather(*(call(egress, url) for _ in range(3)))
            assert {answer.detail[: len(detail)] for answer in answers} == {detail}  # type: ignore[union-attr]
            del answers


def large(count: int, first: int, size: int) -> list[dict[str, Any]]:
    """People with so many bytes of attributes each."""
    return [each | {"attributes": {"note": "x" * size}} for each in people(count, first)]


async def test_large_contacts_are_sent_by_fewer_calls_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the destination was fast with small ones, and nobody has seen a large one before."""
    monkeypatch.setattr(memory_budget, "BUDGET", 30_000)
    settings = msgspec.structs.replace(world.settings, chunk_size=10)
    world.settings = settings
    await world.sandbox.misbehave(latency={"latency": 0.4})
    async with working(settings):
        small = await world.push(people(200))
        assert await world.finished(small.job_id) == "completed"
        assert await world.sandbox.max_concurrent() > 2
        await world.sandbox.reset("concurrency")
        jobs = [await world.push(large(100, first, 2_000)) for first in (1_000, 2_000)]
        for job in jobs:
            assert await world.finished(job.job_id, 90) == "completed"
    assert await world.sandbox.max_concurrent() == 1
    assert {row["attempt"] for row in await world.rows("SELECT attempt FROM deliveries")} == {1}


def test_the_budget_is_shared_by_destinations_and_each_has_room_for_one_delivery() -> None:
    holding: set[memory_budget.MemoryShare] = set()
    first, second = memory_budget.MemoryShare(holding), memory_budget.MemoryShare(holding)
    half = memory_budget.BUDGET // 2
    assert first.reserve(half)
    assert first.reserve(half)
    assert not first.reserve(1)
    assert second.reserve(memory_budget.BUDGET)
    assert not second.reserve(1)
    second.release(memory_budget.BUDGET)
    first.release(half)
    assert first.reserve(half)
