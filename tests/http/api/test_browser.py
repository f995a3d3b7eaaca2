"""What a page in a browser can do: cross-origin requests, and an EventSource that can send no header."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import msgspec
import pytest

from app.auth import service
from app.http.security_headers import shield
from app.settings import Settings
from tests.http.conftest import Answer, Api, aiohttp_session, person, serve
from tests.http.job_status.test_events import Stream
from tests.http.made_jobs import Db, complete, make_job

PAGE = "https://app.example.com"


@pytest.fixture
async def web(settings: Settings, api_key: str) -> AsyncIterator[Api]:
    """A service that one page may call."""
    allowed = msgspec.structs.replace(settings, cors_origins=f"{PAGE}, http://localhost:3000")
    async with serve(allowed) as url, aiohttp_session() as session:
        yield Api(session, url, api_key)


async def preflight(api: Api, path: str, method: str, origin: str = PAGE) -> Answer:
    sent = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,content-type,idempotency-key,prefer",
    }
    return await api.as_key(None).request("OPTIONS", path, headers=sent)


def told(answer: Answer) -> dict[str, str]:
    return {k.lower(): v for k, v in answer.headers.items() if k.lower().startswith("access-control-")}


async def test_a_page_of_an_allowed_origin_may_import(web: Api) -> None:
    asked = await preflight(web, "/v1/contacts:bulk", "POST")
    assert asked.status == 204
    fields = told(asked)
    assert fields["access-control-allow-origin"] == PAGE
    assert "POST" in fields["access-control-allow-methods"].split(", ")
    allowed = {name.lower() for name in fields["access-control-allow-headers"].split(", ")}
    assert {"authorization", "content-type", "idempotency-key", "prefer", "last-event-id"} <= allowed
    assert "access-control-allow-credentials" not in fields

    answer = await web.push([person(1)], headers={"Origin": PAGE})
    assert answer.status == 207
    assert told(answer)["access-control-allow-origin"] == PAGE
    exposed = {name.lower() for name in told(answer)["access-control-expose-headers"].split(", ")}
    sent = {name.lower() for name in answer.headers}
    safe = {"content-type", "content-length", "cache-control", "date", "server", "vary", "transfer-encoding"}
    hardening = {name.decode() for name, _ in shield([], "https")}
    assert {n for n in sent if not n.startswith("access-control-")} <= exposed | safe | hardening
    assert "origin" in ", ".join(answer.headers.getall("Vary")).lower()


async def test_a_refusal_can_be_read_by_the_page_as_well(web: Api) -> None:
    for answer in (
        await web.as_key(None).request("GET", "/v1/jobs", headers={"Origin": PAGE}),
        await web.request("GET", "/nowhere", headers={"Origin": PAGE}),
    ):
        assert answer.status in (401, 404)
        assert told(answer)["access-control-allow-origin"] == PAGE


@pytest.mark.parametrize("origin", ["https://evil.example", "https://app.example.com.evil.example", "null"])
async def test_no_other_page_may(web: Api, origin: str) -> None:
    assert told(await preflight(web, "/v1/contacts:bulk", "POST", origin)) == {}
    answer = await web.request("GET", "/v1/jobs", headers={"Origin": origin})
    assert told(answer) == {}
    assert "origin" in answer.headers["Vary"].lower(), "a cache must not give this answer to the page that may"


async def test_without_the_setting_nothing_is_said_about_origins(api: Api) -> None:
    assert told(await preflight(api, "/v1/jobs", "GET")) == {}
    answer = await api.get("/v1/jobs", {"Origin": PAGE})
    assert told(answer) == {}
    assert "Vary" not in answer.headers


async def token_for(api: Api, job_id: Any) -> dict[str, str]:
    answer = await api.request("POST", f"/v1/jobs/{job_id}/stream-token")
    assert answer.status == 200, answer.body
    assert answer.headers["Cache-Control"] == "no-store"
    found: dict[str, str] = answer.json()
    return found


async def test_an_event_source_follows_a_job_by_its_token_and_comes_again(web: Api, db: Db) -> None:
    """What `new EventSource(events_url)` sends: no key, and after a pause the same address with Last-Event-ID."""
    job_id = await make_job(db)
    address = web.url + (await token_for(web, job_id))["events_url"]
    sent = {"Accept": "text/event-stream", "Origin": PAGE}
    async with web.session.get(address, headers=sent) as answer:
        assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, PAGE)
        async with asyncio.timeout(60):
            async for event in Stream(answer):
                first = event.id
                break
    await complete(db, job_id)
    async with web.session.get(address, headers=sent | {"Last-Event-ID": str(first)}) as answer:
        assert [event.name async for event in Stream(answer)] == ["end"]
    async with web.session.get(address, headers=sent | {"Last-Event-ID": str(event.id)}) as answer:
        again = answer.status
    assert again in (200, 204)


async def test_a_token_opens_one_stream_and_nothing_else(api: Api, db: Db) -> None:
    job_id, other = await make_job(db), await make_job(db)
    token = (await token_for(api, job_id))["token"]
    nobody = api.as_key(None)
    assert (await nobody.get(f"/v1/jobs/{other}/events?token={token}")).status == 401
    assert (await nobody.get(f"/v1/jobs/{uuid.uuid4()}/events?token={token}")).status == 401
    assert (await nobody.get(f"/v1/jobs/{job_id}?token={token}")).status == 401
    assert (await nobody.as_key(token).get(f"/v1/jobs/{job_id}")).status == 401
    for broken in ("", "x", token[:-1], token[:-2] + "AA", token.replace("trs_", "trn_")):
        refused = await nobody.get(f"/v1/jobs/{job_id}/events?token={broken}")
        assert refused.status == 401, broken
    assert "stream-token" in refused.json()["detail"]


async def test_a_token_ends_with_its_time_and_with_its_key(settings: Settings, api_key: str, db: Db) -> None:
    job_id = await make_job(db)
    short = msgspec.structs.replace(settings, stream_token_seconds=1.0)
    async with serve(short) as url, aiohttp_session() as session:
        api = Api(session, url, api_key)
        token = await token_for(api, job_id)
        nobody = api.as_key(None)
        await asyncio.sleep(max(0.0, datetime.fromisoformat(token["expires_at"]).timestamp() - time.time()) + 0.1)
        assert (await nobody.get(token["events_url"])).status == 401
    async with serve(settings) as url, aiohttp_session() as session:
        api = Api(session, url, api_key)
        address = (await token_for(api, job_id))["events_url"]
        await service.revoke_key(db, api_key)
        assert (await api.as_key(None).get(address)).status == 401


async def test_a_token_needs_a_key_that_may_see_the_job(api: Api, db: Db) -> None:
    job_id = await make_job(db)
    strange = api.as_key(await service.create_key(db, "strangers", ["read", "import", "admin"]))
    assert (await strange.request("POST", f"/v1/jobs/{job_id}/stream-token")).status == 404
    importing = api.as_key(await service.create_key(db, "acme", ["import"]))
    assert (await importing.request("POST", f"/v1/jobs/{job_id}/stream-token")).status == 403
    assert (await api.as_key(None).request("POST", f"/v1/jobs/{job_id}/stream-token")).status == 401
