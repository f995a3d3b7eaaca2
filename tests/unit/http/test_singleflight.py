"""Several who want the same work share it, but never work that has ended."""

from __future__ import annotations

import asyncio

from app.http.singleflight import SingleFlight


async def test_who_comes_while_work_is_under_way_gets_its_result() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    count = 0

    async def work() -> int:
        nonlocal count
        count += 1
        await asyncio.sleep(0.01)
        return count

    assert await asyncio.gather(flights.share("job", work), flights.share("job", work)) == [1, 1]
    assert await flights.share("job", work) == 2


async def test_who_comes_the_moment_it_ends_gets_new_work() -> None:
    """A reader that asks until it sees a newer revision got the old one for ever, and the whole API stood still."""
    flights: SingleFlight[str, int] = SingleFlight()
    count = 0
    go_on = asyncio.Event()

    async def work() -> int:
        nonlocal count
        count += 1
        if count > 1:
            await go_on.wait()
        return count

    first = flights.start("job", work)
    await asyncio.sleep(0)
    assert first.done()
    second = flights.start("job", work)
    assert second is not first
    await asyncio.sleep(0)  # now the first is forgotten, and the second is not
    assert flights.start("job", work) is second
    go_on.set()
    assert await flights.share("job", work) == 2
