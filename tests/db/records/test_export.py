"""An export holds a connection: for as long as somebody reads it, and no longer."""

from __future__ import annotations

import asyncio

import pytest

from app.errors import DatabaseUnavailable, Overloaded
from app.records import export
from app.records.export import Exports
from tests.db.conftest import Desk, person
from tests.types import CONTACTS


@pytest.fixture
async def desk(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(export, "_READ_TIMEOUT", 0.3)
    monkeypatch.setattr(export, "_STEP", 2)
    await desk.push([person(n) for n in range(7)])
    return desk


async def test_records_come_as_of_one_moment(desk: Desk) -> None:
    parts = await Exports(desk.database).open(desk.tenant_id, CONTACTS, as_csv=True)
    found = [await anext(parts), await anext(parts)]
    await desk.push([person(n, first_name="Later") for n in range(9)])
    found += [part async for part in parts]
    lines = b"".join(found).splitlines()
    assert len(lines) == 8
    assert b"Later" not in b"".join(lines)


async def test_who_stops_reading_loses_the_connection(desk: Desk) -> None:
    exports = Exports(desk.database)
    parts = await exports.open(desk.tenant_id, CONTACTS, as_csv=False)
    for _ in range(2):
        await anext(parts)
    await asyncio.sleep(0.6)
    with pytest.raises(DatabaseUnavailable):
        [part async for part in parts]
    again = await exports.open(desk.tenant_id, CONTACTS, as_csv=False)
    assert len(b"".join([part async for part in again]).splitlines()) == 7


async def test_an_export_that_is_given_up_leaves_the_next_query_of_its_connection_alone(desk: Desk) -> None:
    parts = await Exports(desk.database).open(desk.tenant_id, CONTACTS, as_csv=False)
    for _ in range(2):
        await anext(parts)
    await parts.aclose()  # type: ignore[attr-defined]
    assert await desk.rows("SELECT pg_sleep(0.6)")


async def test_few_exports_run_at_once(desk: Desk) -> None:
    exports = Exports(desk.database)
    running = [await exports.open(desk.tenant_id, CONTACTS, as_csv=False) for _ in range(2)]
    with pytest.raises(Overloaded):
        await exports.open(desk.tenant_id, CONTACTS, as_csv=False)
    running.clear()  # nobody has read them, or ever will
    async with asyncio.timeout(20):
        while True:
            try:
                assert await exports.open(desk.tenant_id, CONTACTS, as_csv=False)
                return
            except Overloaded:
                await asyncio.sleep(0.05)
