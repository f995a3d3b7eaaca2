"""`/v1/jobs`: where an import stands, and each of its items."""

from __future__ import annotations

import asyncio
import time
from typing import Any, TypeAlias

import asyncpg
import msgspec
import pytest

from app.deliveries import queries
from app.destinations import service
from app.job_status.live.job_cache import YOUNG
from app.kit.encryption import Vault
from app.vocabulary.outcomes_wire import Cluster
from tests.conftest import LOOPBACK, SECRET_KEY
from tests.http.conftest import Api, person
from tests.stopwatch import stopwatch

Db: TypeAlias = "asyncpg.Connection[Any]"


@pytest.fixture
async def hubspot(db: Db, api: Api) -> int:
    """A destination of the tenant; no worker runs, so the test itself says what became of deliveries."""
    tenant = await db.fetchval("SELECT tenant_id FROM tenants WHERE name = 'acme'")
    new = service.NewDestination(name="hubspot", kind="hubspot", base_url="http://127.0.0.1:1", token="t")
    await service.add_destination(db, Vault(SECRET_KEY), tenant, new, private=LOOPBACK)
    found: int = await db.fetchval("SELECT destination_id FROM destinations")
    return found


async def record(db: Db, job_id: str, states: str, errors: dict[str, Any] | None = None) -> None:
    """What a worker leaves behind: the states of a job's only delivery, with all that follows from them."""
    open_items = sum(code in "pru" for code in states)
    failed = sum(code in "fd" for code in states)
    words = {"p": "pending", "o": "ok", "r": "retry", "f": "failed", "u": "unknown", "d": "dead", "s": "skipped"}
    counts = {word: states.count(code) for code, word in words.items()}
    async with db.transaction():
        await db.execute(
            "UPDATE deliveries SET states = $2, errors = $3::text::jsonb, state = $4, attempt = attempt + 1, "
            "failures = $5::text::jsonb WHERE job_id = $1",
            job_id,
            states,
            msgspec.json.encode(errors or {}).decode(),
            "pending" if open_items else "done",
            msgspec.json.encode(await count(db, job_id, errors or {})).decode(),
        )
        sets = ", ".join(f"{word} = {count}" for word, count in counts.items())
        await db.execute(f"UPDATE effects SET {sets} WHERE job_id = $1", job_id)
        await db.execute(
            "UPDATE jobs SET revision = revision + 1, state = $2, "
            "finished_at = CASE WHEN $3 THEN NULL ELSE now() END WHERE job_id = $1",
            job_id,
            "syncing" if open_items else "completed_with_failures" if failed else "completed",
            bool(open_items),
        )


async def count(db: Db, job_id: str, errors: dict[str, Any]) -> dict[str, Cluster]:
    indexes = await db.fetchval("SELECT indexes FROM deliveries WHERE job_id = $1", job_id)
    return queries.count_failures(msgspec.convert(errors, dict[str, queries.ItemError]), indexes)


async def test_a_job_tells_what_is_open_and_when_to_ask_again(api: Api, db: Db, hubspot: int) -> None:
    pushed = (await api.push([person(1), person(2), {"id": "x"}, {"id": "y"}])).json()
    answer = await api.get(pushed["status_url"])
    job = answer.json()
    assert (job["state"], job["kind"], job["finished_at"]) == ("syncing", "import", None)
    assert job["root_job_id"] == job["job_id"]
    assert job["summary"] == pushed["summary"]
    assert job["results"] == {"created": 2}
    assert job["options"] == {"atomic": False, "last_wins": False, "dry_run": False, "consistency": "none"}
    assert job["effects"]["hubspot"] == {
        "pending": 2, "ok": 0, "retry": 0, "failed": 0, "unknown": 0, "dead": 0, "skipped": 0
    }  # fmt: skip
    assert job["failures"] == [{"destination": "db", "code": "MISSING_FIELD", "count": 2, "samples": [2, 3]}]
    assert int(answer.headers["Retry-After"]) == 1

    await db.execute("UPDATE destinations SET blocked_until = now() + interval '40 s', blocked_code = 'CIRCUIT_OPEN'")
    await asyncio.sleep(YOUNG)
    assert 38 <= int((await api.get(pushed["status_url"])).headers["Retry-After"]) <= 40

    refused = {"1": {"code": "DESTINATION_REJECTED", "detail": "no such property"}}
    await record(db, job["job_id"], "of", refused)
    answer = await api.get(pushed["status_url"])
    assert "Retry-After" not in answer.headers
    job = answer.json()
    assert job["state"] == "completed_with_failures"
    assert job["finished_at"] is not None
    assert {"destination": "hubspot", "code": "DESTINATION_REJECTED", "count": 1, "samples": [1]} in job["failures"]


