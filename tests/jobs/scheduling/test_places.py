"""Places of a worker: tenants share them by weight, and none has more than its cap."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from jobs.scheduling.fair_queue import TenantShare
from jobs.scheduling.places import Places


class Destinations:
    """Each takes a place, holds it for a slice, and wants another one."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.served = Counter[int]()
        self.in_progress = Counter[int]()
        self.most = Counter[int]()
        self.tasks: list[asyncio.Task[None]] = []

    def add(self, tenant_id: int, count: int) -> None:
        self.tasks += [asyncio.create_task(self._serve(tenant_id)) for _ in range(count)]

    async def _serve(self, tenant_id: int) -> None:
        while True:
            async with self.places.take(tenant_id):
                self.in_progress[tenant_id] += 1
                self.most[tenant_id] = max(self.most[tenant_id], self.in_progress[tenant_id])
                self.served[tenant_id] += 1
                await asyncio.sleep(0)
                self.in_progress[tenant_id] -= 1

    async def until(self, count: int) -> None:
        async with asyncio.timeout(30):
            while self.served.total() < count:
                await asyncio.sleep(0)


@pytest.fixture
async def destinations() -> AsyncIterator[Destinations]:
    shares = {2: TenantShare(3.0), 3: TenantShare(cap=2)}
    made = Destinations(Places(4, lambda tenant_id: shares.get(tenant_id, TenantShare())))
    yield made
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)


async def test_a_tenant_with_a_hundred_destinations_gets_its_share(destinations: Destinations) -> None:
    destinations.add(1, 100)
    destinations.add(2, 10)
    destinations.add(4, 5)
    await destinations.until(2_000)
    assert destinations.served[1] == pytest.approx(400, abs=20)
    assert destinations.served[2] == pytest.approx(1_200, abs=20)


async def test_a_cap_leaves_places_to_others(destinations: Destinations) -> None:
    destinations.add(3, 50)
    await destinations.until(200)
    assert destinations.most[3] == 2
    assert destinations.places.wanted(3), "another destination of it waits"
    assert not destinations.places.wanted(1), "nobody waits for a place that others give up"
    destinations.add(1, 50)
    await destinations.until(1_000)
    assert destinations.most[3] == 2
    assert destinations.served[3] > 100


async def test_who_is_canceled_while_it_waits_leaves_its_place(destinations: Destinations) -> None:
    destinations.add(1, 20)
    await destinations.until(10)
    for task in destinations.tasks:
        task.cancel()
    await asyncio.gather(*destinations.tasks, return_exceptions=True)
    destinations.served.clear()
    destinations.in_progress.clear()
    destinations.add(4, 8)
    await destinations.until(100)
    assert destinations.most[4] == 4
