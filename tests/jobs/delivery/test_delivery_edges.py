"""Delivery at its edges: what two hands do at once, and what cannot be used."""

from __future__ import annotations

import asyncio
import base64
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import msgspec
import pytest
from aiohttp import web
from redis.asyncio import Redis

from app.deliveries import queries, record_states
from app.deliveries.queries import Claim, Record, Recorded, Tried
from app.destinations import service
from app.errors import Invalid
from app.kit.encryption import Vault
from app.kit.notifier import QUEUE, Notifier
from jobs.crm.hubspot import adapter as hubspot
from jobs.worker import working
from tests.claims import claim_delivery
from tests.conftest import LOOPBACK
from tests.jobs.conftest import World, people


@asynccontextmanager
async def holding(world: World, query: str) -> AsyncIterator[None]:
    """Somebody else's transaction, open with the locks of one statement."""
    other = await asyncpg.connect(world.settings.database_url)
    try:
        async with other.transaction():
            await other.execute(query)
            yield
    finally:
        await other.close()


async def waiting(world: World, count: int) -> None:
    """Until so many sessions of this database wait for a lock."""
    query = """SELECT count(*)::int AS n FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'"""
    async with asyncio.timeout(60):
        while (await world.rows(query))[0]["n"] < count:
            await asyncio.sleep(0.01)


async def take(world: World, *, lease: float = 30.0) -> Claim:
    """The next delivery, claimed as a worker would."""
    (row,) = await world.rows("SELECT destination_id FROM destinations WHERE state = 'active'")
    async with world.database.connection() as connection:
        claim = await claim_delivery(
            connection, world.tenant_id, row["destination_id"], token=uuid.uuid4(), lease=lease, concurrency=8
        )
    assert claim is not None
    return claim


async def record_ok(world: World, claim: Claim) -> Recorded | None:
    """Every contact of the claim arrived."""
    tried = [
        Tried(name, "ok", version, version, None, None, None)
        for name, version in zip(claim.record_ids, claim.versions, strict=True)
    ]
    record = Record(
        states="o" * len(tried), errors={}, attempts=1, wait=None, absence="clear", tried=tried, dead_letters=[]
    )
    async with world.database.connection() as connection:
        return await queries.record_delivery(connection, claim, "contacts", record)


async def release_lost(world: World) -> int:
    async with world.database.connection() as connection:
        return await queries.release_lost(connection)


async def test_releasing_a_lost_delivery_while_another_of_its_job_is_recorded(world: World) -> None:
    """Both write the job and its counters, and neither is the victim of a deadlock."""
    world.settings = msgspec.structs.replace(world.settings, chunk_size=2)
    answer = await world.push(people(4))
    held, _lost = await take(world), await take(world, lease=-1)
    async with holding(world, "SELECT FROM jobs FOR UPDATE"):
        releasing = asyncio.create_task(release_lost(world))
        await waiting(world, 1)
        recording = asyncio.create_task(record_ok(world, held))
        await waiting(world, 2)
    assert await releasing == 1
    assert await recording == Recorded(answer.job_id, None, None)
    assert await world.effects(answer.job_id) == {"ok": 2, "unknown": 2}


async def set_state(world: World, name: str, state: str) -> None:
    async with world.database.connection() as connection:
        await service.set_destination_state(connection, world.tenant_id, name, state)


async def replace_destination(world: World, **changes: Any) -> None:
    """Another `hubspot`, at the sandbox unless something else is said."""
    await set_state(world, "hubspot", "removed")
    await add_destination(world, **changes)


async def add_destination(world: World, **changes: Any) -> None:
    fields = {"name": "hubspot", "kind": "hubspot", "base_url": world.sandbox.base_url, "token": "pat-good"}
    async with world.database.connection() as connection:
        await service.add_destination(
            connection,
            Vault(world.settings.secret_key),
            world.tenant_id,
            service.NewDestination(**(fields | changes)),
            private=LOOPBACK,
        )


async def seen(world: World, query: str, seconds: float = 45) -> dict[str, Any]:
    """The first row that this query finds, once it does."""
    async with asyncio.timeout(seconds):
        while not (rows := await world.rows(query)):
            await asyncio.sleep(0.02)
    return rows[0]


async def test_a_destination_that_cannot_be_used_says_why(world: World) -> None:
    """Its stored options are wrong for its kind (nobody checked them once): what waits for it shows the reason, and
    ends with its removal."""
    await world.rows(
        """UPDATE destinations SET options = '{"time_zone": "Mars/Olympus"}' WHERE state = 'active' RETURNING 1"""
    )
    async with working(world.settings):
        answer = await world.push(people(2))
        row = await seen(world, "SELECT blocked_code, blocked_detail FROM destinations WHERE blocked_code <> ''")
        assert row["blocked_code"] == "DESTINATION_UNAVAILABLE"
        assert "Mars/Olympus" in row["blocked_detail"]
        await set_state(world, "hubspot", "removed")
        assert await world.finished(answer.job_id) == "completed"
    assert await world.effects(answer.job_id) == {"skipped": 2}


