"""Imports that wait to be accepted: shares by bytes and weight, who is refused, and who keeps no place."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app import telemetry
from app.errors import ClientGone, Overloaded
from app.kit.postgres.fair_connections import ACTING, SERVICE, Actor, ConnectionQueue
from tests.simulated_time import SimulatedTime

Gone = Callable[[], Awaitable[Any]]


class Imports:
    """Imports that hold their slots until they are ended, or for a while."""

    def __init__(self, timeout: float = 60.0) -> None:
        self.queue = ConnectionQueue(10, share=3, timeout=timeout)
        self.begun: list[tuple[int, int]] = []
        """Tenant and size, in the order in which they were served."""
        self.tasks: list[asyncio.Task[None]] = []
        self._ends: dict[int, list[asyncio.Event]] = {}

    def send(self, tenant_id: int, count: int = 1, size: int = 2_600, **more: Any) -> list[asyncio.Task[None]]:
        sent = [asyncio.create_task(self._hold(Actor(tenant_id), size, **more)) for _ in range(count)]
        self.tasks += sent
        return sent

    async def _hold(
        self, actor: Actor, size: int, *, seconds: float | None = None, until: float = float("inf"),
        weight: float = 1.0, gone: Gone | None = None,
    ) -> None:  # fmt: skip
        ACTING.set(actor._replace(weight=weight))
        async with self.queue.take_import(size, until=until, gone=gone):
            self.begun.append((actor.tenant_id, size))
            if seconds is not None:
                await asyncio.sleep(seconds)
            else:
                end = asyncio.Event()
                self._ends.setdefault(actor.tenant_id, []).append(end)
                await end.wait()

    def end(self, tenant_id: int) -> None:
        self._ends[tenant_id].pop(0).set()

    async def until(self, begun: int) -> None:
        async with asyncio.timeout(30):
            while len(self.begun) < begun:
                await asyncio.sleep(0)

    def served(self) -> Counter[int]:
        """Bytes of each tenant."""
        found = Counter[int]()
        for tenant_id, size in self.begun:
            found[tenant_id] += size
        return found


async def settle() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


@asynccontextmanager
async def some(timeout: float = 60.0) -> AsyncIterator[Imports]:
    imports = Imports(timeout)
    yield imports
    for task in imports.tasks:
        task.cancel()
    await asyncio.gather(*imports.tasks, return_exceptions=True)


@pytest.fixture(scope="module")
def event_loop_policy() -> SimulatedTime:
    return SimulatedTime()


@pytest.fixture(autouse=True)
def shed() -> Any:
    """Reasons of imports that were not served, by tenant."""
    found: list[tuple[int, str]] = []

    def hook(event: telemetry.Event) -> None:
        if isinstance(event, telemetry.RequestShed):
            found.append((event.tenant_id, event.reason))

    before, telemetry.HOOKS[:] = list(telemetry.HOOKS), [hook]
    yield found
    telemetry.HOOKS[:] = before


async def test_large_batches_get_no_more_bytes_than_small_ones() -> None:
    async with some() as imports:
        imports.send(1, 60, 262_000, seconds=0.0)
        imports.send(2, 2_000, 2_620, seconds=0.0)
        await imports.until(1_000)
        served = imports.served()
        assert abs(served[1] - served[2]) <= 7 * 262_000, "those that were in progress at a time"


async def test_a_tenant_gets_its_share_by_weight() -> None:
    async with some() as imports:
        imports.send(1, 1_000, seconds=0.0, weight=3.0)
        imports.send(2, 1_000, seconds=0.0, weight=1.0)
        await imports.until(800)
        assert imports.served()[1] == pytest.approx(3 * imports.served()[2], rel=0.1)


async def test_everything_else_is_served_while_imports_wait() -> None:
    async with some() as imports:
        for tenant_id in range(1, 20):
            imports.send(tenant_id, 10)
        await settle()
        for actor in (SERVICE, Actor(1), Actor(77)):
            ACTING.set(actor)
            async with asyncio.timeout(1), imports.queue.take():
                pass
        assert imports.queue.waiting_imports > 100


async def test_imports_go_on_beside_a_flood_of_everything_else() -> None:
    async with some() as imports:

        async def read(tenant_id: int) -> None:
            ACTING.set(Actor(tenant_id))
            while True:
                async with imports.queue.take():
                    await asyncio.sleep(0)

        imports.tasks += [asyncio.create_task(read(tenant_id)) for tenant_id in range(1, 40) for _ in range(3)]
        await settle()
        imports.send(50, 20, seconds=0.0)
        await imports.until(20)


async def test_who_has_nothing_in_progress_waits_for_nobody() -> None:
    async with some() as imports:
        imports.send(1, 100)
        await settle()
        before = len(imports.begun)
        imports.send(2)
        await settle()
        assert imports.begun[before:] == [(2, 2_600)]


async def test_the_newest_of_the_longest_queue_is_refused_and_no_other(shed: list[tuple[int, str]]) -> None:
    """Two tenants wait; the queue is too long because of one of them."""
    async with some(timeout=2.0) as imports:
        await asyncio.gather(*imports.send(1, 200, seconds=0.02))
        small = imports.send(2, 5, seconds=0.02)
        flood = imports.send(1, 3_000, seconds=0.02)
        await settle()
        refused = [number for number, task in enumerate(flood) if task.done() and task.exception()]
        assert 500 < len(refused) < 3_000
        assert refused == list(range(refused[0], 3_000)), "the newest"
        error = flood[-1].exception()
        assert isinstance(error, Overloaded)
        waits = [error.retry_after for task in flood[refused[0] :] if isinstance(error := task.exception(), Overloaded)]
        assert all(wait is not None and 1 <= wait <= 120 for wait in waits)
        assert len(set(waits)) > 100, "not all come again at once"
        assert {who for who, _ in shed} == {1}
        assert {reason for _, reason in shed} == {"newest"}
        await asyncio.gather(*small)


def refuses(queue: ConnectionQueue, tenant_id: int, size: int) -> Overloaded | None:
    """What an import that comes now is answered; it goes no further."""
    found = queue.arrive(Actor(tenant_id), size)
    if isinstance(found, Overloaded):
        return found
    found.end()
    return None


async def test_what_cannot_be_served_in_time_is_refused_on_arrival(shed: list[tuple[int, str]]) -> None:
    async with some(timeout=4.0) as imports:
        assert refuses(imports.queue, 1, 2_600) is None
        await asyncio.gather(*imports.send(1, 200, seconds=0.02))
        imports.send(1, 2_000, seconds=0.02)
        await settle()
        before = len(shed)
        refusal = refuses(imports.queue, 1, 900_000)
        assert refusal is not None
        assert refusal.retry_after is not None
        assert imports.queue.refused == 1
        assert len(shed) == before, "the sampler says how many there were"
        assert refuses(imports.queue, 2, 500) is None, "it has the shortest queue"


async def test_those_who_have_come_count_before_they_wait() -> None:
    """Many come before the first of them has a body and asks for its turn."""
    async with some(timeout=4.0) as imports:
        await asyncio.gather(*imports.send(1, 200, seconds=0.02))
        imports.send(1, 20, seconds=0.02)
        await settle()
        arrivals = []
        while not isinstance(found := imports.queue.arrive(Actor(1), 2_600), Overloaded):
            arrivals.append(found)
            assert len(arrivals) < 10_000
        assert refuses(imports.queue, 2, 500) is None, "others are not the cause"
        for one in arrivals:
            one.end()
            one.end()
        assert refuses(imports.queue, 1, 2_600) is None


async def test_a_queue_that_lasts_is_kept_shorter_than_a_burst() -> None:
    async with some(timeout=1e6) as imports:
        imports.send(1, 600)
        await settle()
        assert imports.queue.waiting_imports > 500
        assert refuses(imports.queue, 1, 2_600) is None, "a burst"
        await asyncio.sleep(1.1)
        assert refuses(imports.queue, 1, 2_600) is not None
        assert refuses(imports.queue, 2, 2_600) is None, "others are not the cause"
        while imports.queue.waiting_imports > 200:
            imports.end(1)
            await settle()
        assert refuses(imports.queue, 1, 2_600) is None


async def test_arrivals_are_refused_while_the_event_loop_is_late() -> None:
    async with some(timeout=2.0) as imports:
        imports.queue.note_lag(1.0)
        assert refuses(imports.queue, 1, 2_600) is None, "nothing waits"
        imports.send(1, 20)
        await settle()
        assert refuses(imports.queue, 1, 2_600) is not None
        assert refuses(imports.queue, 2, 2_600) is None, "others are not the cause"
        for _ in range(4):
            imports.queue.note_lag(0.0)
        assert refuses(imports.queue, 1, 2_600) is None


async def test_waiting_ends_at_the_deadline(shed: list[tuple[int, str]]) -> None:
    async with some(timeout=0.1) as imports:
        imports.send(1, 5)
        await settle()
        now = asyncio.get_running_loop().time()
        (late, sooner) = imports.send(1) + imports.send(1, until=now + 0.01)
        with pytest.raises(Overloaded):
            await sooner
        assert not late.done()
        with pytest.raises(Overloaded):
            await late
        assert shed == [(1, "deadline")] * 2
        assert imports.queue.waiting_imports == 0


async def test_who_went_away_keeps_no_place(shed: list[tuple[int, str]]) -> None:
    async with some() as imports:
        imports.send(1, 5)
        await settle()
        left = asyncio.Event()
        (first,) = imports.send(1, size=1, gone=left.wait)
        imports.send(1, size=2)
        await settle()
        left.set()
        with pytest.raises(ClientGone):
            await first
        assert imports.queue.waiting_imports == 1
        for _ in range(5):
            imports.end(1)
        await settle()
        assert imports.begun[5:] == [(1, 2)]
        assert shed == [(1, "client_gone")]


async def test_many_comings_and_goings_leave_nothing_behind() -> None:
    """Canceled, refused, expired or served: all slots are free in the end."""
    async with some(timeout=0.05) as imports:
        tasks = [task for tenant_id in range(1, 9) for task in imports.send(tenant_id, 60, seconds=0.003)]
        await settle()
        for task in tasks[::7]:
            task.cancel()
        await asyncio.sleep(0.02)
        for task in tasks[::11]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert imports.queue.waiting_imports == 0
        before = len(imports.begun)
        imports.send(1, 9)
        await settle()
        assert len(imports.begun) - before == imports.queue.import_limit
