"""Whatever creates something is done once for an idempotency key, though nothing is imported."""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

import asyncpg
import msgspec
import pytest

from app.api.routes import OPERATIONS
from app.settings import Settings
from tests.http.conftest import Answer, Api, aiohttp_session, person, serve

Db: TypeAlias = "asyncpg.Connection[Any]"
HOOK = {"url": "https://hooks.example.com/tranche"}
KEY = {"scopes": ["read"], "name": "reports"}
NATURAL = {
    "/v1/jobs/{job_id}/cancel",
    "/v1/destinations/{name}/pause",
    "/v1/destinations/{name}/resume",
    "/v1/destinations/{name}/circuit",
}
"""They set a state: twice is once."""
STATELESS = {"/v1/jobs/{job_id}/stream-token", "/v1/destinations/{name}/test", "/v1/session"}
"""They store nothing, or what they found a moment ago, or what must not be stored."""


async def post(api: Api, path: str, body: Any = None, key: str | None = "k") -> Answer:
    headers = {"Content-Type": "application/json"} | ({} if key is None else {"Idempotency-Key": key})
    return await api.request("POST", path, headers=headers, data=None if body is None else msgspec.json.encode(body))


def test_every_post_that_creates_takes_a_key() -> None:
    posts = {one.path: one for one in OPERATIONS if one.method == "POST"}
    keyed = {path for path, one in posts.items() if "idempotency_key" in dict(one.parameters)}
    assert set(posts) == keyed | NATURAL | STATELESS | {"/v1/{type}:bulk"}


@pytest.mark.parametrize(("path", "body"), [("/v1/webhook-endpoints", HOOK), ("/v1/keys", KEY)])
async def test_a_repeated_request_gets_the_first_answer(api: Api, db: Db, path: str, body: Any) -> None:
    """Also what is shown but once."""
    first = await post(api, path, body)
    again = await post(api, path, body)
    assert (first.status, again.status) == (201, 201)
    assert again.body == first.body
    assert again.headers["Location"] == first.headers["Location"]
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    assert first.headers["Idempotency-Key"] == again.headers["Idempotency-Key"] == "k"
    assert first.headers["Cache-Control"] == again.headers["Cache-Control"] == "no-store"
    other = await post(api, path, body, key="other")
    assert other.headers["Location"] != first.headers["Location"]
    answer: bytes = await db.fetchval("SELECT answer FROM idempotency_keys WHERE key = 'k'")
    secret = first.json().get("secret") or first.json()["key"]
    assert secret.encode() not in answer


async def test_without_a_key_nothing_is_stored(api: Api, db: Db) -> None:
    made = [await post(api, "/v1/webhook-endpoints", HOOK, key=None) for _ in range(2)]
    assert made[0].headers["Location"] != made[1].headers["Location"]
    assert "Idempotency-Key" not in made[0].headers
    assert await db.fetchval("SELECT count(*) FROM idempotency_keys") == 0


async def test_an_empty_key_is_refused(api: Api) -> None:
    """Whoever sends it believes that the request can be repeated."""
    refused = await post(api, "/v1/keys", KEY, key="")
    assert (refused.status, refused.json()["code"]) == (400, "IDEMPOTENCY_KEY_INVALID")


async def test_another_request_under_the_same_key_is_refused(api: Api) -> None:
    await post(api, "/v1/keys", KEY)
    answer = await post(api, "/v1/keys", KEY | {"name": "other"})
    assert (answer.status, answer.json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert answer.headers["Idempotency-Key"] == "k"
    assert (await post(api, "/v1/webhook-endpoints", HOOK)).status == 201  # a key belongs to its route
    assert (await api.push([person(1)], key="k")).status == 207


async def test_a_refused_request_leaves_its_key_free(api: Api, db: Db) -> None:
    assert (await post(api, "/v1/keys", KEY | {"scopes": ["everything"]})).status == 400
    assert (await post(api, "/v1/keys", KEY)).status == 201
    bad = await post(api, "/v1/keys", KEY, key="ü")
    assert (bad.status, bad.json()["code"]) == (400, "IDEMPOTENCY_KEY_INVALID")


async def test_an_expired_key_is_refused(api: Api, db: Db) -> None:
    await post(api, "/v1/keys", KEY)
    await db.execute("UPDATE idempotency_keys SET expires_at = now() - interval '1 second'")
    answer = await post(api, "/v1/keys", KEY)
    assert (answer.status, answer.json()["code"]) == (422, "IDEMPOTENCY_KEY_EXPIRED")
    assert await db.fetchval("SELECT count(*) FROM api_keys WHERE name = 'reports'") == 1


async def test_many_at_once_make_one(api: Api, db: Db) -> None:
    answers = await asyncio.gather(*(post(api, "/v1/keys", KEY) for _ in range(20)))
    assert {a.status for a in answers} <= {201, 409}
    assert all(a.json()["code"] == "IDEMPOTENCY_KEY_IN_USE" for a in answers if a.status == 409)
    assert len({a.body for a in answers if a.status == 201}) == 1
    assert await db.fetchval("SELECT count(*) FROM api_keys WHERE name = 'reports'") == 1


async def test_what_fails_after_its_work_has_done_nothing(api: Api, db: Db) -> None:
    """The answer and the work are one transaction."""
    await db.execute("ALTER TABLE idempotency_keys ADD CHECK (key <> 'k')")
    assert (await post(api, "/v1/keys", KEY)).status >= 500
    assert await db.fetchval("SELECT count(*) FROM api_keys WHERE name = 'reports'") == 0


async def test_undo_and_retry_answer_again_as_they_did(api: Api, db: Db) -> None:
    job = (await api.push([person(1)])).json()["status_url"]
    first = await post(api, f"{job}/undo")
    assert first.status == 202
    undo_id = first.json()["job_id"]
    assert first.headers["Location"] == f"/v1/jobs/{undo_id}"
    assert (await api.get(f"/v1/jobs/{undo_id}")).json()["kind"] == "undo"
    again = await post(api, f"{job}/undo")
    assert (again.status, again.body) == (202, first.body)
    other = (await api.push([person(2)])).json()["status_url"]
    assert (await post(api, f"{other}/undo")).status == 422
    refused = await post(api, f"{job}/retry")
    assert (refused.status, refused.json()["code"]) == (409, "NOTHING_TO_RETRY")


async def test_the_operator_has_keys_of_his_own(settings: Settings, api_key: str) -> None:
    settings = msgspec.structs.replace(settings, operator_token="operator")
    async with serve(settings) as url, aiohttp_session() as session:
        operator = Api(session, url, "operator")
        first = await post(operator, "/v1/tenants", {"name": "globex"})
        again = await post(operator, "/v1/tenants", {"name": "globex"})
        assert (first.status, again.status, again.body) == (201, 201, first.body)
        assert (await post(operator, "/v1/tenants", {"name": "globex"}, key="2")).status == 409
        assert (await post(Api(session, url, api_key), "/v1/keys", KEY)).status == 201


async def test_a_service_that_cannot_encrypt_says_so(settings: Settings, api_key: str) -> None:
    async with serve(msgspec.structs.replace(settings, secret_key="")) as url, aiohttp_session() as session:
        answer = await post(Api(session, url, api_key), "/v1/keys", KEY)
        assert (answer.status, answer.json()["code"]) == (503, "SECRET_KEY_MISSING")
        assert (await post(Api(session, url, api_key), "/v1/keys", KEY, key=None)).status == 201