async def test_removing_a_destination_whose_credentials_cannot_be_read(world: World) -> None:
    """The secret key is another one since: what was owed is skipped all the same."""
    answer = await world.push(people(2))
    await set_state(world, "hubspot", "removed")
    other = base64.b64encode(bytes(32)).decode()
    async with working(msgspec.structs.replace(world.settings, secret_key=other)):
        assert await world.finished(answer.job_id) == "completed"
    assert await world.effects(answer.job_id) == {"skipped": 2}


async def test_nothing_is_sent_after_a_removal(world: World) -> None:
    """Also not by a worker that was in the middle of its work there."""
    await world.sandbox.misbehave(latency={"latency": 0.05})
    world.settings = msgspec.structs.replace(world.settings, chunk_size=1, delivery_concurrency=2)
    async with working(world.settings):
        answer = await world.push(people(60))
        await seen(world, "SELECT FROM effects WHERE ok > 3")
        await set_state(world, "hubspot", "removed")
        under_way = len(await world.rows("SELECT FROM deliveries WHERE state = 'sending'"))
        (before,) = await world.rows("SELECT ok FROM effects")
        assert await world.finished(answer.job_id) == "completed"
    effects = await world.effects(answer.job_id)
    assert effects["ok"] <= before["ok"] + under_way
    assert effects["ok"] + effects["skipped"] == 60
    assert len(await world.sandbox.effects()) == effects["ok"]


async def test_a_claim_that_had_to_wait_still_outlasts_its_call(world: World) -> None:
    """A lease runs from the moment it was asked for, not from the moment it was had."""
    settings = msgspec.structs.replace(world.settings, delivery_lease=5.0, crm_total_timeout=2.9)
    await world.sandbox.misbehave(latency={"latency": 0.5})
    async with working(settings):
        async with holding(world, "SELECT FROM destinations FOR UPDATE"):
            answer = await world.push(people(1))
            await waiting(world, 1)
            await asyncio.sleep(2.5)
        await seen(world, "SELECT FROM deliveries WHERE state = 'sending'")
        await asyncio.sleep(0.2)
        left = "SELECT extract(epoch FROM lease_until - clock_timestamp())::float8 AS n FROM deliveries"
        assert (await world.rows(left))[0]["n"] > settings.crm_total_timeout - 0.2
        await world.finished(answer.job_id)


async def test_no_cookie_of_one_tenant_goes_out_with_the_call_of_another(world: World) -> None:
    """Two connections to one CRM share nothing but its circuit."""
    calls: list[tuple[str, str | None]] = []

    async def upsert(request: web.Request) -> web.Response:
        calls.append((request.headers["Authorization"], request.headers.get("Cookie")))
        results = [
            {"id": "1", "properties": {"tranche_id": i["id"]}, "objectWriteTraceId": i["objectWriteTraceId"]}
            for i in (await request.json())["inputs"]
        ]
        answer = web.json_response({"results": results})
        answer.set_cookie("session", "of-" + request.headers["Authorization"].rpartition(" ")[2])
        return answer

    crm = web.Application()
    crm.router.add_post("/{path:.*}", upsert)
    runner = web.AppRunner(crm)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        url = f"http://localhost:{runner.addresses[0][1]}"  # by name: cookies are not kept for bare addresses
        await replace_destination(world, base_url=url, token="first")
        await add_destination(world, name="second", base_url=url, token="second")
        async with working(world.settings):
            for phone in ("1", "2"):
                answer = await world.push(people(1, phone=phone))
                assert await world.finished(answer.job_id) == "completed"
    finally:
        await runner.cleanup()
    assert sorted(calls) == [("Bearer first", None)] * 2 + [("Bearer second", None)] * 2


async def test_a_worker_hears_wake_ups_through_any_url_that_its_circuits_understand(world: World) -> None:
    """A password with characters that a URL must escape, and a slash at the end."""
    url = urlsplit(world.settings.redis_url)
    async with Redis.from_url(world.settings.redis_url) as redis:
        await redis.acl_setuser("tranche", enabled=True, passwords=["+p@ss/word"], categories=["+@all"], keys="*")
        try:
            address = f"tranche:p%40ss%2Fword@{url.hostname}:{url.port}/"
            settings = msgspec.structs.replace(
                world.settings, redis_url=urlunsplit(url._replace(netloc=address, path="")), sweep_interval=60.0
            )
            notifier = Notifier(settings)
            async with working(settings):
                await notifier.ping()
                await asyncio.sleep(0.3)  # the sweeper's first look is over
                answer = await world.push(people(1))
                (row,) = await world.rows("SELECT destination_id FROM destinations")
                notifier.notify(world.tenant_id, [row["destination_id"]], reason="test")
                assert await world.finished(answer.job_id) == "completed"
            await notifier.close()
        finally:
            await redis.acl_deluser("tranche")


async def test_what_the_crm_answered_outlasts_a_lock(world: World) -> None:
    """The job's row is locked for longer than a statement may wait: the answer is recorded, not read back."""
    settings = msgspec.structs.replace(world.settings, db_lock_timeout=0.3)
    await world.sandbox.misbehave(latency={"latency": 0.3})
    async with working(settings):
        answer = await world.push(people(2))
        await seen(world, "SELECT FROM deliveries WHERE state = 'sending'")
        async with holding(world, "SELECT FROM jobs FOR UPDATE"):
            await asyncio.sleep(1.2)
        assert await world.finished(answer.job_id) == "completed"
    assert [call["path"].rsplit("/", 1)[1] for call in await world.sandbox.calls()] == ["upsert"]


