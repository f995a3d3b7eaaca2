"""One key, one effect, one answer."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import asyncpg

from tests.http.conftest import Api, person

KEYS = "/v1/idempotency-keys/"


async def test_a_replay_is_the_first_answer_byte_for_byte(api: Api) -> None:
    items = [person(1), {"id": "c2", "email": "no"}]
    first = await api.push(items, key="k")
    await api.push([person(1, company="changed meanwhile")])
    again = await api.push(items, key="k", headers={"Prefer": "return=minimal"})
    assert (again.status, again.body) == (207, first.body)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["Location"] == first.headers["Location"]
    assert (await api.get("/v1/contacts/c1")).json()["company"] == "changed meanwhile"
    assert len((await api.get("/v1/jobs")).json()["jobs"]) == 2


async def test_another_request_under_the_same_key_is_refused(api: Api) -> None:
    await api.push([person(1)], key="k")
    for items, query in (([person(2)], ""), ([person(1)], "?atomic=true"), (b"not even JSON", "")):
        answer = await api.push(items, key="k", query=query)
        assert (answer.status, answer.json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")


async def test_a_refused_request_leaves_its_key_free(api: Api) -> None:
    assert (await api.push(b"[]", key="k")).status == 400
    assert (await api.push([person(1)], key="k")).status == 207


async def test_an_expired_key_is_refused_and_says_so(api: Api, db: asyncpg.Connection[Any]) -> None:
    await api.push([person(1)], key="k")
    await db.execute("UPDATE idempotency_keys SET expires_at = now() - interval '1 second'")
    answer = await api.push([person(1)], key="k")
    assert (answer.status, answer.json()["code"]) == (422, "IDEMPOTENCY_KEY_EXPIRED")
    assert (await api.get(KEYS + "k")).json()["state"] == "expired"


async def test_while_the_first_runs_others_are_told_to_wait(api: Api, db: asyncpg.Connection[Any]) -> None:
    """A contact held by this test keeps the first request inside its transaction."""
    await api.push([person(1)])
    async with db.transaction():
        await db.execute("SELECT FROM records WHERE record_id = 'c1' FOR UPDATE")
        first = asyncio.create_task(api.push([person(1, company="x")], key="k"))
        await asyncio.sleep(0.2)
        second = await api.push([person(1, company="x")], key="k")
        assert (second.status, second.json()["code"]) == (409, "IDEMPOTENCY_KEY_IN_USE")
        assert int(second.headers["Retry-After"]) >= 1
        assert second.headers["Idempotency-Key"] == "k"
        assert (await api.get(KEYS + "k")).json() == {"key": "k", "state": "running"}
    answered = await first
    assert answered.status == 207
    assert (await api.push([person(1, company="x")], key="k")).body == answered.body


async def test_bare_and_quoted_are_one_key(api: Api) -> None:
    for sent, same in (("abc", '"abc"'), ('a"b', '"a\\"b"'), ("a\\b", '"a\\\\b"')):
        first = await api.push([person(1)], key=sent)
        again = await api.push([person(1)], key=same)
        assert again.headers["Idempotency-Replayed"] == "true"
        assert again.headers["Idempotency-Key"] == same
        assert again.body == first.body


async def test_what_is_no_key_is_refused(api: Api) -> None:
    for key in ("\u00e9", "x" * 256, '"open', '"a"b"', '""', '"a";p=1', "a\tb"):
        answer = await api.push([person(1)], key=key)
        assert (answer.status, answer.json()["code"]) == (400, "IDEMPOTENCY_KEY_INVALID"), key


async def test_without_a_key_nothing_is_done(api: Api) -> None:
    answer = await api.request("POST", "/v1/contacts:bulk", data=b'{"items":[]}')
    assert (answer.status, answer.json()["code"]) == (400, "IDEMPOTENCY_KEY_MISSING")


async def test_a_key_tells_its_job(api: Api) -> None:
    for key in ("plain", "with space", 'sl/ash%20"q"?#', "x" * 255, "/", "."):
        answer = await api.push([person(1)], key=key)
        found = (await api.get(KEYS + (quote(key, safe="") if key != "." else "%2E"))).json()
        assert found["state"] == "completed"
        assert found["key"] == key
        assert found["job_id"] == answer.json()["job_id"]
        assert found["status_url"] == answer.headers["Location"]
        assert found["created_at"] < found["expires_at"]


async def test_an_unknown_key_is_not_found(api: Api) -> None:
    for key in ("unknown", "%00", "%FF", "x" * 300, "%C3%A9"):
        assert (await api.get(KEYS + key)).status == 404


async def test_keys_are_kept_for_the_time_told(api: Api, db: asyncpg.Connection[Any]) -> None:
    await api.push([person(1)], key="k")
    kept = await db.fetchval("SELECT expires_at - created_at FROM idempotency_keys")
    assert kept == timedelta(hours=24)