async def test_a_poll_of_an_unchanged_job_is_304(api: Api, db: Db, hubspot: int) -> None:
    pushed = (await api.push([person(1)])).json()
    path = pushed["status_url"]
    first = await api.get(path)
    tag = first.headers["ETag"]
    for known in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        same = await api.get(path, {"If-None-Match": known})
        assert (same.status, same.body, same.headers["ETag"]) == (304, b"", tag)
        assert "Retry-After" in same.headers
    for other in ('"4-99"', "garbage", '"4-1', '"\u00e9"', '"4-99999999999999999999999"'):
        answer = await api.get(path, {"If-None-Match": other})
        assert answer.status in (200, 304)
    await record(db, pushed["job_id"], "o")
    changed = await api.get(path, {"If-None-Match": tag})
    assert changed.status == 200
    assert changed.headers["ETag"] != tag


async def test_a_waiting_poll_returns_when_the_job_ends(api: Api, db: Db, hubspot: int) -> None:
    pushed = (await api.push([person(1)])).json()
    path = pushed["status_url"]
    started = time.monotonic()
    async with stopwatch() as passed:
        still = await api.get(path, {"Prefer": "wait=1"})
    assert time.monotonic() - started >= 1.0
    assert passed.seconds < 2.0
    assert still.headers["Preference-Applied"] == "wait=1"
    assert still.json()["state"] == "syncing"

    waiting = [asyncio.create_task(api.get(path, {"Prefer": "wait=30"})) for _ in range(50)]
    changed = asyncio.create_task(api.get(path, {"Prefer": "wait=30", "If-None-Match": still.headers["ETag"]}))
    await asyncio.sleep(0.3)
    await record(db, pushed["job_id"], "r", {"0": {"code": "DESTINATION_UNAVAILABLE", "detail": "503"}})
    assert (await asyncio.wait_for(changed, 15)).json()["effects"]["hubspot"]["retry"] == 1
    assert not any(task.done() for task in waiting)
    await record(db, pushed["job_id"], "o")
    async with stopwatch() as passed:
        answers = await asyncio.gather(*waiting)
    assert passed.seconds < 2.0
    assert {a.json()["state"] for a in answers} == {"completed"}
    assert (await api.get(path, {"Prefer": "wait=20"})).json()["state"] == "completed"


async def test_waiters_hold_no_connection(api: Api, db: Db, hubspot: int) -> None:
    """A hundred of them against a pool of ten: others are answered as ever."""
    pushed = (await api.push([person(1)])).json()
    path, job_id = pushed["status_url"], pushed["job_id"]
    waiting = [asyncio.create_task(api.get(path, {"Prefer": "wait=30"})) for _ in range(100)]
    await asyncio.sleep(0.5)
    async with stopwatch() as passed:
        assert (await api.get("/v1/contacts/c1")).status == 200
    assert passed.seconds < 0.5
    assert not any(task.done() for task in waiting)
    await record(db, job_id, "o")
    assert {answer.json()["state"] for answer in await asyncio.gather(*waiting)} == {"completed"}


