"""Rate limits over HTTP: partial admission, refusals, header fields, addresses, replays."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import asyncpg
import msgspec
import pytest
from redis.asyncio import Redis

from app.auth import service
from app.limits.policies import parse_change
from app.settings import Settings
from tests.http.conftest import Answer, Api, aiohttp_session, person, serve

Db: TypeAlias = "asyncpg.Connection[Any]"
HOUR = "/3600"
"""Nothing comes back while a test runs."""


async def holder(api: Api, db: Db, *limits: str, tenant: str = "acme") -> Api:
    """A client whose key has these limits."""
    return api.as_key(await service.create_key(db, tenant, ["import", "read"], limits=parse_change(limits)))


@asynccontextmanager
async def serving(settings: Settings, key: str, **changes: Any) -> AsyncIterator[Api]:
    async with serve(msgspec.structs.replace(settings, **changes)) as url, aiohttp_session() as session:
        yield Api(session, url, key)


def left(answer: Answer, policy: str) -> int:
    """What `RateLimit` says is left of a policy."""
    states = dict(part.strip().split(";", 1) for part in answer.headers["RateLimit"].split(","))
    return int(states[f'"{policy}"'].partition("r=")[2].partition(";")[0])


async def test_what_fits_is_done_and_the_rest_says_when(api: Api, db: Db) -> None:
    """In request order: ok and failed while there are tokens, then `retry` with later seconds for later items."""
    client = await holder(api, db, "items=10/10")
    assert (await client.push([person(n) for n in range(4)])).status == 207
    wrong = person(5, email="nobody")
    answer = await client.push([person(4), wrong, *(person(n) for n in range(6, 16))])
    assert answer.status == 207
    items = answer.json()["items"]
    assert [item["status"] for item in items] == ["ok", "failed", *["ok"] * 4, *["retry"] * 6]
    late = items[6:]
    assert {item["error_code"] for item in late} == {"RATE_LIMIT"}
    assert "10 items in 10 s for this key" in late[0]["errors"][0]["detail"]
    seconds = [item["retry_after_seconds"] for item in late]
    assert seconds == sorted(seconds)
    assert seconds[0] in (1, 2)
    assert seconds[-1] - seconds[0] == 5
    assert [item["id"] for item in late] == [f"c{n}" for n in range(10, 16)]
    assert answer.json()["summary"] == {"total": 12, "succeeded": 5, "failed": 1, "retry": 6}
    assert await db.fetchval("SELECT count(*) FROM records") == 9
    assert answer.headers["RateLimit-Policy"] == '"requests";q=60000;w=60, "items";q=10;w=10'
    assert left(answer, "items") == 0
    assert (answer.headers["X-RateLimit-Limit"], answer.headers["X-RateLimit-Remaining"]) == ("10", "0")
    assert 0 <= int(answer.headers["X-RateLimit-Reset"]) - time.time() <= 12


async def test_without_a_token_nothing_happens_and_the_key_stays_free(api: Api, db: Db) -> None:
    client = await holder(api, db, "items=2/2", "requests=20" + HOUR)
    first = await client.push([person(1), person(2)], key="first")
    assert (first.status, left(first, "requests")) == (207, 19)
    refused = await client.push([person(3)], key="second")
    assert (refused.status, refused.headers["Content-Type"]) == (429, "application/problem+json")
    problem = refused.json()
    assert problem["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert (problem["code"], problem["violated-policies"]) == ("RATE_LIMIT", ["items"])
    assert int(refused.headers["Retry-After"]) == 1
    assert (left(refused, "items"), left(refused, "requests")) == (0, 19)
    assert refused.headers["Idempotency-Key"] == "second"
    assert await db.fetchval("SELECT count(*) FROM idempotency_keys") == 1
    replay = await client.push([person(1), person(2)], key="first")
    assert (replay.status, replay.body) == (207, first.body)
    await asyncio.sleep(1.1)
    assert (await client.push([person(3)], key="second")).json()["summary"]["succeeded"] == 1


async def test_a_replay_and_a_failed_request_cost_no_items(api: Api, db: Db) -> None:
    client = await holder(api, db, "items=10" + HOUR)
    for _ in range(3):
        replay = await client.push([person(n) for n in range(4)], key="same")
    assert replay.headers["Idempotency-Replayed"] == "true"
    assert (await client.push([person(n) for n in range(5)], key="same")).status == 422
    assert (await client.push(b'{"items": [')).status == 400
    assert left(await client.push([person(9)]), "items") == 5


async def test_tokens_are_given_back_when_the_transaction_fails(settings: Settings, api_key: str, db: Db) -> None:
    async with serving(settings, api_key, limit_key_items="5" + HOUR) as api:
        await db.execute("ALTER TABLE job_chunks RENAME TO gone")
        assert (await api.push([person(n) for n in range(5)], key="k")).status == 503
        await db.execute("ALTER TABLE gone RENAME TO job_chunks")
        assert (await api.push([person(n) for n in range(5)], key="k")).json()["summary"]["succeeded"] == 5


async def test_atomic_takes_all_or_nothing(api: Api, db: Db) -> None:
    client = await holder(api, db, "items=10/10")
    assert (await client.push([person(n) for n in range(6)], query="?atomic=true")).status == 207
    refused = await client.push([person(n) for n in range(6)], query="?atomic=true")
    assert (refused.status, refused.json()["violated-policies"]) == (429, ["items"])
    assert int(refused.headers["Retry-After"]) == 2
    assert left(refused, "items") == 4
    never = await client.push([person(n) for n in range(11)], query="?atomic=true")
    assert (never.status, never.json()["code"]) == (413, "REQUEST_TOO_LARGE")
    assert "without atomic=true" in never.json()["detail"]


async def test_items_of_one_id_stay_together(api: Api, db: Db) -> None:
    """Where the tokens end between two of them, both wait, so that both still fail for each other."""
    client = await holder(api, db, "items=3/3")
    batch = [person(1), person(2, first_name="A"), person(3), person(2, first_name="B")]
    items = (await client.push(batch)).json()["items"]
    assert [item["status"] for item in items] == ["ok", "retry", "ok", "retry"]
    assert items[1]["retry_after_seconds"] == items[3]["retry_after_seconds"]
    await asyncio.sleep(1.5)
    again = (await client.push([batch[1], batch[3]])).json()["items"]
    assert [item["error_code"] for item in again] == ["DUPLICATE_IN_BATCH"] * 2


@pytest.mark.parametrize("media_type", ["text/csv", "application/x-ndjson"])
async def test_rows_of_a_file_wait_by_their_lines(api: Api, db: Db, media_type: str) -> None:
    client = await holder(api, db, "items=2" + HOUR)
    body = b"id,email\n" + b"".join(b"c%d,c%d@example.com\n" % (n, n) for n in range(3))
    if media_type != "text/csv":
        body = b"".join(msgspec.json.encode(person(n)) + b"\n" for n in range(3))
    answer = await client.push(body, headers={"Content-Type": media_type})
    items = answer.json()["items"]
    assert [(item["status"], item["id"]) for item in items] == [("ok", "c0"), ("ok", "c1"), ("retry", "c2")]
    assert items[2]["line"] == 3 + (media_type == "text/csv")
    rows = await api.get(f"/v1/jobs/{answer.json()['job_id']}/items?status=retry", {"Accept": "text/csv"})
    assert b"RATE_LIMIT" in rows.body


async def test_a_staged_file_costs_one_request(api: Api, db: Db) -> None:
    client = await holder(api, db, "items=1" + HOUR, "requests=5" + HOUR)
    queued = await client.push([person(n) for n in range(3)], headers={"Prefer": "respond-async"})
    assert (queued.status, left(queued, "requests")) == (202, 4)
    assert left(await client.push([person(1)]), "items") == 0


async def test_requests_are_limited_on_every_route(api: Api, db: Db) -> None:
    """Also those that fail; one key's flood leaves another's bucket and another tenant's alone."""
    client = await holder(api, db, "requests=3" + HOUR)
    assert left(await client.get("/v1/jobs"), "requests") == 2
    assert left(await client.get("/v1/jobs/absent"), "requests") == 1
    assert left(await client.push(b"{"), "requests") == 0
    refused = await client.get("/v1/jobs")
    assert (refused.status, refused.json()["violated-policies"]) == (429, ["requests"])
    assert int(refused.headers["Retry-After"]) in range(1_100, 1_201)
    assert (await client.push([person(1)])).status == 429
    assert (await api.get("/v1/jobs")).status == 200
    stranger = await holder(api, db, "requests=3" + HOUR, tenant="other")
    assert left(await stranger.get("/v1/jobs"), "requests") == 2