async def test_an_error_of_ours_spends_attempts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of an adapter, in the middle of the call, comes to an end like any other trouble."""

    async def broken(*_: object) -> None:
        raise ValueError("http://user:password@crm")

    monkeypatch.setattr(hubspot.HubSpot, "push", broken)
    async with working(msgspec.structs.replace(world.settings, delivery_attempts=3)):
        answer = await world.push(people(2))
        assert await world.finished(answer.job_id) == "completed_with_failures"
    assert await world.effects(answer.job_id) == {"dead": 2}
    (dead_letter, _) = await world.rows("SELECT * FROM dead_letters")
    assert dead_letter["attempts"] == 3
    assert "ValueError" in dead_letter["error_detail"]
    assert "password" not in dead_letter["error_detail"]


async def test_a_delivery_that_ends_every_worker_is_given_up(world: World) -> None:
    """Attempts that nobody came back from count too."""
    answer = await world.push(people(2))
    for _ in range(3):
        await take(world, lease=-1)
        assert await release_lost(world) == 1
    async with working(msgspec.structs.replace(world.settings, delivery_attempts=3)):
        assert await world.finished(answer.job_id) == "completed_with_failures"
    assert await world.sandbox.calls() == []
    (dead_letter, _) = await world.rows("SELECT * FROM dead_letters")
    assert (dead_letter["error_code"], dead_letter["attempts"]) == ("OUTCOME_UNKNOWN", 3)


@pytest.mark.parametrize(
    "changes", [{"base_url": "https://user:hidden@api.example.com"}, {"token": "two words"}, {"token": "naïve"}]
)
async def test_a_destination_that_no_call_could_reach_is_refused(world: World, changes: dict[str, str]) -> None:
    """And a password in its address is not repeated, where everybody who reads destinations would see it."""
    with pytest.raises(Invalid) as refused:
        await add_destination(world, name="other", **changes)
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize("lost", ["the answer", "the worker"])
async def test_an_attribute_that_may_have_arrived_is_cleared(world: World, lost: str) -> None:
    """The first version arrived, but nobody knows; it is removed before that is found out."""
    patient = msgspec.structs.replace(world.settings, delivery_backoff_base=1e6, delivery_backoff_cap=1e6)
    await world.sandbox.misbehave(accept_then_drop={"times": 1})
    first = await world.push(people(1, attributes={"city": "Ulm"}))
    async with working(patient):
        await seen(world, "SELECT FROM deliveries WHERE states = 'u' AND state = 'pending'")
    await world.rows("UPDATE deliveries SET next_attempt_at = now()")
    if lost == "the worker":
        # As if the worker had died in that call: nothing was recorded of the contact.
        await world.rows("DELETE FROM record_syncs")
        await world.rows("UPDATE deliveries SET states = 'p'")
        await world.rows("UPDATE effects SET pending = 1, unknown = 0")
        await take(world, lease=-1)
        assert await release_lost(world) == 1
    assert (await world.sandbox.contacts())["c00000"]["properties"]["city"] == "Ulm"
    second = await world.push(people(1, attributes={"city": None}))
    async with working(world.settings):
        assert await world.finished(first.job_id) == "completed"
        assert await world.finished(second.job_id) == "completed"
    assert not (await world.sandbox.contacts())["c00000"]["properties"].get("city")


async def test_an_attribute_that_was_refused_is_not_mentioned_any_more(world: World) -> None:
    """A CRM refuses a contact for a property it does not know, and would refuse to clear it just as well."""
    async with working(world.settings):
        assert await world.finished((await world.push(people(1))).job_id) == "completed"
        await world.sandbox.misbehave(reject={"emails": ["c00000@example.com"], "times": 1})
        refused = await world.push(people(1, attributes={"ctiy": "Ulm"}))
        assert await world.finished(refused.job_id) == "completed_with_failures"
    await world.push(people(1, attributes={"ctiy": None, "city": "Ulm"}))
    claim = await take(world)
    async with world.database.connection() as connection:
        found = await record_states.records_to_send(
            connection, world.tenant_id, claim.destination_id, claim.type_id, claim.record_ids
        )
    assert found["c00000"].attributes == {"city": "Ulm"}


async def test_wake_ups_that_nobody_hears_do_not_fill_redis(world: World) -> None:
    """Hours without a worker: only those that could still be heard keep their place in the queue."""
    async with Redis.from_url(world.settings.redis_url) as redis:
        await redis.zadd(QUEUE, {f"1:1:old-{n}": (time.time() - 600 - n) * 1000 for n in range(50)})
        await world.push(people(1))
        async with asyncio.timeout(60):
            while await redis.zcard(QUEUE) != 1:
                await asyncio.sleep(0.02)
        assert b"old" not in (await redis.zrange(QUEUE, 0, -1))[0]