async def test_a_held_answer_tells_the_effects_of_its_moment(api: Api, db: Db, hubspot: int) -> None:
    held = asyncio.create_task(api.push([person(1), person(2)], key="k", headers={"Prefer": "wait=20"}))
    job_id = None
    while job_id is None:
        job_id = await db.fetchval("SELECT job_id::text FROM jobs")
        await asyncio.sleep(0.02)
    early = await api.push([person(1), person(2)], key="k")
    assert (early.status, early.json()["code"]) == (409, "IDEMPOTENCY_KEY_IN_USE")
    assert 1 <= int(early.headers["Retry-After"]) <= 25
    assert (await api.get("/v1/idempotency-keys/k")).json()["state"] == "running"
    await record(db, job_id, "oo")
    answer = await asyncio.wait_for(held, 15)
    assert answer.json()["effects"] == {"db": "ok", "hubspot": "ok"}
    assert answer.headers["Preference-Applied"] == "wait=20"
    assert (await api.push([person(1), person(2)], key="k")).body == answer.body


async def test_a_held_answer_comes_in_time_though_nothing_is_settled(api: Api, hubspot: int) -> None:
    started = time.monotonic()
    async with stopwatch() as passed:
        answer = await api.push([person(1)], key="k", headers={"Prefer": "wait=1"})
    assert time.monotonic() - started >= 1.0
    assert passed.seconds < 2.0
    assert answer.json()["effects"]["hubspot"] == "pending"
    again = await api.push([person(1)], key="k")
    assert (again.status, again.body) == (207, answer.body)


async def test_who_hangs_up_while_waiting_loses_nothing(api: Api, db: Db, hubspot: int) -> None:
    waiting = asyncio.create_task(api.push([person(1)], key="k", headers={"Prefer": "wait=1"}))
    async with asyncio.timeout(60):
        while not await db.fetchval("SELECT count(*) FROM records"):
            await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.sleep(1.2)
    again = await api.push([person(1)], key="k")
    assert (again.status, again.headers["Idempotency-Replayed"]) == (207, "true")


async def test_jobs_are_listed_newest_first_by_cursor(api: Api) -> None:
    made = [(await api.push([person(i)])).json()["job_id"] for i in range(7)]
    seen: list[str] = []
    path = "/v1/jobs?limit=3"
    while path:
        answer = await api.get(path)
        seen += [job["job_id"] for job in answer.json()["jobs"]]
        cursor = answer.json()["next_cursor"]
        assert (cursor is not None) == ("Link" in answer.headers)
        path = f"/v1/jobs?limit=3&cursor={cursor}" if cursor else ""
    assert seen == made[::-1]


async def test_items_come_in_order_by_cursor(api: Api) -> None:
    path = (await api.push([person(i) for i in range(250)])).json()["items_url"]
    seen: list[int] = []
    page = path + "?limit=99"
    while page:
        answer = await api.get(page)
        seen += [item["index"] for item in answer.json()["items"]]
        link = answer.headers.get("Link", "")
        page = link[1 : link.index(">")] if link else ""
    assert seen == list(range(250))
    lines = await api.get(path + "?limit=1000", {"Accept": "application/x-ndjson"})
    assert lines.headers["Content-Type"] == "application/x-ndjson"
    assert [msgspec.json.decode(line)["index"] for line in lines.body.splitlines()] == list(range(250))


