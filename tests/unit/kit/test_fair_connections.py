"""Whose turn it is at the connections of the API."""

from __future__ import annotations

import asyncio

import pytest

from app.errors import Overloaded
from app.kit.postgres.fair_connections import ACTING, STRANGERS, Actor, ConnectionQueue


class Work:
    """Turns that are taken and held until they are let go, and who has had one."""

    def __init__(self, connection_queue: ConnectionQueue) -> None:
        self.connection_queue = connection_queue
        self.had: list[int] = []
        self._ends: dict[int, list[asyncio.Event]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def ask(self, tenant: int, times: int = 1) -> None:
        for _ in range(times):
            end = asyncio.Event()
            self._tasks.append(asyncio.create_task(self._hold(tenant, end)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def _hold(self, tenant: int, end: asyncio.Event) -> None:
        ACTING.set(Actor(tenant))
        async with self.connection_queue.take():
            self.had.append(tenant)
            self._ends.setdefault(tenant, []).append(end)
            await end.wait()

    async def let_go(self, tenant: int) -> None:
        self._ends[tenant].pop(0).set()
        for _ in range(4):
            await asyncio.sleep(0)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def test_one_tenant_leaves_some_for_who_comes_next() -> None:
    work = Work(ConnectionQueue(10, share=3, timeout=5))
    await work.ask(1, 200)
    assert work.had == [1] * 8
    await work.ask(2)
    assert work.had[8:] == [2], "it waits for nobody"
    await work.let_go(2)
    for _ in range(5):
        await work.let_go(1)
    assert work.had[9:] == [], "beside another tenant it has its share, and no more"
    await work.let_go(1)
    assert work.had[9:] == [1]
    await work.stop()


async def test_tenants_that_wait_are_served_in_turn() -> None:
    work = Work(ConnectionQueue(4, share=2, timeout=5))
    await work.ask(1, 2)
    await work.ask(2, 2)
    for tenant, times in ((1, 50), (2, 50), (3, 1), (4, 1)):
        await work.ask(tenant, times)
    assert work.had == [1, 1, 2, 2]
    for _ in range(3):
        await work.let_go(1)
        await work.let_go(2)
    assert sorted(work.had[4:8]) == [1, 2, 3, 4]
    await work.stop()


async def test_strangers_have_few() -> None:
    work = Work(ConnectionQueue(10, share=3, timeout=5))
    await work.ask(STRANGERS.tenant_id, 100)
    assert work.had == [STRANGERS.tenant_id] * 2
    await work.ask(7)
    assert work.had[2:] == [7]
    await work.stop()


async def test_what_runs_within_a_turn_has_it_already_and_what_it_starts_does_not() -> None:
    connection_queue = ConnectionQueue(1, share=1, timeout=0.05)

    async def within() -> None:
        async with connection_queue.take():
            pass

    async with connection_queue.take():
        await within()
        with pytest.raises(Overloaded):
            await asyncio.create_task(within())
    await within()


async def test_who_goes_while_waiting_takes_no_turn_along() -> None:
    work = Work(ConnectionQueue(1, share=1, timeout=0.2))
    await work.ask(1)

    async def wait() -> None:
        ACTING.set(Actor(2))
        async with work.connection_queue.take():
            pass

    waiting = [asyncio.create_task(wait()) for _ in range(5)]
    await asyncio.sleep(0.01)
    waiting[0].cancel()
    work_end = asyncio.create_task(work.let_go(1))
    waiting[1].cancel()
    await work_end
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results[:2]] == [asyncio.CancelledError] * 2
    assert results[2:] == [None] * 3
    await work.ask(1)
    late = asyncio.create_task(wait())
    with pytest.raises(Overloaded):
        await late
    await work.let_go(1)
    await asyncio.wait_for(wait(), 1)
    await work.stop()
