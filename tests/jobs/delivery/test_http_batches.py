"""Batches on their whole way to a service that takes new records by POST and known ones, by their ids, by PATCH."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp import web

from app.destinations import service
from app.kit.encryption import Vault
from jobs.worker import working
from tests.conftest import LOOPBACK
from tests.jobs.conftest import World, people

ITEM = {"id": "{remote_id}", "key": "{id}", "email": "{fields.email}", "phone": "{fields.phone}"}
OPTIONS: dict[str, Any] = {
    "path": "/items",
    "item": ITEM,
    "body": "{records}",
    "results": "echoed",
    "results_field": "data",
    "result_id": "key",
    "result_remote_id": "id",
    "update": {"path": "/items"},
    "delete": {"path": "/items", "body": "{remote_ids}"},
}
READ: dict[str, Any] = {
    "read": {"path": "/items", "query": {"keys": "{ids}"}, "records": "data", "id": "key", "remote_id": "id"}
}


class Items:
    """The service: a POST makes records, whatever is there; a PATCH shows those that it found."""

    url: str

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, str, Any]] = []
        """Method, Idempotency-Key and body of each call that writes."""
        self.lose: dict[str, int] = {}
        """Answers to lose, by method; what was asked is done."""
        self.omit: set[str] = set()
        """Keys that an answer does not show."""
        self.stores: dict[str, Any] = {}
        """What a POST writes instead of what it is asked to."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            wanted = request.query["keys"].split(",")
            return web.json_response({"data": [row for row in self.rows.values() if row["key"] in wanted]})
        key, body = request.headers["Idempotency-Key"], await request.json()
        repeated = key in [known for _, known, _ in self.calls]
        self.calls.append((request.method, key, body))
        shown = [] if repeated and request.method == "POST" else self._do(request.method, body)
        if repeated:
            shown = [row for row in self.rows.values() if row["key"] in [item["key"] for item in body]]
        if self.lose.get(request.method):
            self.lose[request.method] -= 1
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        if request.method == "DELETE":
            return web.Response(status=204)
        data = [row for row in shown if row["key"] not in self.omit]
        self.omit = set()
        return web.json_response({"data": data})

    def _do(self, method: str, body: Any) -> list[dict[str, Any]]:
        if method == "DELETE":
            for remote_id in body:
                self.rows.pop(remote_id, None)
            return []
        if method == "POST":
            for item in body:
                remote_id = str(len(self.calls) * 1000 + len(self.rows))
                self.rows[remote_id] = {**item, "id": remote_id, **self.stores}
            return [row for row in self.rows.values() if row["key"] in [item["key"] for item in body]]
        found = [item for item in body if item["id"] in self.rows]
        for item in found:
            self.rows[item["id"]] |= item
        return [self.rows[item["id"]] for item in found]

    @property
    def methods(self) -> list[str]:
        return [method for method, _, _ in self.calls]

    def held(self) -> list[tuple[str, str | None]]:
        return sorted((row["key"], row.get("phone")) for row in self.rows.values())


@pytest.fixture
async def items() -> AsyncIterator[Items]:
    items = Items()
    app = web.Application()
    app.router.add_route("*", "/items", items.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    items.url = f"http://127.0.0.1:{site.port}"
    yield items
    await runner.cleanup()


async def add(world: World, items: Items, **options: Any) -> None:
    async with world.database.connection() as connection:
        await service.set_destination_state(connection, world.tenant_id, "hubspot", "removed")
        new = service.NewDestination(
            name="crm", kind="http", base_url=items.url, token="good", options={**OPTIONS, **options}
        )
        await service.add_destination(
            connection, Vault(world.settings.secret_key), world.tenant_id, new, private=LOOPBACK
        )
    world.settings = msgspec.structs.replace(world.settings, reconcile_grace=0.2)


async def imported(world: World, records: list[dict[str, Any]]) -> str:
    return await world.finished((await world.push(records)).job_id)


async def test_a_batch_of_new_known_and_removed_records_is_three_calls(world: World, items: Items) -> None:
    await add(world, items, **READ)
    async with working(world.settings):
        assert await imported(world, people(4, phone="1")) == "completed"
        mixed = [*people(6, phone="2")[1:], {"id": "c00000", "deleted": True}]
        assert await imported(world, mixed) == "completed"
    assert items.methods == ["POST", "POST", "PATCH", "DELETE"]
    assert len({key for _, key, _ in items.calls}) == 4
    assert [len(body) for _, _, body in items.calls] == [4, 2, 3, 1]
    assert items.held() == [(f"c0000{n}", "2") for n in range(1, 6)]


@pytest.mark.parametrize("settled_by", ["reading", "repeating"])
async def test_a_lost_update_leaves_the_creations_beside_it_as_they_are(
    world: World, items: Items, settled_by: str
) -> None:
    await add(world, items, **(READ if settled_by == "reading" else {"repeatable": True}))
    async with working(world.settings):
        assert await imported(world, people(2, phone="1")) == "completed"
        items.calls.clear()
        items.lose = {"PATCH": 1}
        assert await imported(world, people(4, phone="2")) == "completed"
    assert items.held() == [(f"c0000{n}", "2") for n in range(4)]
    if settled_by == "reading":
        assert items.methods == ["POST", "PATCH"]
    else:
        created, lost, again = items.calls
        assert created[0] == "POST"
        assert lost == again, "it was not the same call"


async def test_a_creation_is_repeated_as_it_was_although_a_part_of_it_is_known(world: World, items: Items) -> None:
    """The service keeps its promise by the key of the call, which covers all of its records."""
    await add(world, items, repeatable=True)
    items.omit = {"c00001"}
    async with working(world.settings):
        assert await imported(world, people(2, phone="1")) == "completed"
    first, again = items.calls
    assert first == again
    assert items.held() == [("c00000", "1"), ("c00001", "1")]


async def test_a_record_that_somebody_removed_there_is_created_anew(world: World, items: Items) -> None:
    await add(world, items, **READ)
    async with working(world.settings):
        assert await imported(world, people(3, phone="1")) == "completed"
        [gone] = [remote_id for remote_id, row in items.rows.items() if row["key"] == "c00001"]
        del items.rows[gone]
        items.calls.clear()
        assert await imported(world, people(3, phone="2")) == "completed"
    assert items.methods == ["PATCH", "POST"]
    assert items.held() == [(f"c0000{n}", "2") for n in range(3)]


async def test_a_creation_that_is_found_changed_is_updated_and_not_made_twice(world: World, items: Items) -> None:
    await add(world, items, **READ)
    items.lose, items.stores = {"POST": 1}, {"phone": "somebody's"}
    async with working(world.settings):
        assert await imported(world, people(2, phone="1")) == "completed"
    assert items.methods == ["POST", "PATCH"]
    assert items.held() == [("c00000", "1"), ("c00001", "1")]