async def test_a_tenant_and_the_service_have_limits_over_all_keys(settings: Settings, api_key: str, db: Db) -> None:
    async with serving(settings, api_key, limit_service_items="12" + HOUR, limit_tenant_items="7" + HOUR) as api:
        one, two = [await holder(api, db, "items=5" + HOUR) for _ in range(2)]
        assert (await one.push([person(n) for n in range(6)])).json()["summary"]["retry"] == 1
        answer = await two.push([person(n) for n in range(6)])
        assert answer.json()["summary"]["retry"] == 4
        assert (left(answer, "tenant-items"), left(answer, "items"), left(answer, "service-items")) == (0, 3, 5)
        assert answer.headers["X-RateLimit-Limit"] == "7"
        other = await holder(api, db, tenant="other")
        assert (await other.push([person(n) for n in range(6)])).json()["summary"]["retry"] == 1
        refused = await other.push([person(1)])
        assert refused.json()["violated-policies"] == ["service-items"]


async def test_a_changed_limit_applies_at_once(api: Api, db: Db) -> None:
    client = await holder(api, db, "items=1" + HOUR)
    assert (await client.push([person(1)])).status == 207
    assert (await client.push([person(2)])).status == 429
    key_id = (await api.get("/v1/keys")).json()["keys"][-1]["key_id"]
    body = msgspec.json.encode({"limits": {"items": {"quota": 0, "window_seconds": 1}}})
    assert (await api.request("PATCH", f"/v1/keys/{key_id}", data=body)).status == 200
    answer = await client.push([person(n) for n in range(50)])
    assert answer.json()["summary"]["succeeded"] == 50
    assert "items" not in answer.headers["RateLimit-Policy"]


