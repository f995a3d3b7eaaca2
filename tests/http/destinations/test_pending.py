"""How much waits for a destination, as its document says it. No worker runs here."""

from __future__ import annotations

from typing import Any, TypeAlias

import asyncpg
import msgspec

from app.auth import service
from tests.http.conftest import Api, person

Db: TypeAlias = "asyncpg.Connection[Any]"


async def add(api: Api, name: str) -> None:
    new = {"name": name, "kind": "hubspot", "base_url": "https://crm.example", "token": "t"}
    assert (await api.request("POST", "/v1/destinations", data=msgspec.json.encode(new))).status == 201


async def pending(api: Api, name: str) -> dict[str, Any]:
    return dict((await api.get(f"/v1/destinations/{name}")).json()["pending"])


async def test_what_waits_there_is_counted_for_its_tenant_alone(api: Api, db: Db) -> None:
    await add(api, "hubspot")
    assert await pending(api, "hubspot") == {"count": 0, "oldest_seconds": 0, "at_least": False}
    await api.push([person(n) for n in range(3)])
    await db.execute("UPDATE deliveries SET created_at = now() - interval '1 hour'")
    await add(api, "later")
    found = await pending(api, "hubspot")
    assert (found["count"], found["at_least"]) == (3, False)
    assert 3600 <= found["oldest_seconds"] < 7200
    assert (await pending(api, "later"))["count"] == 0
    other = api.as_key(await service.create_key(db, "other", ["read", "admin"]))
    await add(other, "hubspot")
    assert (await pending(other, "hubspot"))["count"] == 0


async def test_what_is_being_sent_or_is_tried_again_counts_and_what_has_arrived_does_not(api: Api, db: Db) -> None:
    await add(api, "hubspot")
    await api.push([person(n) for n in range(4)])
    await db.execute("UPDATE deliveries SET state = 'sending', states = 'prou'")
    assert (await pending(api, "hubspot"))["count"] == 2


async def test_of_a_large_backlog_only_a_part_is_counted(api: Api, db: Db) -> None:
    await add(api, "hubspot")
    await api.push([person(1)])
    await db.execute(
        """INSERT INTO deliveries OVERRIDING SYSTEM VALUE
        SELECT (jsonb_populate_record(d, jsonb_build_object('delivery_id', d.delivery_id + n))).*
        FROM deliveries d CROSS JOIN generate_series(1, 1001) n"""
    )
    found = await pending(api, "hubspot")
    assert (found["count"], found["at_least"]) == (1001, True)
