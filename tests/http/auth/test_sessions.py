"""`/v1/session`: a cookie in place of a key."""

from __future__ import annotations

from typing import Any, TypeAlias

import asyncpg

from app.auth import tokens
from tests.http.conftest import Answer, Api

Db: TypeAlias = "asyncpg.Connection[Any]"

PAGE = {"Tranche-Console": "1"}


async def make_key(api: Api, headers: dict[str, str] | None = None) -> Answer:
    sent = {"Content-Type": "application/json", **(headers or {})}
    return await api.request("POST", "/v1/keys", headers=sent, data=b'{"scopes":["read"]}')


async def open_session(api: Api) -> str:
    answer = await api.request("POST", "/v1/session")
    assert answer.status == 201
    assert answer.headers["Cache-Control"] == "no-store"
    cookie, _, rest = answer.headers["Set-Cookie"].partition("; ")
    assert {"Path=/", "Secure", "HttpOnly", "SameSite=Strict"} <= set(rest.split("; "))
    assert b"trc_" not in answer.body
    return cookie


async def test_a_cookie_is_as_good_as_its_key(api: Api) -> None:
    cookie = await open_session(api)
    page = api.as_key(None)
    who = await page.get("/v1/session", {"Cookie": cookie})
    assert who.status == 200
    assert set(who.json()) >= {"tenant", "key_id", "scopes", "expires_at"}
    assert (await page.get("/v1/jobs", {"Cookie": f"other=1; {cookie}"})).status == 200
    audit = (await api.get("/v1/audit-log")).json()["entries"]
    assert any(each["action"] == "session.open" for each in audit)


async def test_it_changes_something_only_for_our_own_page(api: Api) -> None:
    cookie = await open_session(api)
    page = api.as_key(None)
    assert (await make_key(page, {"Cookie": cookie})).status == 401
    assert (await make_key(page, {"Cookie": cookie, **PAGE})).status == 201


async def test_a_key_beside_it_takes_precedence(api: Api) -> None:
    cookie = await open_session(api)
    answer = await api.as_key("trn_wrong").get("/v1/jobs", {"Cookie": cookie})
    assert answer.status == 401


async def test_signing_out_ends_it_and_a_new_one_ends_the_one_before(api: Api) -> None:
    first = await open_session(api)
    page = api.as_key(None)
    second = (await page.request("POST", "/v1/session", headers={"Cookie": first, **PAGE})).headers["Set-Cookie"]
    second = second.partition(";")[0]
    assert (await page.get("/v1/jobs", {"Cookie": first})).status == 401
    assert (await page.get("/v1/jobs", {"Cookie": second})).status == 200
    gone = await page.request("DELETE", "/v1/session", headers={"Cookie": second, **PAGE})
    assert gone.status == 204
    assert "Max-Age=0" in gone.headers["Set-Cookie"]
    assert (await page.get("/v1/jobs", {"Cookie": second})).status == 401
    assert (await api.get("/v1/jobs")).status == 200


async def test_it_ends_with_its_key_and_has_no_more_rights(api: Api) -> None:
    made = (await make_key(api)).json()
    cookie = await open_session(api.as_key(made["key"]))
    page = api.as_key(None)
    assert (await make_key(page, {"Cookie": cookie, **PAGE})).status == 403
    assert (await api.request("DELETE", f"/v1/keys/{made['key_id']}")).status == 204
    assert (await page.get("/v1/jobs", {"Cookie": cookie})).status == 401


async def test_that_it_has_ended_is_said_to_its_holder_alone(api: Api, db: Db) -> None:
    """Whoever knows its id, and not its secret, learns nothing."""
    secret = (await open_session(api)).partition("=")[2]
    token = tokens.parse(secret)
    assert token is not None
    forged, _ = tokens.make(token.tenant_id, bytes.fromhex(token.key_id), bytes(20), prefix=tokens.SESSION_PREFIX)
    await db.execute("UPDATE api_sessions SET expires_at = now()")
    told = [(await api.as_key(each).get("/v1/jobs")).json()["detail"] for each in (secret, forged)]
    assert ["session has ended" in detail for detail in told] == [True, False]