async def test_an_address_with_bad_keys_is_refused_and_good_keys_are_not(
    settings: Settings, api_key: str, db: Db
) -> None:
    """Before its key is looked at; a key that this process knows as good goes on."""
    async with serving(settings, api_key, limit_address="3/6", trusted_proxies="127.0.0.0/8") as api:
        assert (await api.get("/v1/jobs")).status == 200
        fresh = api.as_key(await service.create_key(db, "acme", ["read"]))
        bad = api.as_key("trn_nonsense")

        async def ask(client: Api, address: str) -> Answer:
            return await client.get("/v1/jobs", {"X-Forwarded-For": address})

        statuses = [(await ask(bad, f"2001:db8::{n}")).status for n in range(5)]
        assert statuses == [401, 401, 401, 429, 429]
        refused = await ask(fresh, "2001:db8::9")
        assert (refused.status, refused.json()["violated-policies"]) == (429, ["address-requests"])
        assert refused.headers["RateLimit-Policy"] == '"address-requests";q=3;w=6'
        assert int(refused.headers["Retry-After"]) in (1, 2)
        assert (await ask(api, "2001:db8::1")).status == 200
        assert (await ask(bad, "2001:db8:0:1::1")).status == 401
        assert (await ask(bad, "2001:db8::1, 192.0.2.1")).status == 401
        await asyncio.sleep(int(refused.headers["Retry-After"]))
        assert (await ask(fresh, "2001:db8::9")).status == 200


async def test_redis_away_leaves_limits_in_the_process(settings: Settings, api_key: str, db: Db) -> None:
    nowhere = "redis://127.0.0.1:1/0"
    async with serving(settings, api_key, redis_url=nowhere, limit_key_items="4" + HOUR) as api:
        assert (await api.push([person(n) for n in range(6)])).json()["summary"]["retry"] == 2
        assert (await api.push([person(7)])).status == 429


async def test_two_services_share_the_limits(settings: Settings, api_key: str) -> None:
    limited = {"limit_key_items": "10" + HOUR}
    async with serving(settings, api_key, **limited) as one, serving(settings, api_key, **limited) as two:
        assert (await one.push([person(n) for n in range(6)])).json()["summary"]["retry"] == 0
        assert (await two.push([person(n) for n in range(6)])).json()["summary"]["retry"] == 2


async def test_what_is_refused_is_counted(settings: Settings, api_key: str, db: Db) -> None:
    async with serving(settings, api_key, limit_key_items="2" + HOUR, metrics_token="m" * 20) as api:
        assert (await api.push([person(n) for n in range(7)])).status == 207
        await asyncio.sleep(1.2)
        text = (await api.as_key("m" * 20).get("/metrics")).body.decode()
    counted = [line for line in text.splitlines() if line.startswith("tranche_rate_limit_refused_total{")]
    assert [line for line in counted if 'policy="items"' in line and 'scope="key"' in line]


async def test_a_limited_poll_asks_redis_rarely(settings: Settings, api_key: str, redis_url: str) -> None:
    """The default limit is generous, so a process takes tokens ahead."""
    async with serving(settings, api_key) as api, Redis.from_url(redis_url) as redis:
        await api.get("/v1/jobs")
        before = (await redis.info("commandstats")).get("cmdstat_evalsha", {}).get("calls", 0)
        for _ in range(60):
            assert (await api.get("/v1/jobs")).headers["X-RateLimit-Limit"] == "60000"
        after = (await redis.info("commandstats")).get("cmdstat_evalsha", {}).get("calls", 0)
        assert after - before <= 20