async def test_items_are_filtered_here_and_at_destinations(api: Api, db: Db, hubspot: int) -> None:
    pushed = (await api.push([person(0), {"id": "x"}, person(2), person(3), person(4)])).json()
    errors = {
        "1": {"code": "DESTINATION_REJECTED", "detail": "no"},
        "3": {"code": "DESTINATION_UNAVAILABLE", "detail": "503"},
    }
    await record(db, pushed["job_id"], "ofpr", errors)

    async def indexes(query: str) -> list[int]:
        answer = await api.get(f"{pushed['items_url']}?{query}")
        assert answer.status == 200, answer.body
        return [item["index"] for item in answer.json()["items"]]

    assert await indexes("status=ok") == [0, 2, 3, 4]
    assert await indexes("status=failed") == [1]
    assert await indexes("status=failed&destination=db") == [1]
    assert await indexes("status=failed&destination=hubspot") == [2]
    assert await indexes("status=pending&destination=hubspot") == [3]
    assert await indexes("destination=hubspot") == [0, 2, 3, 4]
    assert await indexes("destination=elsewhere") == []
    assert await indexes("error_code=MISSING_FIELD") == [1]
    assert await indexes("error_code=DESTINATION_REJECTED") == [2]
    assert await indexes("error_code=MISSING_FIELD&destination=hubspot") == []
    assert (await api.get(pushed["items_url"] + "?status=pending")).status == 400

    items = (await api.get(pushed["items_url"])).json()["items"]
    assert items[1]["destinations"] == {}
    assert items[1]["error_code"] == "MISSING_FIELD"
    assert items[2]["destinations"]["hubspot"] == {
        "state": "failed", "version": 1, "attempts": 1, "error_code": "DESTINATION_REJECTED", "detail": "no"
    }  # fmt: skip


async def test_an_item_that_waits_says_why_and_how_long(api: Api, db: Db, hubspot: int) -> None:
    pushed = (await api.push([person(1), person(2)])).json()
    await record(db, pushed["job_id"], "or", {"1": {"code": "DESTINATION_UNAVAILABLE", "detail": "503"}})
    await db.execute("UPDATE deliveries SET next_attempt_at = now() + interval '9.5 s'")

    async def waiting() -> dict[str, Any]:
        items = (await api.get(pushed["items_url"])).json()["items"]
        assert items[0]["destinations"]["hubspot"] == {"state": "ok", "version": 1, "attempts": 1}
        there: dict[str, Any] = items[1]["destinations"]["hubspot"]
        return there

    backoff = await waiting()
    assert (backoff["error_code"], backoff["retry_after_seconds"]) == ("DESTINATION_UNAVAILABLE", 10)
    await db.execute(
        "UPDATE destinations SET blocked_until = now() + interval '30.5 s', blocked_code = 'CIRCUIT_OPEN', "
        "blocked_detail = 'too many failures'"
    )
    blocked = await waiting()
    assert (blocked["error_code"], blocked["retry_after_seconds"]) == ("CIRCUIT_OPEN", 31)
    assert blocked["detail"] == "too many failures; the last attempt: 503"
    assert (await api.get("/v1/contacts/c1")).json()["destinations"]["hubspot"]["error_code"] == "CIRCUIT_OPEN"
    await api.request("POST", "/v1/destinations/hubspot/pause")
    paused = await waiting()
    assert "paused" in paused["detail"]
    assert "retry_after_seconds" not in paused


async def test_what_is_no_job_or_cursor_is_told_so(api: Api) -> None:
    pushed = (await api.push([person(1), person(2)])).json()
    other = (await api.push([person(1), person(3)])).json()
    for missing in ("0", "%00", "x" * 500, "00000000-0000-0000-0000-000000000000", "{" + other["job_id"] + "}"):
        assert (await api.get(f"/v1/jobs/{missing}")).status == 404
        assert (await api.get(f"/v1/jobs/{missing}/items")).status == 404
    foreign = (await api.get(other["items_url"] + "?limit=1")).json()["next_cursor"]
    listed = (await api.get("/v1/jobs?limit=1")).json()["next_cursor"]
    for cursor in (foreign, listed, "", "%00", "AAAA", foreign[:-3], "W10", "%F0%9F%98%80"):
        answer = await api.get(f"{pushed['items_url']}?cursor={cursor}")
        assert (answer.status, answer.json()["code"]) == (400, "INVALID_CURSOR"), cursor
    for query in ("limit=0", "limit=1001", "limit=-1", "limit=1e3", "limit=%D9%A1", "page=2"):
        assert (await api.get(f"{pushed['items_url']}?{query}")).status == 400, query
        assert (await api.get(f"/v1/jobs?{query}")).status == 400, query
